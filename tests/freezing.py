"""A child process that stands still for a while, as on a machine that swaps or a virtual one that is moved."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

STOPPED_SECONDS = 5.0


@asynccontextmanager
async def frozen(process: Process | None) -> AsyncIterator[None]:
    """Stopped for the length of a block, with all of its threads: the signal alone leaves them a moment to answer."""
    assert process
    process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(STOPPED_SECONDS):
            while not _stopped(process):  # noqa: ASYNC110  # the kernel tells only those who ask
                await asyncio.sleep(0.001)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _stopped(process: Process) -> bool:
    """The kernel reports a child as stopped once its last thread is; it stays reported (WNOWAIT)."""
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is not None
