"""The parent's end of the probe's child process: starts, asks and kills it; never waits for it.

A process that is stuck in the driver may outlive SIGKILL. It is set aside and looked at again
later; nothing here ever blocks on it. `agentd/nvml/supervisor.py` interprets what the child
answers.
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
_START = (
    "import sys; sys.path += sys.argv[2:]; "
    "from agentd.nvml.worker import main; main(int(sys.argv[1]))"
)
# The argument by which the self-contained file (gpuping/standalone.py) is this child.
STANDALONE_WORKER = "--probe-worker"
# The child only speaks to the driver, so it gets none of these variables.
_SECRETS = ("NATS_", "GPUPING_", "CREDENTIALS_")
_LINE_LIMIT = 1 << 20
_REAP_SECONDS = 0.5


class ChildDiedError(Exception):
    """The child has ended, or its output has."""


class Child:
    """One child process, alive or dead."""

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
        """Starts a child, which prints nothing until it is asked."""
        command = _command()
        passed_on = {
            name: value for name, value in environ.items() if not name.startswith(_SECRETS)
        }
        # Our own code; a fork takes a millisecond.
        process = subprocess.Popen(  # noqa: S603, ASYNC220
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=passed_on,
        )
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        return cls(process, reader, pipe)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, question: dict[str, Any]) -> None:
        """Sends one question; ask the next one only when this one's answer has ended.

        Raises ChildDiedError.
        """
        line = json.dumps(question).encode() + b"\n"
        try:
            self._process.stdin.write(line)  # type: ignore[union-attr]  # it is a pipe
        except OSError as error:
            raise ChildDiedError from error

    async def line(self, timeout: float) -> dict[str, Any]:
        """The next line of the answer.

        Raises TimeoutError, and ChildDiedError when the output has ended.
        """
        async with asyncio.timeout(timeout):
            line = await self._reader.readline()
        try:
            return json.loads(line)  # type: ignore[no-any-return]
        except ValueError as error:  # an empty or half line
            raise ChildDiedError from error

    def kill(self) -> None:
        """Sends SIGKILL and closes the pipes. `dead` tells whether the process has ended."""
        self._pipe.close()
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        self._process.kill()

    def dead(self) -> bool:
        """Whether it has ended; reaps it then. Never waits."""
        return self._process.poll() is not None

    async def end(self) -> None:
        """Kills and reaps it within half a second.

        A child that is stuck in the driver is left behind.
        """
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                await _wait_until_ended(self.pid)
        self.dead()


def _command() -> list[str]:
    """Starts the worker without site packages, and from the self-contained file by its argument."""
    parent = str(os.getpid())
    if getattr(sys, "frozen", False):
        return [sys.executable, STANDALONE_WORKER, parent]
    return [sys.executable, "-I", "-S", "-c", _START, parent, *_import_paths()]


async def _wait_until_ended(pid: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _import_paths() -> list[str]:
    """Where a bare interpreter finds this package and pynvml.

    pynvml is not imported here, because that costs 4 MB.
    """
    paths = [_PACKAGE_HOME]
    spec = importlib.util.find_spec("pynvml")
    if spec is not None and spec.origin is not None:
        paths.append(str(Path(spec.origin).parent))
    return paths


def is_pynvml_installed() -> bool:
    """Whether a child could import pynvml at all."""
    return importlib.util.find_spec("pynvml") is not None
