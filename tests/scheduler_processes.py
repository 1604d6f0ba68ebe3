"""Schedulers to be started and stopped: as processes that can be killed, and within the test."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from bus.settings import Settings
from scheduler.service import running

READY_SECONDS = 60.0  # several start at once on a machine that is busy
_PASSED_ON = (
    "NATS_URL",
    "PING_BASE_INTERVAL_MINUTES",
    "PING_MAX_INTERVAL_HOURS",
    "PING_RESPONSE_TIMEOUT_SECONDS",
    "PING_MAX_CONCURRENT_AGENTS",
    "GPUPING_REPLICAS",
    "GPUPING_HISTORY_STREAM_GB",
)


class SchedulerProcess:
    """A scheduler in a process of its own, which can be killed and started again."""

    def __init__(self, settings: Settings, **environment: str) -> None:
        self._environment = {name: str(getattr(settings, name)) for name in _PASSED_ON} | {
            "LOG_LEVEL": "error",
            **environment,
        }
        self._child: asyncio.subprocess.Process | None = None
        self.kills = 0

    async def start(self) -> None:
        """Pings when this returns."""
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scheduler"),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | self._environment,
        )
        assert self._child.stdout
        async with asyncio.timeout(READY_SECONDS):
            assert await self._child.stdout.readline() == b"ready\n"

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, for one."""
        assert self._child
        self._child.send_signal(number)

    async def kill(self) -> None:
        """Kills it by SIGKILL; the process is gone when this returns."""
        if self._child is None:
            return
        self.kills += 1
        with suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        self._child = None


class InnerScheduler:
    """A scheduler within this process.

    It has a task of its own, because a context manager must be left in the task that entered it.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._stop: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._task is not None

    async def start(self) -> None:
        self._stop, started = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._live(self._stop, started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def _live(self, stop: asyncio.Event, started: asyncio.Event) -> None:
        async with running(self._config):
            started.set()
            await stop.wait()

    async def kill(self) -> None:
        """Stops it in order; only processes can be killed."""
        if self._task and self._stop:
            self._stop.set()
            await self._task
            self._task = None


@asynccontextmanager
async def scheduler_processes(
    settings: Settings, count: int
) -> AsyncIterator[list[SchedulerProcess]]:
    """That many, all ready; none of them survives the block."""
    processes = [SchedulerProcess(settings) for _ in range(count)]
    try:
        await asyncio.gather(*(process.start() for process in processes))
        yield processes
    finally:
        for process in processes:
            await process.kill()
