"""A GPU host in a network of its own joins over TLS by one command, is revoked, and comes back.

The host is a network namespace with another address and another data dir. Where the tests may not
make one it is another data dir on the same machine.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from system import Program, Up, environment, run, until

pytestmark = pytest.mark.slow

# Of this process: what a killed run left behind, and a run beside it, have others.
NUMBER = os.getpid()
NAMESPACE = f"gpuping-test-{NUMBER}"
LINK_OUTSIDE, LINK_INSIDE = f"gpo{NUMBER}", f"gpi{NUMBER}"
SUBNET = f"10.213.{NUMBER % 250}"
FIRST_OF_FOUR = NUMBER // 250 % 64 * 4
OUTSIDE, INSIDE = f"{SUBNET}.{FIRST_OF_FOUR + 1}", f"{SUBNET}.{FIRST_OF_FOUR + 2}"
NEEDS_NAMESPACE = (
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces"),
)


class Network(NamedTuple):
    """The address of the bus as the host sees it, and what runs a program on the host."""

    bus: str
    prefix: tuple[str, ...]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(params=["same machine", pytest.param("namespace", marks=NEEDS_NAMESPACE)])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    if request.param == "same machine":
        yield Network("localhost", ())
        return
    ip("netns", "add", NAMESPACE)
    try:
        ip("link", "add", LINK_OUTSIDE, "type", "veth", "peer", LINK_INSIDE, "netns", NAMESPACE)
        ip("address", "add", f"{OUTSIDE}/30", "dev", LINK_OUTSIDE)
        ip("link", "set", LINK_OUTSIDE, "up")
        ip("-n", NAMESPACE, "address", "add", f"{INSIDE}/30", "dev", LINK_INSIDE)
        ip("-n", NAMESPACE, "link", "set", LINK_INSIDE, "up")
        ip("-n", NAMESPACE, "link", "set", "lo", "up")
        yield Network(OUTSIDE, ("ip", "netns", "exec", NAMESPACE))
    finally:
        ip("netns", "delete", NAMESPACE)


class Host(Program):
    """A program on the GPU host."""

    def __init__(self, network: Network, *arguments: str) -> None:
        self._prefix = network.prefix
        super().__init__(*arguments, AGENT_GPU_CHECK_INTERVAL_SECONDS="1", LOG_LEVEL="info")

    def command(self, *arguments: str) -> list[str]:
        return [*self._prefix, sys.executable, "-m", "gpuping", *arguments]


def token_command(up: Up) -> list[str]:
    ended = run("enroll", "new", "--id", "gpu-9", "--data-dir", str(up.data_dir))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()[1:]


def test_a_host_joins_is_revoked_within_two_seconds_and_joins_again(
    network: Network, programs: list[Program], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    made = run("creds", "init", "--tls-names", network.bus, "--data-dir", str(data))
    assert made.returncode == 0, made.stderr
    up = Up(data, "--no-agent", NATS_HOST="0.0.0.0")  # noqa: S104  # with TLS
    programs.append(up)
    up.printed("ready after")
    up.url = up.printed(r"dashboard +(http://\S+)/")[1]
    if network.prefix:
        port = up.printed(r"bus +tls://[^:]+:(\d+)")[1]
        authority = str(data / "identity" / "tls" / "ca.pem")
        url = f"tls://{network.bus}:{port}"
        assert "Authorization Violation" in said_to_a_stranger(network, ANONYMOUS, url, authority)
        assert "PONG" not in said_to_a_stranger(network, PLAIN, network.bus, port)
    command = token_command(up)
    assert command[-1].rpartition("@")[2].startswith(network.bus)
    folder = tmp_path / "host"
    host = Host(network, *command, "--scenario", "healthy", "--data-dir", str(folder))
    programs.append(host)
    first = until(lambda: up.pings("gpu-9"), "its first ping is in the history")[0]
    assert time.monotonic() - host.started < 10.0
    assert first["outcome"] == "answered"

    revoked = run("creds", "revoke", "gpu-9", "--data-dir", str(data))
    assert revoked.returncode == 0, revoked.stderr
    revoked_at = time.monotonic()
    host.printed("bus_disconnected", seconds=10)
    assert time.monotonic() - revoked_at < 2.0
    until(lambda: up.agents()["gpu-9"]["connected"] is False, "the fleet sees that it is gone")
    host.stop()

    again = Host(network, *token_command(up), "--scenario", "healthy", "--data-dir", str(folder))
    programs.append(again)
    until(lambda: up.agents()["gpu-9"]["connected"], "it is back under a new key")
    again.printed("agent_registered")  # a ping that is under way then is excused: `joined_anew`
    assert up.ping_by_hand("gpu-9")["outcome"] == "answered"


def said_to_a_stranger(network: Network, program: str, *arguments: str) -> str:
    """What a program without credentials is told, which runs on the host."""
    command = [*network.prefix, sys.executable, "-c", program, *arguments]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    return ended.stdout


ANONYMOUS = """
import asyncio, ssl, sys, nats
async def main():
    tls = ssl.create_default_context(cafile=sys.argv[2])
    async def quiet(error): pass
    try:
        await nats.connect(sys.argv[1], tls=tls, allow_reconnect=False, error_cb=quiet)
        print("let in")
    except Exception as error:
        print(error)
asyncio.run(main())
"""
PLAIN = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as peer:
    peer.recv(4096)
    peer.sendall(b'CONNECT {"verbose":false}\\r\\nPING\\r\\n')
    print(peer.recv(4096))
"""
