"""A child process that is stopped for a while, as on a machine that swaps or is moved."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

STOPPED_SECONDS = 5.0


@asynccontextmanager
async def frozen(process: Process | None) -> AsyncIterator[None]:
    """Stops all threads for the length of a block. After the signal alone some still run."""
    assert process
    process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(STOPPED_SECONDS):
            while not _stopped(process):  # noqa: ASYNC110  # the kernel tells only those who ask
                await asyncio.sleep(0.001)
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have been ended meanwhile
            process.send_signal(signal.SIGCONT)


def _stopped(process: Process) -> bool:
    """Whether the kernel reports the child as stopped; it remains reported (WNOWAIT)."""
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is not None
