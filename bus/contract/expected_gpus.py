"""When each GPU is expected of a host, by what operators changed. Pure.

The scheduler admits a report by it, and a statement accounts by it what no report covers.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from bus.contract.durations import UNBOUNDED, Interval
from bus.contract.messages import EARLIEST, GpuChange

FOR_EVER = Interval(-UNBOUNDED, UNBOUNDED)
ALWAYS = (FOR_EVER,)  # when a GPU was expected that was expected all the time
_MILLISECOND = timedelta(milliseconds=1)


def expected_spans(changes: Iterable[GpuChange]) -> dict[str, tuple[Interval, ...]]:
    """Returns when each GPU is expected that was ever changed, in milliseconds since 1970.

    `changes` are those of a registry entry, oldest first. The intervals of a GPU are disjoint and
    in order: it may be forgotten and expected again. One whose first change is to be forgotten was
    expected until then.
    """
    spans: dict[str, tuple[Interval, ...]] = {}
    for change in changes:
        since = _milliseconds(change.since)
        before = spans.get(change.uuid)
        if change.expected:
            after = _expected_from(before or (), since)
        elif before is None:
            after = _expected_until(ALWAYS, since)
        else:
            after = _expected_until(before, since)
        spans[change.uuid] = after
    return spans


def _expected_from(before: tuple[Interval, ...], since: int) -> tuple[Interval, ...]:
    if not before:
        return (Interval(since, FOR_EVER.end),)
    *earlier, last = before
    if last.end >= since:
        # It was forgotten by mistake.
        return (*earlier, Interval(last.begin, FOR_EVER.end))
    return (*before, Interval(since, FOR_EVER.end))


def _expected_until(before: tuple[Interval, ...], since: int) -> tuple[Interval, ...]:
    if not before:
        return ()
    *earlier, last = before
    if last.begin >= since:
        return tuple(earlier)  # it was expected by mistake
    end = min(last.end, since)
    return (*earlier, Interval(last.begin, end))


def _milliseconds(timestamp: datetime) -> int:
    return (timestamp - EARLIEST) // _MILLISECOND
