"""The time that a statement accounts for: an agent's enrolments within a month. Pure.

An enrolment that goes on counts to the last outcome, because later time is not known yet; once the
month is over, an outcome after its end accounts for the rest. (Where history has labels of before,
the rest of a month that is over counts without one.) An enrolment that ended counts to its last
outcome, because nobody asked after that. Where history has outcomes from before the first enrolment
that the registry knows, they count as one that ended.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from bus.contract.durations import Interval
from bus.contract.messages import Enrolment
from storage.engine.bounds import FIRST_US
from storage.engine.rows import microseconds
from storage.statements.alignment import AGREES_US
from storage.statements.windows import ReportWindow

# The first window of an enrolment begins this near to it: a clock's error and a ping's time.
NEAR_US = AGREES_US + 1_000_000


class Asked(NamedTuple):
    """A ping, and up to when its outcome accounts for the host's time."""

    pinged_us: int
    accounted_us: int


class AgentHistory(Struct, frozen=True):
    """What history has of an agent around a month.

    `first_us` is the first ping of all; None: there is none. `measured`: the scheduler measured
    every window.
    """

    asked: Sequence[Asked]
    windows: Sequence[ReportWindow]
    first_us: int | None
    measured: bool = False


class _Enrolled(Struct, frozen=True):
    """An enrolment in microseconds; `until_us` is None while it goes on."""

    since_us: int
    until_us: int | None


def enrolled_intervals(
    enrolments: Iterable[Enrolment],
    history: AgentHistory,
    month: Interval,
    now_us: int,
) -> list[Interval]:
    """Returns the parts of the month that count, in order; none is empty and no two overlap."""
    found = []
    for enrolled in _known_enrolments(enrolments, history):
        begin_us = enrolled.since_us
        if not history.measured:
            begin_us = _begin_us(enrolled.since_us, history.windows)
        end_us = month.end
        if enrolled.until_us is not None or now_us < month.end or history.measured:
            end_us = min(_last_reported_us(history, enrolled), now_us)
        if enrolled.until_us is not None:
            end_us = min(end_us, enrolled.until_us)
        found.append(Interval(begin_us, end_us).intersection(month))
    return list(_without_overlaps(found))


def ended_us(
    enrolments: Sequence[Enrolment],
    month: Interval,
    now_us: int,
) -> int | None:
    """Returns when the last enrolment that can touch the month ended.

    Returns None where it goes on, or where no enrolment is known. An enrolment that only history
    knows ended when the first known one began.
    """
    if not enrolments:
        return None
    ended_at: datetime | None = enrolments[0].since
    for enrolment in enrolments:
        if microseconds(enrolment.since) < month.end:
            ended_at = enrolment.until
    if ended_at is None or microseconds(ended_at) > now_us:
        return None
    return microseconds(ended_at)


def _without_overlaps(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """Yields the intervals in order, each cut to begin no earlier than the one before ended."""
    counted_us = FIRST_US
    for interval in sorted(intervals, key=lambda one: one.begin):
        begin_us = max(interval.begin, counted_us)
        counted_us = max(counted_us, interval.end)
        if begin_us < interval.end:
            yield Interval(begin_us, interval.end)


def _known_enrolments(
    enrolments: Iterable[Enrolment],
    history: AgentHistory,
) -> list[_Enrolled]:
    """Returns the enrolments, after the one that only history knows, where there is one."""
    enrolled = []
    for enrolment in enrolments:
        until_us = None
        if enrolment.until is not None:
            until_us = _whole_milliseconds(enrolment.until) + 1000
        enrolled.append(_Enrolled(_whole_milliseconds(enrolment.since), until_us))
    if history.first_us is None:
        return enrolled
    first_known_us = None
    if enrolled:
        first_known_us = enrolled[0].since_us
    if first_known_us is None or history.first_us < first_known_us - NEAR_US:
        begin_us = history.first_us
        for window in history.windows:
            begin_us = min(begin_us, window.interval.begin)
        enrolled.insert(0, _Enrolled(begin_us, first_known_us))
    return enrolled


def _whole_milliseconds(at: datetime) -> int:
    """Returns microseconds, rounded down to the milliseconds that the ledger counts."""
    return microseconds(at) // 1000 * 1000


def _begin_us(since_us: int, windows: Iterable[ReportWindow]) -> int:
    """Returns when an enrolment's first window begins, if that is near to the enrolment itself.

    The two differ by the time that a ping takes, and nothing is unreported between them.
    """
    nearest_us = since_us
    nearest_distance_us = NEAR_US + 1
    for window in windows:
        distance_us = abs(window.interval.begin - since_us)
        if window.interval.end > since_us and distance_us < nearest_distance_us:
            nearest_us = window.interval.begin
            nearest_distance_us = distance_us
    return nearest_us


def _last_reported_us(
    history: AgentHistory,
    enrolled: _Enrolled,
) -> int:
    """Returns up to when the outcomes of an enrolment account for it."""
    reported_us = enrolled.since_us
    for one in history.asked:
        before = one.pinged_us < enrolled.since_us
        after = enrolled.until_us is not None and one.pinged_us > enrolled.until_us
        if not before and not after:
            reported_us = max(reported_us, one.accounted_us)
    return reported_us
