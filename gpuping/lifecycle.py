"""From a coroutine to an exit code: signals, the deadline of a stop, and errors as one line each.

The first Ctrl-C or SIGTERM stops in good order, the second at once; children die with this process.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog

from bus.errors import GpupingError, RefusedError, SettingsError

log = structlog.get_logger("gpuping")

DONE, FAILED, WRONG_USAGE = 0, 1, 2
STOP_SECONDS = 8.0
SAME_SIGNAL_SECONDS = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Lifecycle:
    """What a running verb is told about its end. `stopping` is set by the first signal."""

    def __init__(self, main: asyncio.Task[None]) -> None:
        self.stopping = asyncio.Event()
        self._main = main
        self._ready = False
        self._signalled_at = 0.0

    async def until_stopped(self) -> None:
        """Waits for the first signal. Before this is called, a signal cancels the start instead."""
        self._ready = True
        await self.stopping.wait()

    def signalled(self, number: int) -> None:
        """The handler of both signals. `make` and process managers may send one to us twice in the same moment."""
        loop = asyncio.get_running_loop()
        if self.stopping.is_set():
            if loop.time() - self._signalled_at > SAME_SIGNAL_SECONDS:
                _end_now(f"stopped at once ({signal.Signals(number).name} again)", 128 + number)
            return
        self.stopping.set()
        self._signalled_at = loop.time()
        loop.call_later(
            STOP_SECONDS,
            _end_now,
            f"did not stop within {STOP_SECONDS:g} s: ended by force",
            FAILED,
        )
        if not self._ready:
            self._main.cancel()


Main = Callable[[Lifecycle], Awaitable[None]]


def run(main: Main) -> int:
    """Runs `main` to its end or to a signal, and returns the exit code. Never a traceback for an expected error."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_signals(main))
    except asyncio.CancelledError:
        return DONE  # stopped before it was ready
    except BaseException as error:  # noqa: BLE001  # the last handler there is: says it and sets the exit code
        return report(error)
    return DONE


async def serve(
    name: str, service: AbstractAsyncContextManager[object], lifecycle: Lifecycle
) -> None:
    """One service until it is told to stop. A crash inside it ends the block with its error."""
    async with service:
        log.info("ready", service=name)
        await lifecycle.until_stopped()
        log.info("stopping", service=name)


def report(error: BaseException) -> int:
    """Says what went wrong, in one line where it was foreseen, and returns the exit code."""
    causes = list(_leaves(error))
    foreseen = [cause for cause in causes if isinstance(cause, GpupingError)]
    if len(foreseen) < len(causes):
        traceback.print_exception(error)
        return FAILED
    for cause in foreseen[:1]:
        complain(str(cause))
    return WRONG_USAGE if _is_wrong_usage(foreseen[0]) else FAILED


def _is_wrong_usage(error: GpupingError) -> bool:
    """Told here, or by a service that was asked something that cannot be meant."""
    return isinstance(error, SettingsError) or (
        isinstance(error, RefusedError) and error.code == 400
    )


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"gpuping: {' '.join(text.split())}", file=sys.stderr)


def process_started() -> float:
    """When this process was started, in seconds of CLOCK_BOOTTIME: imports count for who waits in front of it."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


async def _with_signals(main: Main) -> None:
    task = asyncio.current_task()
    assert task  # noqa: S101  # a coroutine runs in a task
    lifecycle = Lifecycle(task)
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, lifecycle.signalled, number)
    await main(lifecycle)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups: services end with the group of their TaskGroup."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where it is installed: the scheduler's pings cost half as much on it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _end_now(why: str, code: int) -> None:
    complain(why)
    os._exit(code)
