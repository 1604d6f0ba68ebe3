"""Percentiles of response times and lateness: exact for few pings, within 1 % for many."""

from typing import NamedTuple

from storage.answers.sealed import SealedRange
from storage.engine.database import rows_as, sql
from storage.store.store import Reader

EXACT_PINGS = 50_000  # percentiles of so many pings are exact; of more, within 1 %
_BUCKET_BASE = 1.02  # each bucket is 2 % wide
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

Percentiles = dict[str, float | None]  # milliseconds by name; None where nothing was measured


class Latencies(NamedTuple):
    """Percentiles of the time that agents took to answer, and of how late pings were sent."""

    response_ms: Percentiles
    late_ms: Percentiles


class _ExactRow(NamedTuple):
    """The row of `latencies.sql`: microseconds in the order of `_QUANTILES`."""

    response_us: list[float] | None
    late_us: list[float] | None


class _BucketRow(NamedTuple):
    """A row of `latency_buckets.sql`."""

    measure: str
    bucket: int
    pings: int


def fleet_latencies(
    reader: Reader,
    pings: int,
    since_us: int,
    sealed: SealedRange,
) -> Latencies:
    """Returns the percentiles since a time.

    `pings`: how many outcomes there are, which chooses the method.
    """
    if pings <= EXACT_PINGS:
        text = reader.partitions.fill(sql("latencies"), since_us)
        (row,) = rows_as(_ExactRow, reader.cursor, text, {"since_us": since_us})
        return Latencies(_exact(row.response_us), _exact(row.late_us))
    text = reader.partitions.fill(sql("latency_buckets"), since_us)
    asked = {"since_us": since_us, **sealed._asdict()}
    buckets = rows_as(_BucketRow, reader.cursor, text, asked)
    return Latencies(_from_buckets(buckets, "response"), _from_buckets(buckets, "late"))


def _exact(values_us: list[float] | None) -> Percentiles:
    percentiles: Percentiles = dict.fromkeys(_QUANTILES)
    if values_us is not None:
        for name, value_us in zip(_QUANTILES, values_us, strict=True):
            percentiles[name] = _milliseconds(value_us)
    return percentiles


def _from_buckets(rows: list[_BucketRow], measure: str) -> Percentiles:
    """Returns for each quantile the middle of the first bucket that reaches it.

    The rows ascend by bucket.
    """
    buckets = [row for row in rows if row.measure == measure]
    total = sum(row.pings for row in buckets)
    percentiles: Percentiles = dict.fromkeys(_QUANTILES)
    for name, quantile in _QUANTILES.items():
        counted = 0
        for row in buckets:
            counted += row.pings
            if counted >= quantile * total:
                percentiles[name] = _milliseconds(_BUCKET_BASE**row.bucket)
                break
    return percentiles


def _milliseconds(value_us: float) -> float:
    return round(value_us / 1000, 3)
