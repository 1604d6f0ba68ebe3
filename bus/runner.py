"""Runs every program: signals, the deadline of a stop, errors as one line, and the exit code.

The first SIGINT or SIGTERM stops in good order, a second one at once. What has not stopped by the
deadline is ended by force. A signal before the program is ready cancels its start.
"""

import asyncio
import errno
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

import structlog

from bus import logs, settings, standard_streams, watchdog
from bus.background import background
from bus.errors import GpupingError, RefusedError, SettingsError
from bus.private_files import hide_new_files
from bus.redaction import redact
from bus.settings import Settings
from bus.systemd_notify import Notifier

log = structlog.get_logger("bus.runner")

DONE = 0
FAILED = 1
WRONG_USAGE = 2
STOP_SECONDS = 8.0
LOOP_DESCRIPTORS = 12  # a loop of uvloop with signal handlers opens 9
SAME_SIGNAL_SECONDS = 0.5  # `make` and process managers may send one signal twice in this time
_PROGRAM = "gpuping"
ServiceT = TypeVar("ServiceT")
_ALLOW_MORE = "allow more (LimitNOFILE= in systemd, ulimit -n)"
_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Lifecycle:
    """What a program is told about its end. `stopping` is set by the first signal.

    `on_signal` is called at the first signal, before anything is stopped.
    """

    def __init__(
        self,
        task: asyncio.Task[None],
        program: str,
        stop_seconds: float,
        on_signal: Callable[[], None] | None,
        *,
        end_on_second_signal: bool,
        hung_seconds: float,
    ) -> None:
        self.stopping = asyncio.Event()
        self._task = task
        self._program = program
        self._stop_seconds = stop_seconds
        self._on_signal = on_signal
        self._end_on_second_signal = end_on_second_signal
        self._hung_seconds = hung_seconds
        self._is_ready = False
        self._signalled_at = 0.0

    async def until_stopped(self) -> None:
        """Returns at the first signal. Until this is called, a signal cancels the program.

        Meanwhile a watchdog ends the program when its event loop hangs.
        """
        self._is_ready = True
        with watchdog.watching(self._end_hung, self._hung_seconds):
            await self.stopping.wait()

    def signalled(self, number: int) -> None:
        """The handler of both signals."""
        loop = asyncio.get_running_loop()
        if self.stopping.is_set():
            is_another = loop.time() - self._signalled_at > SAME_SIGNAL_SECONDS
            if is_another and self._end_on_second_signal:
                text = f"stopped at once ({signal.Signals(number).name} again)"
                self._end_now(text, 128 + number)
            return
        self.stopping.set()
        self._signalled_at = loop.time()
        loop.call_later(self._stop_seconds, self._end_at_deadline)
        if self._on_signal is not None:
            self._on_signal()
        if not self._is_ready:
            self._task.cancel()

    def _end_at_deadline(self) -> None:
        text = f"did not stop within {self._stop_seconds:g} s: ended by force"
        self._end_now(text, FAILED)

    def _end_hung(self) -> None:
        """Called in another thread, because the event loop runs no more."""
        faulthandler.dump_traceback(all_threads=True)
        text = f"the event loop has not run for {self._hung_seconds:g} s: ended by force"
        self._end_now(text, FAILED)

    def _end_now(self, text: str, code: int) -> None:
        complain(text, self._program)
        os._exit(code)


Main = Callable[[Lifecycle], Awaitable[None]]


def ensure_descriptors(count: int) -> None:
    """Raises GpupingError where so many file descriptors cannot be opened.

    Where an event loop cannot be made for want of them, libuv ends the process with SIGABRT, and
    nobody is told why.
    """
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise GpupingError(f"cannot start: {error.strerror}; {_ALLOW_MORE}") from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def uvloop_factory() -> LoopFactory | None:
    """The loop of uvloop, if installed, else None: it halves the CPU of the scheduler's pings."""
    try:
        import uvloop  # noqa: PLC0415  # an extra that agents do without
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(
    main: Main,
    *,
    program: str = _PROGRAM,
    stop_seconds: float = STOP_SECONDS,
    on_signal: Callable[[], None] | None = None,
    end_on_second_signal: bool = True,
    loop_factory: Callable[[], LoopFactory | None] = uvloop_factory,
    hung_seconds: float = watchdog.HUNG_SECONDS,
    code_when_cancelled: int = DONE,
) -> int:
    """Runs `main` to its end or to a signal. Returns the exit code.

    0 after a signal too, 1 for a failure, 2 for a setting or an argument that cannot be used. An
    error that was foreseen (GpupingError) is one line on standard error, any other a traceback.
    `code_when_cancelled` is the exit code after a signal that came before the program was ready.
    """

    async def with_signals() -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101  # a coroutine runs in a task
        lifecycle = Lifecycle(
            task,
            program,
            stop_seconds,
            on_signal,
            end_on_second_signal=end_on_second_signal,
            hung_seconds=hung_seconds,
        )
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, lifecycle.signalled, number)
        await main(lifecycle)

    try:
        ensure_descriptors(LOOP_DESCRIPTORS)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(with_signals())
    except asyncio.CancelledError:
        return code_when_cancelled  # stopped before it was ready
    except BaseException as error:  # noqa: BLE001  # the last handler that there is
        return report(error, program)
    return DONE


