"""A real storage process, to be frozen, ended and started again."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bus.settings import Settings


class StorageProcess:
    """One storage; after it ended it can be started again on the same file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = {
            "NATS_URL": settings.nats_url,
            "GPUPING_DATA_DIR": str(settings.data_dir),
            "STORAGE_NAME": settings.STORAGE_NAME,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Started, not ready: whoever needs that asks it something."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "storage"),
            env={"PATH": os.environ["PATH"], "LOG_LEVEL": "error"} | self._settings,
            cwd=Path(__file__).parents[1],
        )

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, for two."""
        assert self._process
        self._process.send_signal(number)

    def allow(self, file_bytes: int) -> None:
        """No file may grow larger: to a program, the same as a disk that is full."""
        assert self._process
        resource.prlimit(
            self._process.pid, resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY)
        )

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals, waits for the end, and returns the exit code."""
        assert self._process
        self._process.send_signal(number)
        async with asyncio.timeout(30):
            return await self._process.wait()

    async def kill(self) -> None:
        """Whatever state it is in; dead when this returns."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def storage_process(settings: Settings) -> AsyncIterator[StorageProcess]:
    """Started; none of it survives the block."""
    storage = StorageProcess(settings)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.kill()
