"""Decides where in the history stream reading begins. Pure.

It compares the position that the history file has recorded with the stream as it is now. Messages
that are read twice are recognised, so starting too early is harmless. Starting too late loses
outcomes for good.
"""

from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from storage.engine.rows import from_microseconds
from storage.ingest.position import Position

DAY = timedelta(days=1)

# The most by which the clocks of bus and schedulers may differ.
REWIND = timedelta(hours=1)

Reason = Literal[
    "ingest_started_from_beginning",
    "unread_outcomes_expired",
    "stream_renumbered",
    "resumed",
]


def _everything() -> dict[str, Any]:
    return {"deliver_policy": "all"}


class StreamState(Struct, frozen=True):
    """The stream as it is now.

    `fingerprint` is that of the message at the file's position, None where there is no message.
    """

    created_us: int
    first_sequence: int
    fingerprint: str | None


class Start(Struct, frozen=True):
    """The settings that tell a consumer where to begin, and the reason.

    `unread` counts the outcomes that expired in the stream before they were read.
    """

    consumer: dict[str, Any]
    reason: Reason
    unread: int = 0


def choose_start(
    position: Position | None,
    stream: StreamState,
    newest_us: int,
    now: datetime,
) -> Start:
    """Returns where to begin.

    `newest_us` is the time of the newest outcome in the file, 0 where none is known.
    """
    if position is None or position.stream_us != stream.created_us:
        return Start(_everything(), "ingest_started_from_beginning")
    next_sequence = position.sequence + 1
    if next_sequence < stream.first_sequence:
        unread = stream.first_sequence - next_sequence
        return Start(_everything(), "unread_outcomes_expired", unread)
    if position.sequence < stream.first_sequence:
        # The message at the position has expired, and the first of the stream follows it.
        return Start(_everything(), "resumed")
    if stream.fingerprint == position.fingerprint:
        following = {"deliver_policy": "by_start_sequence", "opt_start_seq": next_sequence}
        return Start(following, "resumed")
    # Another message has the number: the stream lost its end in a crash, and numbers were given
    # again.
    return Start(_before_newest(newest_us, now), "stream_renumbered")


def _before_newest(newest_us: int, now: datetime) -> dict[str, Any]:
    """Returns settings that begin REWIND before the newest outcome in the file, however old it is.

    Every outcome after it may be unread. Everything is read where the file has no outcome, and
    where its newest one is later than `now`, which shows that some clock was wrong. For an archived
    day the file may know only the date of its newest outcome, so reading begins with that day.
    """
    newest = from_microseconds(newest_us)
    if newest_us <= 0 or newest > now + REWIND:
        return _everything()
    if newest < now - DAY:
        newest = newest.replace(
            hour=0,
            minute=0,
            second=0,
            microsecond=0,
        )
    since = min(now, newest) - REWIND
    return {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
