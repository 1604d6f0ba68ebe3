"""How soon the history stream drops its oldest outcomes, and which days must be archived before.

The stream is limited by age and bytes. What it drops is then only in the history file, and in the
archive once it is there. A history file can be made again from the stream and the archive, so every
day has to be archived before the stream drops it, whatever STORAGE_ARCHIVE_AFTER_DAYS says.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog

from bus.clock import utc_now
from bus.contract import subjects
from bus.errors import BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from storage.engine.partitions import DAY_US
from storage.engine.rows import microseconds

log = structlog.get_logger("storage")

# A ping is recorded at most so long after it was sent, by which the file knows it.
RECORDED_WITHIN_US = 2 * 3600 * 10**6
AHEAD_DAYS = 2.0  # a day is archived that long before the stream drops it
_NANOSECONDS_A_DAY = 86_400 * 10**9


class StreamEdge(NamedTuple):
    """`oldest_us` is the time of the stream's first message (microseconds since 1970).

    `days_left` is the estimated time until it is dropped, at the rate so far; None for a stream
    that drops nothing.
    """

    oldest_us: int
    days_left: float | None

    def archive_before(self, today: int) -> int | None:
        """Returns the day (since 1970) before which everything has to be archived now.

        None when nothing has to be. Today is never archived.
        """
        if self.days_left is None or self.days_left > AHEAD_DAYS:
            return None
        oldest_day = self.oldest_us // DAY_US
        return min(today, oldest_day + int(AHEAD_DAYS - self.days_left) + 1)


def edge_of(information: dict[str, Any], now_us: int) -> StreamEdge | None:
    """Returns the edge of a stream, from the server's information; None for an empty stream."""
    state = information["state"]
    config = information["config"]
    if not state["messages"]:
        return None
    oldest_us = microseconds(datetime.fromisoformat(state["first_ts"]))
    age_days = max(now_us - oldest_us, 1) / DAY_US
    left = []
    if config.get("max_age", 0) > 0:
        left.append(config["max_age"] / _NANOSECONDS_A_DAY - age_days)
    if config.get("max_bytes", -1) > 0:
        bytes_a_day = state["bytes"] / age_days
        left.append((config["max_bytes"] - state["bytes"]) / bytes_a_day)
    if not left:
        return StreamEdge(oldest_us, None)
    return StreamEdge(oldest_us, max(0.0, min(left)))


class EdgeWatch:
    """Looks at the stream; `found` is its edge, None while it is empty or was never seen.

    `days_in_file_only` counts the days that neither the stream nor the archive holds: they would be
    lost with the history file. `holds_since_us` is the time of pings (microseconds since 1970) from
    which on the stream has all; None while it was never seen.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.found: StreamEdge | None = None
        self.holds_since_us: int | None = None
        self.days_in_file_only = 0

    @property
    def begins(self) -> datetime | None:
        """The time of the oldest outcome in the stream."""
        if self.found is None:
            return None
        return datetime.fromtimestamp(self.found.oldest_us / 1e6, UTC)

    @property
    def days_left(self) -> float | None:
        """The estimated days until the stream drops it."""
        if self.found is None:
            return None
        return self.found.days_left

    async def look(self) -> None:
        """Looks once. What cannot be read stays as it was."""
        verb = f"STREAM.INFO.{subjects.HISTORY_STREAM}"
        try:
            information = await jetstream_api.call(self._client, verb)
        except BusError as error:
            log.debug("stream_edge_read_failed", detail=str(error))
            return
        now_us = microseconds(utc_now())
        self.found = edge_of(information, now_us)
        if self.found is None:  # it is empty, and whatever the file has is in the file only
            self.holds_since_us = now_us
        else:
            self.holds_since_us = self.found.oldest_us - RECORDED_WITHIN_US

    def archive_before(self, now: datetime) -> int | None:
        """Returns what `StreamEdge.archive_before` returns for the stream as it was seen last."""
        if self.found is None:
            return None
        return self.found.archive_before(microseconds(now) // DAY_US)
