"""The silence of an agent: its misses since its last answered ping. Pure.

Only billed misses count, which are those with the verdict poor; a ping that was excused is not
billed. A row is several of them with nothing else in between. Nobody heard from the host between
the first and the last miss of a row, so admission counts no time in between as up.
"""

from datetime import datetime

from bus.contract.messages import Silence
from scheduler.ping.timestamps import milliseconds


def of_enrolment(silence: Silence | None, enrolled_at: datetime | None) -> Silence | None:
    """Returns the silence, where it is of the enrolment that began then.

    An agent that was removed keeps its state, but nobody asked it until it was registered again.
    """
    if silence is None or enrolled_at is None or silence.last >= enrolled_at:
        return silence
    return None


def heard_late(silence: Silence | None, late_answer_at: datetime | None) -> Silence | None:
    """Returns the silence without its last miss, where the host answered that ping too late.

    The host was there at that moment, so the row of misses ends before it. What was unheard until
    then stays so: otherwise one late answer would make up for days of silence.
    """
    if silence is None or silence.misses == 0 or late_answer_at != silence.last:
        return silence
    row = 0.0
    if silence.misses > 1:
        row_end = silence.before_last or silence.last
        row = max(0.0, (row_end - silence.first).total_seconds())
    return Silence(
        first=silence.last,
        last=silence.last,
        misses=0,
        earlier_seconds=silence.earlier_seconds + row,
    )


def unheard_milliseconds(silence: Silence | None) -> int:
    """Returns the time between the first and the last miss of each row, summed over the rows."""
    if silence is None:
        return 0
    row = milliseconds(silence.last) - milliseconds(silence.first)
    return max(0, row) + round(silence.earlier_seconds * 1000)


def silence_after_miss(before: Silence | None, pinged_at: datetime) -> Silence:
    """Returns the silence with one more billed miss, of the ping that was sent at `pinged_at`."""
    if before is None:
        return Silence(
            first=pinged_at,
            last=pinged_at,
            misses=1,
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
    )


def silence_interrupted(before: Silence | None) -> Silence | None:
    """Returns the silence after an excused ping: the row ends, and the next miss begins another."""
    if before is None:
        return None
    row = max(0.0, (before.last - before.first).total_seconds())
    return Silence(
        first=before.last,
        last=before.last,
        misses=0,
        earlier_seconds=before.earlier_seconds + row,
    )
