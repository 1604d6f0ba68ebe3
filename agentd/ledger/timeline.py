"""The past of one GPU, or of the host: when its condition changed, and to what.

Pure arithmetic on integer milliseconds of ledger time. A list of samples would lose the oldest
hours of a 24 h window (17,280 checks); intervals lose nothing until AGENT_MAX_HISTORY_SIZE changes
have happened. Running totals beside the change points make the sums of a window two look-ups,
however often a GPU flapped.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from bus.contract.durations import Durations
from bus.contract.messages import GpuState


class Condition(NamedTuple):
    """A state and its reasons.

    A `host_wide` reason concerns the whole host and is reported once, not per GPU.
    """

    state: GpuState
    reasons: tuple[str, ...] = ()
    host_wide: bool = False


STATES: tuple[GpuState, ...] = ("up", "degraded", "down", "unknown")
NOT_RECORDED = Condition("unknown", ("not-recorded",), host_wide=True)

_NUMBER_OF_STATE = {state: number for number, state in enumerate(STATES)}


class ConditionInterval(NamedTuple):
    """A half-open interval `[since, until)` of ledger time, and the condition that held in it."""

    since: int
    until: int
    condition: Condition


class Timeline:
    """Change points in order.

    The time before the first of them is not recorded, which counts as unknown.
    """

    __slots__ = ("_conditions", "_starts", "_totals")

    def __init__(self) -> None:
        self._starts = array("q")
        self._conditions: list[Condition] = []
        # for each state, its milliseconds from the first change point up to each change point
        self._totals = tuple(array("q") for _ in STATES)

    def __len__(self) -> int:
        return len(self._conditions)

    @property
    def current(self) -> Condition:
        """The condition from the last change on."""
        if not self._conditions:
            return NOT_RECORDED
        return self._conditions[-1]

    def set(
        self,
        at: int,
        condition: Condition,
        limit: int,
    ) -> None:
        """From `at` on, `condition` holds. Where `at` is before the last change, its time is used.

        When there are more than `limit` intervals, the oldest are dropped.
        """
        if self._starts and at <= self._starts[-1]:
            at = self._starts[-1]
            self._drop(slice(-1, None))  # it would have held for no time at all
        if condition != self.current or not self._conditions:
            self._append(at, condition)
        if len(self._conditions) > limit:
            self._drop(slice(None, -limit))

    def _append(self, at: int, condition: Condition) -> None:
        totals = self._totals_until(at)
        for state, column in zip(STATES, self._totals, strict=True):
            column.append(getattr(totals, state))
        self._starts.append(at)
        self._conditions.append(condition)

    def _drop(self, which: slice) -> None:
        del self._conditions[which]
        del self._starts[which]
        for column in self._totals:
            del column[which]

    def durations(self, since: int, until: int) -> Durations:
        """The time in each state between two points in time; what is not recorded is unknown."""
        recorded_from = until
        if self._starts:
            recorded_from = min(until, max(since, self._starts[0]))
        not_recorded = Durations(unknown=recorded_from - since)
        recorded = self._totals_until(until) - self._totals_until(recorded_from)
        return not_recorded + recorded

    def _totals_until(self, at: int) -> Durations:
        index = bisect_right(self._starts, at) - 1
        if index < 0:
            return Durations()
        totals = [column[index] for column in self._totals]
        state = self._conditions[index].state
        totals[_NUMBER_OF_STATE[state]] += at - self._starts[index]
        return Durations(*totals)

    def since(
        self,
        at: int,
        before: Condition,
        limit: int,
    ) -> "Timeline":
        """Returns the same past from `at` on. Until then `before` holds."""
        if not self._starts or self._starts[0] >= at:
            return self
        kept = Timeline()
        kept.set(self._starts[0], before, limit)
        index = bisect_right(self._starts, at) - 1
        kept.set(at, self._conditions[index], limit)
        for changed_at, condition in self.changes():
            if changed_at > at:
                kept.set(changed_at, condition, limit)
        return kept

    def changes(self) -> Iterator[tuple[int, Condition]]:
        """Every change point that is kept, oldest first."""
        return zip(self._starts, self._conditions, strict=True)

    def began(self, at: int, newest: int) -> int:
        """Returns when the interval that contains `at` began; `at` where nothing is recorded.

        Only the last `newest` intervals are considered, so that a caller that goes through all
        intervals from there has few to read. For an earlier `at` the first of them is returned.
        """
        index = bisect_right(self._starts, at) - 1
        if index < 0 and len(self) <= newest:
            return at
        oldest_allowed = len(self) - newest
        return self._starts[max(index, oldest_allowed)]

    def intervals(
        self,
        since: int,
        until: int,
    ) -> Iterator[ConditionInterval]:
        """Exactly `[since, until)`, in order and without gaps."""
        if since >= until:
            return
        starts = self._starts
        if not starts or since < starts[0]:
            first = until
            if starts:
                first = min(until, starts[0])
            yield ConditionInterval(since, first, NOT_RECORDED)
            since = first
        index = bisect_right(starts, since) - 1
        while since < until:
            end = until
            if index + 1 < len(starts):
                end = min(until, starts[index + 1])
            yield ConditionInterval(since, end, self._conditions[index])
            since = end
            index += 1


def in_state(state: GpuState, milliseconds: int) -> Durations:
    """Returns durations with `milliseconds` in one state and 0 in the others."""
    times = [0] * len(STATES)
    times[_NUMBER_OF_STATE[state]] = milliseconds
    return Durations(*times)
