"""The parent's end of the probe's child process: starts it, asks it, kills it, and never waits for it.

A process stuck in the driver may outlive SIGKILL. Such a one is set aside and looked at again later; nothing
here ever blocks on it. What the child's answers mean is `agentd/nvml/probe.py`'s.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGE_HOME = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path += sys.argv[2:]; from agentd.nvml.worker import main; main(int(sys.argv[1]))"
_SECRETS = (
    "NATS_",
    "GPUPING_",
    "CREDENTIALS_",
)  # the child speaks to the driver; it has no business with them
_LINE_LIMIT = 1 << 20
_REAP_SECONDS = 0.5


class ChildDiedError(Exception):
    """The child is gone, and said no more."""


class Child:
    """One child process, alive or not."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        pipe: asyncio.BaseTransport,
    ) -> None:
        self._process = process
        self._reader = reader
        self._pipe = pipe

    @classmethod
    async def start(cls, environ: Mapping[str, str]) -> "Child":
        """Starts it; it says nothing until it is asked."""
        command = [sys.executable, "-I", "-S", "-c", _START, str(os.getpid()), *_import_places()]
        process = subprocess.Popen(  # noqa: S603, ASYNC220  # our own code; a fork takes a millisecond, and no thread waits for it
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={name: value for name, value in environ.items() if not name.startswith(_SECRETS)},
        )
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        return cls(process, reader, pipe)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, question: dict[str, Any]) -> None:
        """Sends a question. Ask one at a time: a second before the answer's end would be answered after it."""
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")  # type: ignore[union-attr]  # it is a pipe
        except OSError as error:
            raise ChildDiedError from error

    async def line(self, timeout: float) -> dict[str, Any]:
        """The next line of the answer. Raises TimeoutError, and ChildDiedError at its end."""
        async with asyncio.timeout(timeout):
            line = await self._reader.readline()
        try:
            return json.loads(line)  # type: ignore[no-any-return]
        except ValueError as error:  # an empty or half line
            raise ChildDiedError from error

    def kill(self) -> None:
        """SIGKILL, and out of our sight. Whether it died is `dead()`'s to tell."""
        self._pipe.close()
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        self._process.kill()

    def dead(self) -> bool:
        """Reaps it if it has ended; never waits."""
        return self._process.poll() is not None

    async def end(self) -> None:
        """Kills and reaps it, waiting half a second at most: a child stuck in the driver is left behind."""
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                await _exited(self.pid)
        self.dead()


async def _exited(pid: int) -> None:
    """Returns once the process has ended."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _import_places() -> list[str]:
    """Where a bare interpreter finds our package and pynvml (without importing it here: it costs 4 MB)."""
    spec = importlib.util.find_spec("pynvml")
    return [_PACKAGE_HOME, *([str(Path(spec.origin).parent)] if spec and spec.origin else [])]


def can_be_started() -> bool:
    """Whether pynvml is installed at all."""
    return importlib.util.find_spec("pynvml") is not None
