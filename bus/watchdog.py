"""Ends a process whose event loop hangs, so that its supervisor starts it again.

Such a process still holds its connections and answers nothing; no supervisor sees that by itself. A
thread looks every TICK_SECONDS whether the loop has run since. It counts its own looks and no time:
a process that was frozen (SIGSTOP, a paused container, a suspended machine) has not hung. Code that
never lets go of the interpreter's lock stops this thread too; under systemd the service's own
watchdog ends that (`bus.systemd_notify`).
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 1.0
HUNG_SECONDS = 60.0  # a fleet of a million agents is loaded, and collected as garbage, in less


@contextmanager
def watching(on_hang: Callable[[], None], hung_seconds: float = HUNG_SECONDS) -> Iterator[None]:
    """Watches the running loop for the length of a block.

    `on_hang` is called in the thread of the watchdog, once, when the loop has not run for so long.
    """
    watchdog = _Watchdog(asyncio.get_running_loop(), on_hang, hung_seconds)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


class _Watchdog:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_hang: Callable[[], None],
        hung_seconds: float,
    ) -> None:
        self._loop = loop
        self._on_hang = on_hang
        # After a freeze a timer of uvloop fires a tick late, and the thread may look a tick early.
        self._ticks_until_hung = max(3, round(hung_seconds / TICK_SECONDS))
        self._beats = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _beat(self) -> None:
        self._beats += 1
        if not self._stopped.is_set():
            self._loop.call_later(TICK_SECONDS, self._beat)

    def _watch(self) -> None:
        seen = self._beats
        ticks_without_beat = 0
        while not self._stopped.wait(TICK_SECONDS):
            if self._beats != seen:
                seen = self._beats
                ticks_without_beat = 0
                continue
            ticks_without_beat += 1
            if ticks_without_beat >= self._ticks_until_hung:
                self._on_hang()
                return
