"""The enrolled time that no window in history accounts for, found from an agent's outcomes. Pure.

The scheduler measures windows so that each begins where the one before ended. A ping that was not
answered leaves its window open, and the next one begins at the same moment. So the outcomes show
by themselves what is not accounted for:

- Time in which the agent was asked and never answered is unreported, up to the last miss.
- Where a window begins later than the one before it ended, and a ping_seq is missing directly
  before it, the time between them was reported and has been lost on our side. A missing ping_seq
  after which the window is still the same one was no answer: nothing was reported.

A window that begins later though no ping_seq is missing is the first one of another enrolment.
Outcomes of schema 2 have no measured window; nothing follows from them.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from bus.contract.durations import Interval


class MeasuredOutcome(NamedTuple):
    """An outcome as the scheduler measured it, in microseconds: its window is `[since, pinged)`.

    `since_us` is None for an outcome of schema 2.
    """

    ping_seq: int
    pinged_us: int
    since_us: int | None
    outcome: str


class Gap(NamedTuple):
    """Time that no window accounts for, in microseconds, and whose it is."""

    interval: Interval
    kind: Literal["unreported", "history_lost"]


def gaps(outcomes: Iterable[MeasuredOutcome]) -> Iterator[Gap]:
    """Yields the gaps between one agent's outcomes, which are in order of time."""
    open_window = _OpenWindow()
    for one in outcomes:
        gap = open_window.take(one)
        if gap is not None:
            yield gap
    rest = open_window.unanswered()
    if rest is not None:
        yield rest


class _OpenWindow:
    """The time since an agent's last window ended, while its outcomes are gone through."""

    def __init__(self) -> None:
        self._begin_us: int | None = None  # None before the first measured outcome
        self._missed_us: int | None = None  # the last miss in it
        self._number_before: int | None = None

    def take(self, one: MeasuredOutcome) -> Gap | None:
        """Goes on to the next outcome. Returns the gap before its window, where there is one."""
        number_before = self._number_before
        number_lost = number_before is not None and one.ping_seq > number_before + 1
        self._number_before = one.ping_seq
        if one.since_us is None:
            self._start(None)
            return None
        gap = None
        if self._begin_us is None or one.since_us > self._begin_us:
            gap = self._before(one.since_us, number_lost=number_lost)
            self._start(one.since_us)
        if one.outcome == "answered":
            self._start(one.pinged_us)
        elif one.outcome == "missed":
            self._missed_us = one.pinged_us
        return gap

    def unanswered(self) -> Gap | None:
        """Returns the time up to the last miss; None where the last ping was answered."""
        if self._begin_us is None or self._missed_us is None:
            return None
        return Gap(Interval(self._begin_us, self._missed_us), "unreported")

    def _before(self, since_us: int, *, number_lost: bool) -> Gap | None:
        if self._begin_us is not None and number_lost:
            return Gap(Interval(self._begin_us, since_us), "history_lost")
        return self.unanswered()

    def _start(self, begin_us: int | None) -> None:
        self._begin_us = begin_us
        self._missed_us = None
