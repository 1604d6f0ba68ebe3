"""Where in the history stream reading begins, decided from what the file holds and what the stream shows. Pure.

What is read twice is known by the outcome itself, so a step back is harmless, and one that is too short loses
outcomes for good.
"""

from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from storage.engine.rows import from_microseconds
from storage.ingest.position import Position

DAY = timedelta(days=1)
REWIND = timedelta(hours=1)  # by which the clocks of bus and schedulers may differ, at the most

Reason = Literal[
    "ingest_from_the_beginning",
    "history_expired_before_it_was_read",
    "stream_numbered_anew",
    "goes_on",
]


class Stream(Struct, frozen=True):
    """The stream as it is now: `there` is the fingerprint of the message at the file's position, None where none is."""

    created_us: int
    first_sequence: int
    there: str | None


class Start(Struct, frozen=True):
    """What a consumer must be told, and why. `unread`: outcomes that nobody can read any more."""

    consumer: dict[str, Any]
    reason: Reason
    unread: int = 0


def beginning(held: Position | None, stream: Stream, newest_us: int, now: datetime) -> Start:
    """`newest_us` is when the newest outcome in the file was pinged; 0: none is known."""
    if held is None or held.stream_us != stream.created_us:
        return Start({"deliver_policy": "all"}, "ingest_from_the_beginning")
    if held.sequence < stream.first_sequence:
        unread = stream.first_sequence - held.sequence - 1
        return Start(
            {"deliver_policy": "all"},
            "history_expired_before_it_was_read" if unread else "goes_on",
            unread,
        )
    if stream.there == held.fingerprint:
        following = {"deliver_policy": "by_start_sequence", "opt_start_seq": held.sequence + 1}
        return Start(following, "goes_on")
    return Start(_again(newest_us, now), "stream_numbered_anew")


def _again(newest_us: int, now: datetime) -> dict[str, Any]:
    """From before the newest outcome that the file has, however long ago that was: what followed may all be unread.

    One that is known to nobody, or pinged in the future, tells nothing: then all is read. Of days that may be archived
    no more than the day need be known.
    """
    newest = from_microseconds(newest_us)
    if newest_us <= 0 or newest > now + REWIND:
        return {"deliver_policy": "all"}
    if newest < now - DAY:
        newest = newest.replace(hour=0, minute=0, second=0, microsecond=0)
    since = min(now, newest) - REWIND
    return {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
