"""A process of the system: started again whenever it ends, as a supervisor does, and attacked."""

import asyncio
import os
import resource
import signal
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

RESTART_SECONDS = 0.3
STOP_SECONDS = 20.0
MARGIN_DESCRIPTORS = 1


def build_clock(folder: Path) -> Path:
    """Compiles the library that moves a process's wall clock."""
    library = folder / "clock_step.so"
    source = Path(__file__).with_name("clock_step.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return library


class Attacked:
    """One process. `hold` keeps it from being started again."""

    def __init__(
        self,
        name: str,
        words: tuple[str, ...],
        environment: dict[str, str],
        folder: Path,
        clock_library: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.words = words
        self.cwd = cwd  # the source tree, from the next start on
        self.environment = dict(environment)  # from the next start on
        self._log = folder / f"{name}.log"
        self._clock = folder / f"{name}.clock"
        if clock_library is not None:
            self._clock.write_bytes(struct.pack("q", 0))
            self.environment["LD_PRELOAD"] = str(clock_library)
            self.environment["CLOCK_STEP_FILE"] = str(self._clock)
        self._process: asyncio.subprocess.Process | None = None
        self._may_run = asyncio.Event()
        self._may_run.set()
        self.starts = 0
        self.unexpected: list[int] = []  # exit codes that no fault asked for
        self._is_ended_by_us = False

    async def run(self) -> None:
        """Keeps it running until cancelled; the process is gone then."""
        try:
            while True:
                await self._may_run.wait()
                await self._launch()
                assert self._process
                code = await self._process.wait()
                if not self._is_ended_by_us and not self._could_not_start():
                    self.unexpected.append(code)
                self._is_ended_by_us = False
                await asyncio.sleep(RESTART_SECONDS)
        finally:
            self._send(signal.SIGKILL)

    def _could_not_start(self) -> bool:
        """Whether too few descriptors were left to start at all. It says so, and tries again."""
        said = self._log.read_bytes()[-500:].rstrip().splitlines()[-1:]
        return bool(said) and b"cannot start: Too many open files" in said[0]

    async def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.words,
                env={"PATH": os.environ["PATH"]} | self.environment,
                cwd=self.cwd or Path(__file__).parents[2],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    def hold(self) -> None:
        self._may_run.clear()

    def release(self) -> None:
        self._may_run.set()

    def kill(self) -> None:
        self._is_ended_by_us = self.pid is not None
        self._send(signal.SIGKILL)

    async def end(self) -> None:
        """In good order, by SIGTERM; by force where that takes too long, which is remembered."""
        process = self._process
        if self.pid is None or process is None:
            return
        self._is_ended_by_us = True
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            self.unexpected.append(-signal.SIGTERM)
            self._send(signal.SIGKILL)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def step_clock(self, seconds: float) -> None:
        """Moves its wall clock; 0 is the true time."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("q", int(seconds * 1e9)))

    def few_descriptors(self, *, few: bool) -> None:
        """Allows hardly one file more than are open, or as many as before."""
        pid = self.pid
        if pid is None:
            return
        with suppress(ProcessLookupError, FileNotFoundError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            limit = min(hard, 65536)
            if few:
                limit = len(list(Path(f"/proc/{pid}/fd").iterdir())) + MARGIN_DESCRIPTORS
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))

    def _send(self, number: signal.Signals) -> None:
        if self.pid is not None and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
