"""One GPU's (or the host's) past as run-length intervals: when it changed, and what it was from then on.

Pure arithmetic on integer milliseconds of ledger time. A list of samples would lose the oldest hours of a
24 h window (17,280 checks); intervals lose nothing until AGENT_MAX_HISTORY_SIZE changes have happened.
Running totals beside the change points make a window's sums two look-ups, however often a GPU flapped.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from bus.contract.messages import GpuState


class Kind(NamedTuple):
    """What held during an interval. `wide`: the reason concerns the whole host and is told once, not per GPU."""

    state: GpuState
    reasons: tuple[str, ...] = ()
    wide: bool = False


STATES: tuple[GpuState, ...] = ("up", "degraded", "down", "unknown")
_NUMBER = {state: number for number, state in enumerate(STATES)}
Sums = tuple[int, int, int, int]  # milliseconds in each of STATES
NOT_RECORDED = Kind("unknown", ("not-recorded",), wide=True)


class Piece(NamedTuple):
    """A half-open stretch `[since, until)` of ledger time, and what held in it."""

    since: int
    until: int
    kind: Kind


class Timeline:
    """Change points in order. What was before the first of them is not recorded."""

    __slots__ = ("_kinds", "_starts", "_totals")

    def __init__(self) -> None:
        self._starts = array("q")
        self._kinds: list[Kind] = []
        self._totals = tuple(
            array("q") for _ in STATES
        )  # of each state, from the first change to each change

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def current(self) -> Kind:
        """What holds from the last change on."""
        return self._kinds[-1] if self._kinds else NOT_RECORDED

    def set(self, at: int, kind: Kind, limit: int) -> None:
        """From `at` (never before the last change) `kind` holds. More than `limit` intervals: the oldest go."""
        if self._starts and at <= self._starts[-1]:
            at = self._starts[-1]  # nothing held for no time at all
            self._cut(slice(-1, None))
        if kind != self.current or not self._kinds:
            for totals, total in zip(self._totals, self._total_until(at), strict=True):
                totals.append(total)
            self._starts.append(at)
            self._kinds.append(kind)
        if len(self._kinds) > limit:
            self._cut(slice(None, -limit))

    def _cut(self, which: slice) -> None:
        del self._kinds[which]
        for column in (self._starts, *self._totals):
            del column[which]

    def sums(self, since: int, until: int) -> Sums:
        """Milliseconds in each of STATES between two points in time; what is not recorded is unknown."""
        first = min(until, max(since, self._starts[0])) if self._starts else until
        up, degraded, down, unknown = (
            late - early
            for early, late in zip(self._total_until(first), self._total_until(until), strict=True)
        )
        return up, degraded, down, unknown + first - since

    def _total_until(self, at: int) -> list[int]:
        index = bisect_right(self._starts, at) - 1
        if index < 0:
            return [0] * len(STATES)
        total = [totals[index] for totals in self._totals]
        total[_NUMBER[self._kinds[index].state]] += at - self._starts[index]
        return total

    def changes(self) -> Iterator[tuple[int, Kind]]:
        """Every change point that is kept, oldest first."""
        return zip(self._starts, self._kinds, strict=True)

    def began(self, at: int, newest: int) -> int:
        """Where the interval that holds at `at` began (`at` itself where nothing is recorded).

        No farther back than the `newest` last intervals: a walk from there is short.
        """
        index = bisect_right(self._starts, at) - 1
        if index < 0 and len(self) <= newest:
            return at
        return self._starts[max(index, len(self) - newest)]

    def pieces(self, since: int, until: int) -> Iterator[Piece]:
        """Exactly `[since, until)`, in order, without gaps."""
        if since >= until:
            return
        starts, kinds = self._starts, self._kinds
        if not starts or since < starts[0]:
            first = min(until, starts[0]) if starts else until
            yield Piece(since, first, NOT_RECORDED)
            since = first
        index = bisect_right(starts, since) - 1
        while since < until:
            end = min(until, starts[index + 1]) if index + 1 < len(starts) else until
            yield Piece(since, end, kinds[index])
            since = end
            index += 1
