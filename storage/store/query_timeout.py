"""The time limit of a question: STORAGE_QUERY_TIMEOUT_SECONDS, unless the question has its own.

Once it is over, the question is interrupted again and again until it has ended. How long the asker
waits for the answer is in `bus/client/fleet_client.py`.

One interruption is not enough. It ends the statement that runs at that moment and leaves no trace.
A question that is in Python code just then would go on to its next statement, and that one could
take as long as it likes.
"""

import asyncio
from threading import Lock

from storage.engine.database import Connection

REPEAT_SECONDS = 0.05


class QueryTimeout:
    """Interrupts a cursor after some seconds. It is made in the event loop.

    The thread that asks calls `ended` after its last statement.
    """

    def __init__(self, cursor: Connection, seconds: float) -> None:
        self._cursor = cursor
        self._lock = Lock()
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._interrupt)

    def ended(self) -> None:
        """No interruption begins after this returns, so that what tidies up is not interrupted."""
        with self._lock:
            self._ended = True

    def cancel(self) -> None:
        """Stops the timer. To be called in the event loop."""
        self._timer.cancel()

    def _interrupt(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._cursor.interrupt()
        self._timer = self._loop.call_later(REPEAT_SECONDS, self._interrupt)
