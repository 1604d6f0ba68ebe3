"""Reads what an explanation tells of an agent's pings beside their windows."""

from typing import NamedTuple

from bus.contract.durations import Interval
from bus.contract.messages import OutcomeWord, Verdict
from storage.engine.database import rows_as, sql
from storage.store.store import Reader


class ExplainedOutcome(NamedTuple):
    """A row of `explained_outcomes.sql`."""

    pinged_us: int
    ping_seq: int
    outcome: OutcomeWord
    verdict: Verdict
    reason: str | None
    uptime_percent: float | None
    consecutive_poor: int
    interval_seconds: float


def read_explained(
    reader: Reader,
    agent: int,
    interval: Interval,
) -> list[ExplainedOutcome]:
    """Returns the outcomes whose pings were sent within the interval, in order of time."""
    text = reader.partitions.fill(sql("explained_outcomes"), interval.begin, interval.end)
    asked = {"agent": agent, "since_us": interval.begin, "until_us": interval.end}
    return rows_as(ExplainedOutcome, reader.cursor, text, asked)
