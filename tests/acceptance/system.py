"""`gpuping` as a user runs it: real processes, output, exit codes and REST interface."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bus.identity.local import LocalIdentities
from gpuping.cli import main
from tests.ports import free_port

START_SECONDS = 120.0  # for machines under load; what must be quicker is asserted where it matters
T = TypeVar("T")


def environment(**variables: str) -> dict[str, str]:
    """These variables and the caller's, from which tests/conftest.py took our settings."""
    return os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "160"} | variables


def run(
    *arguments: str, timeout: float = START_SECONDS, **variables: str
) -> subprocess.CompletedProcess[str]:
    """One `gpuping` command to its end."""
    command = [sys.executable, "-m", "gpuping", *arguments]
    return subprocess.run(
        command,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One `gpuping` command to its end, within this process: a tenth of what a program costs.

    For commands that only ask; how a program starts and ends is looked at with `run`.
    """
    out, errors = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    before = os.environ.copy()
    os.environ.update(environment())
    try:
        with redirect_stdout(out), redirect_stderr(errors):
            code = main(list(arguments))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return subprocess.CompletedProcess(arguments, code, _text_of(out), _text_of(errors))


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def until(
    get: Callable[[], T | None], what: str, seconds: float = START_SECONDS, step: float = 0.05
) -> T:
    """Asks again and again until there is an answer; fails loudly at the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = get()
        if answer:
            return answer
        time.sleep(step)
    raise AssertionError(f"{what}: not within {seconds:g} s")


class Program:
    """A `gpuping` process that goes on, and what it has printed so far."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.started = time.monotonic()
        self.output = ""
        self.process = subprocess.Popen(
            self.command(*arguments),
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def command(self, *arguments: str) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "gpuping", *arguments]

    def printed(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Waits until the output holds the pattern."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.output)
            assert found or self.process.poll() is None, (
                f"ended with {self.process.returncode}:\n{self.output}"
            )
            return found

        return until(look, f"{pattern!r} in the output:\n{self.output}", seconds)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Signals, waits for the end, and returns the exit code."""
        self.process.send_signal(how)
        code = self.process.wait(seconds)
        self._reader.join(60)
        return code

    def kill(self) -> None:
        """SIGKILL: nothing gets a chance to tidy up."""
        self.process.kill()
        self.process.wait(60)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line


class Up(Program):
    """`gpuping up` on a free port and a data dir."""

    def __init__(self, data_dir: Path, *arguments: str, **variables: str) -> None:
        self.data_dir = data_dir
        self.begun = datetime.now(UTC)
        variables = {"NATS_PORT": str(free_port())} | variables
        super().__init__("up", "--port", "0", "--data-dir", str(data_dir), *arguments, **variables)

    def ready(self) -> "Up":
        """Waits until it says that it is ready."""
        self.printed("ready after")
        self.url = self.printed(r"dashboard +(http://\S+)/")[1]
        self.nats_url = self.printed(r"bus +(nats://\S+)")[1]
        return self

    def get(self, path: str) -> Any:
        """A REST answer that must be a success."""
        answer = httpx.get(f"{self.url}{path}", timeout=60)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def agents(self) -> dict[str, dict[str, Any]]:
        """Every agent, by id."""
        return {agent["agent_id"]: agent for agent in self.get("/ping-system/agents")["agents"]}

    def pings(self, agent_id: str) -> list[dict[str, Any]]:
        """An agent's history, oldest first; empty for one that has not registered yet."""
        path = f"/ping-system/agents/{agent_id}/history?hours=24&limit=1000"
        answer = httpx.get(f"{self.url}{path}", timeout=60)
        if answer.status_code == 404:
            return []
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return list(reversed(answer.json()["pings"]))

    def ping_by_hand(self, agent_id: str) -> dict[str, Any]:
        """A ping that counts, now."""
        answer = httpx.post(f"{self.url}/ping-system/agents/{agent_id}/ping", timeout=60)
        assert answer.is_success, answer.text
        return dict(answer.json())

    @property
    def users(self) -> Path:
        """The folder of its credentials: `NATS_CREDS` of other programs on the same bus."""
        return self.data_dir / "identity" / "users"

    def credentials_of(self, agent_id: str) -> str:
        """The credentials file of one more agent."""
        return str(LocalIdentities.open(self.data_dir).agent(agent_id))

    @property
    def operator(self) -> dict[str, Any]:
        """What `nats.connect` needs to be the operator."""
        return {
            "servers": self.nats_url,
            "user_credentials": self.bus_file()["operator_creds"],
            "inbox_prefix": "_INBOX._operator",
        }

    def bus_file(self) -> dict[str, Any]:
        """What other verbs find it by."""
        return dict(json.loads((self.data_dir / "bus.json").read_text()))


def is_settled(agent: dict) -> bool:
    """Whether the agent was pinged, and is due in more than a minute.

    A ping that is excused for a stall of ours is asked again after a second.
    """
    due_at = datetime.fromisoformat(agent["next_ping_at"]).timestamp()
    return bool(agent["total_pings"]) and due_at > time.time() + 60.0
