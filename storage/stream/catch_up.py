"""How much of what stood in the stream when reading began has been taken in.

Counted in deliveries and not in sequence numbers: what was deleted by hand, or has expired, is never delivered.
"""

import asyncio

from bus.errors import UnavailableError


class CatchUp:
    """`complete` once all of it is in the file; what comes later is taken in within a moment."""

    def __init__(self) -> None:
        self.read = 0
        self.there: int | None = None  # None: not known yet
        self.complete = False
        self.changed = asyncio.Event()  # to be cleared by the one who waits for it

    def unknown(self) -> None:
        """The file was opened anew, or cannot be written: what it lacks is found out when reading begins again."""
        self._set(0, None, complete=False)

    def begins(self, there: int) -> None:
        """Reading begins, with so many messages to come."""
        self._set(0, there, complete=there == 0)

    def reached(self, delivery: int, to_come: int) -> None:
        """So many have been delivered and written; `to_come` stood behind the last one when it was sent."""
        if self.there is not None:
            complete = self.complete or to_come == 0 or delivery >= self.there
            self._set(min(delivery, self.there), self.there, complete=complete)

    def check(self) -> None:
        """Raises UnavailableError while an answer may lack outcomes that the stream has: none to be paid on."""
        if not self.complete:
            so_far = (
                "the stream has not been read yet"
                if self.there is None
                else f"{self.read} of {self.there} outcomes"
            )
            raise UnavailableError(f"history is still being taken in: {so_far}")

    def _set(self, read: int, there: int | None, *, complete: bool) -> None:
        self.read, self.there, self.complete = read, there, complete
        self.changed.set()
