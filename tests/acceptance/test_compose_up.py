"""compose.yaml, brought up by a container engine: first ping, every container killed and frozen.

It needs an engine that runs (Docker 26 or newer with compose 2.26 or newer: volumes have
subpaths), and base images: those of deploy/Dockerfile and compose.yaml, or others that
PYTHON_IMAGE, NODE_IMAGE and NGINX_IMAGE name. Where no registry can be reached, debootstrap of
Debian 13 with python3-venv, handed to `docker import`, is such a PYTHON_IMAGE; the same with
Node.js and npm, or nginx, are the others. An image that is there already, gpuping:NAME, is used
with TEST_IMAGE_VERSION=NAME. Volumes, ports and names are the test's own; an installation of
gpuping on the same machine is left alone.
"""

import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from system import until

from tests.ports import free_ports

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
HEALTHY = "sim-healthy"  # pinged at the base interval; others that are poor are pinged ever less
AGENTS = (HEALTHY, "sim-eight-gpus-one-bad")
BASE_MINUTES = 0.1
BUILD_SECONDS = 1500
BACK_SECONDS = 300.0
DEMO = "demo-agents"
ONE_SHOTS = {"setup", "layout", "cluster-layout", "demo-setup"}
# The main process is the child of docker-init. Docker does not restart what `docker kill` ended,
# because that is an operator's wish; a process that dies is started again.
SIGNAL_MAIN_PROCESS = "kill -{} $(cat /proc/1/task/1/children)"
FRONT = "cluster"  # nginx: an image that is not ours, without a watchdog


def engine_says() -> str | None:
    """What keeps this test from running, if anything does."""
    if shutil.which("docker") is None:
        return "no docker here"
    for asked in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"`{' '.join(asked)}` fails: {done.stderr.strip().splitlines()[-1]}"
    return None


