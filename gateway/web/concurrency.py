"""How many long requests of one caller run at once, so that one cannot keep out all others."""

from collections import Counter
from typing import Self

from gateway.web.problems import ProblemError

MAX_LONG_REQUESTS = 4  # of a caller: statements, replays and files, which storage computes


class Slot:
    """One running request of a caller, until `release`."""

    def __init__(self, running: Counter[str], caller: str) -> None:
        self._running = running
        self._caller = caller
        self._is_released = False

    def release(self) -> None:
        """Ends the request. More than once is as good as once."""
        if self._is_released:
            return
        self._is_released = True
        self._running[self._caller] -= 1
        if self._running[self._caller] <= 0:
            del self._running[self._caller]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class LongRequests:
    """The long requests that run now, by caller."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    def begin(self, caller: str) -> Slot:
        """Counts a request in. Raises a 429 problem when the caller has MAX_LONG_REQUESTS."""
        if self._running[caller] >= MAX_LONG_REQUESTS:
            raise ProblemError(
                429,
                f"{MAX_LONG_REQUESTS} statements or files of this token or address "
                "are being made already",
                headers={"Retry-After": "5"},
            )
        self._running[caller] += 1
        return Slot(self._running, caller)
