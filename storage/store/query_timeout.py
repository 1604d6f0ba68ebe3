"""A question's time limit: from then on it is interrupted, again and again, until it has ended.

Once is not enough. An interruption ends the statement that runs at that moment and leaves no trace: a question that
is in Python just then would go on to its next statement, and take as long for it as it likes.
"""

import asyncio
from threading import Lock

from storage.engine.database import Connection

AGAIN_SECONDS = 0.05


class QueryTimeout:
    """Set in the event loop; `ended` is for the thread that asks, once it has nothing more to ask."""

    def __init__(self, cursor: Connection, seconds: float) -> None:
        self._cursor = cursor
        self._lock = Lock()
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._ring)

    def ended(self) -> None:
        """No interruption begins after this returns: what tidies up is not to be interrupted."""
        with self._lock:
            self._ended = True

    def cancel(self) -> None:
        """In the event loop, when all is over."""
        self._timer.cancel()

    def _ring(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._cursor.interrupt()
        self._timer = self._loop.call_later(AGAIN_SECONDS, self._ring)