class Stack:
    """A part of compose.yaml under names of its own."""

    def __init__(self, folder: Path, *, cluster: bool) -> None:
        self.name = f"gpuping-test-{secrets.token_hex(3)}"
        gateway_port, nats_port, leaf_port = free_ports(3)
        self.url = f"http://127.0.0.1:{gateway_port}"
        self._made = os.environ.get("TEST_IMAGE_VERSION")  # of an image that is there already
        self._environment = os.environ | {
            "GPUPING_VERSION": self._made or "test",
            "GATEWAY_PORT": str(gateway_port),
            "NATS_PORT": str(nats_port),
            "LEAF_PORT": str(leaf_port),
            "PING_BASE_INTERVAL_MINUTES": str(BASE_MINUTES),
        }
        self._profiles = ["--profile", "demo"]
        self._started = [DEMO]
        if cluster:
            servers = ",".join(f"tls://{name}:4222" for name in ("n1", "n2", "n3"))
            self._environment["AGENT_NATS_URL"] = servers
            self._profiles += ["--profile", "cluster"]
            self._started.append("cluster")
        resolved = json.loads(self._docker("compose", *self._profiles, "config", "--format=json"))
        resolved["name"] = self.name
        for volume in resolved["volumes"].values():
            volume["name"] = volume["name"].replace("gpuping", self.name)
        for network in resolved["networks"].values():
            network.pop("name", None)
        self._file = folder / "compose.json"
        self._file.write_text(json.dumps(resolved))
        if not cluster:
            self._started += [
                name
                for name, service in resolved["services"].items()
                if not service.get("profiles")
            ]

    def compose(self, *arguments: str, seconds: float = 300.0) -> str:
        base = ["compose", "-f", str(self._file), "-p", self.name, *self._profiles]
        return self._docker(*base, *arguments, seconds=seconds)

    def up(self) -> None:
        if self._made is None:
            self.compose("build", "setup", seconds=BUILD_SECONDS)
        self.compose("up", "-d", *self._started)

    def token(self) -> str:
        found = re.search(
            r"gpuping_[\w-]+$", self.compose("logs", "setup", "--no-color"), re.MULTILINE
        )
        assert found, "the administrator's token is in the log of setup"
        return found[0]

    def services(self) -> list[str]:
        """Those that go on, but for the demo's agents."""
        running = self.compose("ps", "--services").split()
        return [name for name in running if name not in {*ONE_SHOTS, DEMO}]

    def state(self, service: str) -> dict[str, Any]:
        """Of its container, as Docker tells it. Empty while there is none."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return dict(json.loads(self._docker("inspect", container))[0]["State"])

    def signal_main_process(self, service: str, signal: str) -> None:
        command = SIGNAL_MAIN_PROCESS.format(signal)
        with suppress(AssertionError):  # the shell that kills ends too
            self.compose("exec", "-T", service, "sh", "-c", command)

    def is_back(self, service: str, since: str) -> bool:
        state = self.state(service)
        is_well = state.get("Health", {}).get("Status", "healthy") == "healthy"
        return state["Running"] and state["StartedAt"] != since and is_well

    def remove(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def _docker(self, *arguments: str, seconds: float = 120.0) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(params=["single", "cluster"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    says = engine_says()
    if says is not None:
        pytest.skip(f"no container engine that works: {says}")
    made = Stack(tmp_path, cluster=request.param == "cluster")
    try:
        made.up()
        yield made
    finally:
        made.remove()


def history(http: httpx.Client, agent_id: str) -> list[dict[str, Any]]:
    """Its pings, oldest first. Empty while the gateway or a service behind it is away."""
    try:
        answer = http.get(f"/ping-system/agents/{agent_id}/history", params={"limit": 1000})
    except httpx.HTTPError:
        return []
    if answer.status_code != 200:
        return []
    return list(reversed(answer.json()["pings"]))


def is_pinged_since(http: httpx.Client, moment: float) -> bool:
    pings = history(http, HEALTHY)
    if not pings:
        return False
    return datetime.fromisoformat(pings[-1]["pinged_at"]).timestamp() >= moment


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_container_may_be_killed(stack: Stack) -> None:
    token = until(stack.token, "a token", BACK_SECONDS, 1)
    with httpx.Client(
        base_url=stack.url, headers={"Authorization": f"Bearer {token}"}, timeout=20
    ) as http:
        until(lambda: is_pinged_since(http, 0.0), "first pings", BACK_SECONDS, 1)
        for service in stack.services():
            kill(stack, http, service)
        freeze(stack, http, [name for name in stack.services() if name != FRONT])
        before = {agent_id: history(http, agent_id) for agent_id in AGENTS}
        # Hosts that are killed may miss a ping, and the time that they were away is unknown.
        kill(stack, http, DEMO)
        for agent_id, pings in before.items():
            numbers = [ping["ping_seq"] for ping in history(http, agent_id)]
            assert numbers == list(range(1, len(numbers) + 1)), "none lost, none twice"
            log.info("%s: %d pings, %s", agent_id, len(pings), summary(pings))
            assert not [ping for ping in pings if ping["outcome"] == "missed"], agent_id
        assert not [ping for ping in before[HEALTHY] if ping["verdict"] == "poor"]


def kill(stack: Stack, http: httpx.Client, service: str) -> None:
    """Kills a container's process; it comes back, and a host is pinged after that."""
    killed = time.time()
    since = stack.state(service)["StartedAt"]
    stack.signal_main_process(service, "KILL")
    until(lambda: stack.is_back(service, since), service, BACK_SECONDS, 1)
    log.info("%s: killed, healthy again after %.1f s", service, time.time() - killed)
    recovered = time.time()
    until(lambda: is_pinged_since(http, recovered), "pings", BACK_SECONDS, 1)


def freeze(stack: Stack, http: httpx.Client, services: list[str]) -> None:
    """Stops the processes of all of them for ever; each is ended by its watchdog and comes back."""
    frozen = time.time()
    since = {service: stack.state(service)["StartedAt"] for service in services}
    for service in services:
        stack.signal_main_process(service, "STOP")
    for service in services:
        until(lambda s=service: stack.is_back(s, since[s]), service, BACK_SECONDS, 1)
        log.info("%s: frozen, healthy again after %.1f s", service, time.time() - frozen)
    recovered = time.time()
    until(lambda: is_pinged_since(http, recovered), "pings", BACK_SECONDS, 1)


def summary(pings: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for ping in pings:
        key = f"{ping['outcome']} {ping['verdict']}"
        counts[key] = counts.get(key, 0) + 1
    return counts
