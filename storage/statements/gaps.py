"""The enrolled time that no window in history accounts for, found from an agent's outcomes. Pure.

The scheduler measures windows so that each begins where the one before ended. A ping that was not
answered leaves its window open, and the next one begins at the same moment. So the outcomes show
by themselves what is not accounted for:

- Time in which the agent was asked and never answered is unreported, up to the last miss.
- Where a window begins later than the one before it ended, and a ping_seq is missing directly
  before it, the time between them was reported and has been lost on our side. A missing ping_seq
  after which the window is still the same one was no answer: nothing was reported.

- Before a window of another enrolment nobody was asked until that enrolment began. A window begins
  at an answer or at the enrolment: where it does not begin at the enrolment, and no outcome came
  between the two, that answer was lost, and with it the time from the enrolment on. So it is with
  the first outcome of the time that is looked at.

Outcomes of before do not say when their enrolment began: where no ping_seq is missing, a window
that begins later is the first one of another enrolment. Outcomes of schema 2 have no measured
window; nothing follows from them.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from bus.contract.durations import Interval


class MeasuredOutcome(NamedTuple):
    """An outcome as the scheduler measured it, in microseconds: its window is `[since, pinged)`.

    `since_us` is None for an outcome of schema 2. `enrolled_us` is when the enrolment began that
    the ping is of; None where the outcome does not say it.
    """

    ping_seq: int
    pinged_us: int
    since_us: int | None
    outcome: str
    enrolled_us: int | None = None


class Gap(NamedTuple):
    """Time that no window accounts for, in microseconds, and whose it is."""

    interval: Interval
    kind: Literal["unreported", "history_lost"]


def gaps(outcomes: Iterable[MeasuredOutcome], complete_since_us: int) -> Iterator[Gap]:
    """Yields the gaps between one agent's outcomes, which are in order of time.

    They are all the outcomes that history has of the time since `complete_since_us`.
    """
    open_window = _OpenWindow(complete_since_us)
    for one in without_overtaken(outcomes):
        yield from open_window.take(one)
    yield from open_window.unanswered()


def without_overtaken(outcomes: Iterable[MeasuredOutcome]) -> Iterator[MeasuredOutcome]:
    """Yields the outcomes, without misses that come after the answer to their window.

    Where our clock was set back between the two, the answer has the earlier time. Such a miss tells
    nothing of the time after that answer.
    """
    begin_us: int | None = None
    answered = 0  # the number of the answer at which the window begins
    for one in outcomes:
        if one.since_us is not None:
            if begin_us is not None and (one.since_us, one.ping_seq) < (begin_us, answered):
                continue
            if begin_us is None or one.since_us > begin_us:
                begin_us = one.since_us
                answered = 0
            if one.outcome == "answered":
                begin_us = one.pinged_us
                answered = one.ping_seq
        yield one


class _OpenWindow:
    """The time since an agent's last window ended, while its outcomes are gone through."""

    def __init__(self, complete_since_us: int) -> None:
        self._complete_since_us = complete_since_us
        self._begin_us: int | None = None  # None before the first measured outcome
        self._missed_us: int | None = None  # the last miss in it
        self._number_before: int | None = None

    def take(self, one: MeasuredOutcome) -> Iterator[Gap]:
        """Goes on to the next outcome. Yields the gaps before its window."""
        number_before = self._number_before
        number_lost = number_before is not None and one.ping_seq > number_before + 1
        self._number_before = one.ping_seq
        if one.since_us is None:
            self._start(None)
            return
        first_asked_us = self._first_asked_us(one, is_first=number_before is None)
        if first_asked_us is not None:
            yield from self.unanswered()
            self._start(first_asked_us)
            number_lost = True
        if self._begin_us is None:
            self._start(one.since_us)
        elif one.since_us > self._begin_us:
            if number_lost:
                yield Gap(Interval(self._begin_us, one.since_us), "history_lost")
            else:
                yield from self.unanswered()
            self._start(one.since_us)
        if one.outcome == "answered":
            self._start(one.pinged_us)
        elif one.outcome == "missed":
            self._missed_us = one.pinged_us

    def unanswered(self) -> Iterator[Gap]:
        """Yields the time up to the last miss, if the last ping was not answered."""
        if self._begin_us is not None and self._missed_us is not None:
            yield Gap(Interval(self._begin_us, self._missed_us), "unreported")

    def _first_asked_us(self, one: MeasuredOutcome, *, is_first: bool) -> int | None:
        """Returns from when on the outcomes before this one are known to be missing or to be none.

        None where earlier outcomes of the enrolment are known, or nothing says when it began.
        """
        if one.enrolled_us is None or one.since_us is None:
            return None
        first_asked_us = one.enrolled_us
        if is_first:
            first_asked_us = max(one.enrolled_us, self._complete_since_us)
        elif self._begin_us is None or one.enrolled_us <= self._begin_us:
            return None
        if first_asked_us > one.since_us:
            return None
        return first_asked_us

    def _start(self, begin_us: int | None) -> None:
        self._begin_us = begin_us
        self._missed_us = None