def run_command(main: Main) -> int:
    """Runs a command that has an end of its own. Returns the exit code.

    It fails when a signal ends it before: whoever waits for a backup must not take half of one for
    done. A file that cannot be read or written is one line, too.
    """

    async def with_files(lifecycle: Lifecycle) -> None:
        try:
            await main(lifecycle)
        except OSError as error:
            is_of_a_file = error.filename is not None or error.errno in _OF_DISKS
            if not is_of_a_file or error.errno == errno.EMFILE:
                raise
            where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
            raise GpupingError(f"{where}{error.strerror}") from None
        except asyncio.CancelledError:
            complain("ended by a signal before it was done")
            raise

    return run(with_files, code_when_cancelled=FAILED)


async def serve(
    name: str,
    service: AbstractAsyncContextManager[ServiceT],
    lifecycle: Lifecycle,
    beside: Callable[[ServiceT], AbstractAsyncContextManager[object]] | None = None,
) -> None:
    """One service until a signal. A crash inside it ends the block with its error.

    `beside` makes what runs along with the service, such as its metrics. systemd is told when the
    service is ready and that it lives, where the unit asks for that.
    """
    standard_streams.prepare_service()
    hide_new_files()
    notifier = Notifier()
    async with AsyncExitStack() as stack:
        entered = await stack.enter_async_context(service)
        if beside is not None:
            await stack.enter_async_context(beside(entered))
        start = await stack.enter_async_context(background())
        log.info("ready", service=name)
        notifier.ready()
        start(notifier.watch(lambda: True))
        await lifecycle.until_stopped()
        notifier.stopping()
        log.info("stopping", service=name)


def run_service(
    name: str, running: Callable[[Settings], AbstractAsyncContextManager[object]]
) -> int:
    """All of `python -m <name>`: settings from the environment, one service, an exit code.

    Prints the line `ready` on standard output once the service is entered, for whoever started it.
    """
    standard_streams.prepare_service()
    try:
        loaded = settings.load()
    except SettingsError as error:
        return report(error, name)
    logs.setup(loaded)

    hide_new_files()

    async def main(lifecycle: Lifecycle) -> None:
        async with running(loaded):
            print("ready", flush=True)  # noqa: T201
            await lifecycle.until_stopped()

    return run(main, program=name)


def report(error: BaseException, program: str = _PROGRAM) -> int:
    """Writes the error to standard error, in one line if it was foreseen. Returns the exit code."""
    causes = list(_leaves(error))
    lines = [_foreseen(cause) for cause in causes]
    if None in lines:
        text = "".join(traceback.format_exception(error))
        print(redact(text), file=sys.stderr, end="")  # noqa: T201
        return FAILED
    complain(str(lines[0]), program)
    return WRONG_USAGE if _is_wrong_usage(causes[0]) else FAILED


def _foreseen(error: BaseException) -> str | None:
    """Returns what to say of an error that was foreseen, and None for any other.

    A file that this user may not use is foreseen wherever it is met: a data dir, or a folder with
    credentials, belongs to one user. So is a limit of open files that is too low: any file, socket
    or pipe may be the one that is too many.
    """
    if isinstance(error, GpupingError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return f"cannot go on: {error.strerror}; {_ALLOW_MORE}"
    if isinstance(error, PermissionError) and error.filename is not None:
        return (
            f"{error.filename} cannot be used: {error.strerror}; run this as the user to whom it "
            "belongs, or choose another --data-dir"
        )
    return None


def complain(text: str, program: str = _PROGRAM) -> None:
    """One line on standard error, after the program's name."""
    line = redact(" ".join(text.split()))
    print(f"{program}: {line}", file=sys.stderr)  # noqa: T201


def _is_wrong_usage(error: BaseException) -> bool:
    """A setting that cannot be used, or a request that a service refused as invalid."""
    if isinstance(error, RefusedError):
        return error.code == 400
    return isinstance(error, SettingsError)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside groups: services end with the group of their TaskGroup."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
