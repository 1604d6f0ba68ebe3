"""An agent's uptime and response times over a period in buckets, for charts.

A month of an agent that is pinged every minute has 44,640 outcomes, which no page can draw and few
can load; it is summed here instead.
"""

from typing import NamedTuple

from bus.contract.durations import Durations, Interval, uptime_percent
from bus.contract.series import Bucket, SeriesReply, SeriesRequest
from bus.errors import RefusedError
from storage.engine.database import rows_as, sql
from storage.engine.duration_columns import durations_of
from storage.engine.rows import from_microseconds, in_milliseconds, microseconds
from storage.statements.unaccounted import Unaccounted, unaccounted_of
from storage.store.store import Reader

LONGEST_US = 87_600 * 3_600_000_000  # ten years, as everywhere


class _BucketRow(NamedTuple):
    """A row of `series.sql`. The covered time is None where no ping was answered."""

    bucket: int
    first_us: int
    last_us: int
    covered_since_us: int | None
    covered_until_us: int | None
    pings: int
    missed: int
    excused: int
    poor: int
    min_uptime_percent: float | None
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int
    response_p50_us: float | None
    response_p95_us: float | None


def series(
    reader: Reader,
    agent_id: str,
    request: SeriesRequest,
) -> SeriesReply:
    """Returns the buckets that have outcomes.

    Raises RefusedError 400 for a period that is empty or longer than ten years.
    """
    since_us = microseconds(request.since)
    until_us = microseconds(request.until)
    if not 0 < until_us - since_us <= LONGEST_US:
        raise RefusedError(400, "until must be after since, and at most ten years after it")
    grain_us = -(-(until_us - since_us) // request.points)  # rounded up
    rows: list[_BucketRow] = []
    agent = reader.names.agents.find(agent_id)
    if agent is not None:
        text = reader.partitions.fill(sql("series"), since_us, until_us)
        asked = {
            "agent": agent,
            "since_us": since_us,
            "until_us": until_us,
            "grain_us": grain_us,
        }
        rows = rows_as(_BucketRow, reader.cursor, text, asked)
    missing_time = Unaccounted()
    if agent is not None and _may_lack_time(reader, agent, rows):
        period = Interval(since_us, until_us)
        found = unaccounted_of(reader, [agent], period, period)
        missing_time = found.get(agent, missing_time)
    whole = Durations(excused=missing_time.lost_ms)
    pings = 0
    missed = 0
    for row in rows:
        whole += durations_of(row)
        pings += row.pings
        missed += row.missed
    judged_ms = whole.judged + missing_time.unreported_ms
    return SeriesReply(
        agent_id=agent_id,
        since=request.since,
        until=request.until,
        bucket_seconds=grain_us / 1e6,
        pings=pings,
        missed=missed,
        uptime_percent=uptime_percent(whole.good, judged_ms),
        seconds=whole.to_seconds(),
        unreported_seconds=missing_time.unreported_ms / 1000,
        buckets=tuple(_bucket(row) for row in rows),
        agent_known=agent is not None,
    )


def _may_lack_time(
    reader: Reader,
    agent: int,
    rows: list[_BucketRow],
) -> bool:
    """Returns whether the agent missed a ping in the period, or some outcome never came."""
    if any(row.missed for row in rows):
        return True
    return agent in set(reader.sequences.agents_with_gaps())


def _bucket(row: _BucketRow) -> Bucket:
    durations = durations_of(row)
    covered_since_us = row.covered_since_us
    covered_until_us = row.covered_until_us
    if covered_since_us is None or covered_until_us is None:
        covered_since_us = row.first_us
        covered_until_us = row.last_us
    return Bucket(
        since=from_microseconds(covered_since_us),
        until=from_microseconds(covered_until_us),
        pings=row.pings,
        missed=row.missed,
        excused=row.excused,
        poor=row.poor,
        uptime_percent=durations.uptime_percent,
        min_uptime_percent=row.min_uptime_percent,
        seconds=durations.to_seconds(),
        response_ms_p50=in_milliseconds(row.response_p50_us),
        response_ms_p95=in_milliseconds(row.response_p95_us),
    )
