"""An agent's uptime and response times over a period in buckets, for charts."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from bus.contract.messages import (
    Message,
    Percent,
    SummedSeconds,
    Timestamp,
    check_timestamps,
)

MAX_POINTS = 1000
DEFAULT_POINTS = 400
Points = Annotated[int, Meta(ge=1, le=MAX_POINTS)]


class SeriesRequest(Message, kw_only=True, frozen=True):
    """Asks for the outcomes of `[since, until)` in at most `points` buckets of equal length."""

    since: Timestamp
    until: Timestamp
    points: Points = DEFAULT_POINTS

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class Bucket(Struct, kw_only=True, frozen=True):
    """The outcomes of one bucket, which may be a single one.

    `since` and `until` are the time that their reports account for; without any report they are
    the times of the first and the last ping. Between two buckets that do not meet nothing is known.
    `uptime_percent` is a ratio of summed seconds, `min_uptime_percent` the lowest of one ping.
    """

    since: datetime
    until: datetime
    pings: int
    missed: int
    excused: int
    poor: int
    uptime_percent: Percent | None
    min_uptime_percent: Percent | None
    seconds: SummedSeconds
    response_ms_p50: float | None
    response_ms_p95: float | None


class SeriesReply(Message, kw_only=True, frozen=True):
    """The buckets that have outcomes, oldest first, and the sums of all of them.

    `unreported_seconds`: what the host has not reported yet. It is in no bucket, and counts against
    the uptime of the whole period.
    """

    agent_id: str
    since: datetime
    until: datetime
    bucket_seconds: float
    pings: int
    missed: int
    uptime_percent: Percent | None
    seconds: SummedSeconds
    unreported_seconds: float = 0.0
    buckets: tuple[Bucket, ...] = ()
    agent_known: bool = True
