"""The silence of an agent: its misses since its last answered ping. Pure.

Only billed misses count, which are those with the verdict poor; a ping that was excused is not
billed. A row is several of them with nothing else in between. Nobody heard from the host between
the first and the last miss of a row, so admission counts no time in between as up. Maintenance
between two misses is excused and not judged, so it is no part of a row.
"""

from collections.abc import Sequence
from datetime import datetime

from bus.contract.durations import Interval
from bus.contract.messages import AgentState, Silence
from scheduler.ping.accounting.admission import overlap
from scheduler.ping.accounting.timestamps import milliseconds


def of_enrolment(silence: Silence | None, enrolled_at: datetime | None) -> Silence | None:
    """Returns the silence, where it is of the enrolment that began then.

    An agent that was removed keeps its state, but nobody asked it until it was registered again.
    """
    if silence is None or enrolled_at is None or silence.last >= enrolled_at:
        return silence
    return None


def is_last_miss(state: AgentState | None, ping_id: str | None) -> bool:
    """Whether the last outcome is a billed miss of this ping, to which an answer may still come."""
    if state is None or state.silence is None or state.silence.nonce is None:
        return False
    last = state.last
    if last.outcome != "missed" or last.ping_id != ping_id:
        return False
    return state.silence.misses > 0 and state.silence.last == last.pinged_at


def heard_late(
    silence: Silence | None,
    *,
    answered_late: bool,
    booked: Sequence[Interval] = (),
) -> Silence | None:
    """Returns the silence without its last miss, where the host answered that ping too late.

    `booked` is maintenance, in milliseconds since 1970: disjoint, in order.

    The host was there at that moment, so the row of misses ends before it. What was unheard until
    then stays so: otherwise one late answer would make up for days of silence.
    """
    if silence is None or silence.misses == 0 or not answered_late:
        return silence
    row = 0
    if silence.misses > 1:
        row = _row_milliseconds(silence.first, silence.before_last or silence.last, booked)
    return Silence(
        first=silence.last,
        last=silence.last,
        misses=0,
        earlier_seconds=silence.earlier_seconds + row / 1000,
    )


def unheard_milliseconds(silence: Silence | None, booked: Sequence[Interval] = ()) -> int:
    """Returns the time between the first and the last miss of each row, summed over the rows."""
    if silence is None:
        return 0
    row = _row_milliseconds(silence.first, silence.last, booked)
    return row + round(silence.earlier_seconds * 1000)


def last_row(silence: Silence | None) -> Interval:
    """Returns the row of misses that goes on, in milliseconds since 1970; empty without one."""
    if silence is None:
        return Interval(0, 0)
    begin = milliseconds(silence.first)
    return Interval(begin, max(begin, milliseconds(silence.last)))


def silence_after_miss(
    before: Silence | None,
    pinged_at: datetime,
    nonce: str | None = None,
) -> Silence:
    """Returns the silence with one more billed miss, of the ping that was sent at `pinged_at`.

    `nonce` is that ping's, where an answer may still come.
    """
    if before is None:
        return Silence(
            first=pinged_at,
            last=pinged_at,
            misses=1,
            nonce=nonce,
        )
    first = before.first
    before_last: datetime | None = before.last
    if before.misses == 0:
        first = pinged_at
        before_last = None
    return Silence(
        first=first,
        last=pinged_at,
        misses=before.misses + 1,
        earlier_seconds=before.earlier_seconds,
        before_last=before_last,
        nonce=nonce,
    )


def silence_interrupted(
    before: Silence | None,
    booked: Sequence[Interval] = (),
) -> Silence | None:
    """Returns the silence after an excused ping: the row ends, and the next miss begins another."""
    if before is None:
        return None
    row = _row_milliseconds(before.first, before.last, booked)
    return Silence(
        first=before.last,
        last=before.last,
        misses=0,
        earlier_seconds=before.earlier_seconds + row / 1000,
    )


def _row_milliseconds(first: datetime, last: datetime, booked: Sequence[Interval]) -> int:
    """Returns how long nobody heard from the host between two misses, maintenance left out."""
    row = Interval(milliseconds(first), milliseconds(last))
    if row.end <= row.begin:
        return 0  # the calendar ran backwards
    return row.length - overlap(booked, row)
