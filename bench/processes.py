"""What a bench asks of the kernel about a process: its memory, its CPU, and when it is ready."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bus.transport.embedded_server import EmbeddedServer

_MEGABYTE = 1024 * 1024


class Memory(NamedTuple):
    """Megabytes (2**20).

    Shared pages in shares, shared pages whole, and the most there ever was.
    """

    pss: float
    rss: float
    peak: float


class Child(NamedTuple):
    """A process that is ready, and the line by which it said so."""

    process: asyncio.subprocess.Process
    said: str

    @property
    def pid(self) -> int:
        return self.process.pid


@asynccontextmanager
async def python_module(
    *arguments: str, env: dict[str, str] | None = None, ready_seconds: float = 120.0
) -> AsyncIterator[Child]:
    """`python -m ...` that has printed its first line; stopped at the end of the block.

    Raises TimeoutError when it was not ready in time, RuntimeError when it ended instead.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    assert child.stdout  # noqa: S101
    try:
        async with asyncio.timeout(ready_seconds):
            said = (await child.stdout.readline()).decode().strip()
        if not said:
            raise RuntimeError(f"{' '.join(arguments)} ended before it was ready")
        yield Child(child, said)
    finally:
        await stop(child)


async def stop(child: asyncio.subprocess.Process, patience_seconds: float = 15.0) -> None:
    """Asks it to end, and ends it when it does not."""
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(patience_seconds):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


def memory(pid: int) -> Memory:
    """Of one process, now; the peak since its start."""
    rollup = _kilobytes(f"/proc/{pid}/smaps_rollup")
    peak = _kilobytes(f"/proc/{pid}/status")["VmHWM"]
    return Memory(rollup["Pss"] / 1024, rollup["Rss"] / 1024, peak / 1024)


def cpu_seconds(pid: int) -> float:
    """User and system time that all threads of a process have used, those that ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def disk_megabytes(folder: Path) -> float:
    """What the files below a folder occupy."""
    blocks = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                blocks += (Path(path) / name).stat().st_blocks
            except FileNotFoundError:  # the server goes on writing meanwhile
                continue
    return blocks * 512 / _MEGABYTE


def pid_of(server: EmbeddedServer) -> int:
    """The nats-server child that runs at the moment."""
    assert server.process  # noqa: S101  # an entered embedded.running() has one
    return server.process.pid


def _kilobytes(path: str) -> dict[str, int]:
    """The `Name: 123 kB` lines of a file in /proc."""
    parts = (line.split() for line in Path(path).read_text().splitlines())
    return {p[0].rstrip(":"): int(p[1]) for p in parts if len(p) == 3 and p[2] == "kB"}
