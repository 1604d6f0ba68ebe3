"""How much of what was in the stream when reading began is in the history file.

Messages are counted by their deliveries and not by sequence numbers, for messages that were deleted
by hand or have expired are never delivered.
"""

import asyncio

from bus.errors import UnavailableError


class CatchUp:
    """`complete` once all that was there when reading began is in the file.

    What comes later follows at once.

    `read` of `total` messages are in the file; `total` is None where it is not known. `changed` is
    set at each change, and cleared by whoever waits for it.
    """

    def __init__(self) -> None:
        self.read = 0
        self.total: int | None = None
        self.complete = False
        self.changed = asyncio.Event()

    def reset(self) -> None:
        """Nothing is known any more, for the file was opened anew or cannot be written."""
        self._set(0, None, complete=False)

    def begin(self, total: int) -> None:
        """Reading begins, with this many messages to be delivered."""
        self._set(0, total, complete=total == 0)

    def advance(self, delivery: int, pending: int) -> None:
        """Messages up to the given delivery are written.

        `pending` more were in the stream when it was sent.
        """
        if self.total is None:
            return
        complete = self.complete or pending == 0 or delivery >= self.total
        self._set(min(delivery, self.total), self.total, complete=complete)

    def check(self) -> None:
        """Raises UnavailableError while an answer may lack outcomes and so must not be paid on."""
        if self.complete:
            return
        progress = "the stream has not been read yet"
        if self.total is not None:
            progress = f"{self.read} of {self.total} outcomes"
        raise UnavailableError(f"history is still being taken in: {progress}")

    def _set(
        self,
        read: int,
        total: int | None,
        *,
        complete: bool,
    ) -> None:
        self.read = read
        self.total = total
        self.complete = complete
        self.changed.set()
