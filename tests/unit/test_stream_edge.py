"""Which days storage must archive before the stream drops them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.engine.partitions import DAY_US
from storage.engine.rows import microseconds
from storage.stream.edge import edge_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
TODAY = microseconds(NOW) // DAY_US
GIB = 2**30


def information(
    age_days: float, gib: float, *, max_gib: float = 8, max_days: float = 400
) -> dict[str, Any]:
    first = NOW - timedelta(days=age_days)
    return {
        "config": {
            "max_bytes": int(max_gib * GIB),
            "max_age": int(max_days * 86_400 * 10**9),
        },
        "state": {"messages": 1000, "bytes": int(gib * GIB), "first_ts": first.isoformat()},
    }


@pytest.mark.parametrize(
    ("age_days", "gib", "days_left"),
    [(10, 1, 70), (28, 8, 0), (27, 7.714, 1), (399, 1, 1), (1, 0.001, 399)],
)
def test_days_left_follow_from_the_rate_so_far(age_days, gib, days_left):
    edge = edge_of(information(age_days, gib), microseconds(NOW))
    assert edge
    assert edge.days_left == pytest.approx(days_left, abs=0.1)


def test_a_thousand_hosts_fill_the_stream_in_28_days_and_lose_no_day():
    """Before, the archive began at day 90: 62 days were in the DuckDB file only."""
    edge = edge_of(information(28, 8), microseconds(NOW))
    assert edge
    oldest = edge.oldest_us // DAY_US
    assert edge.archive_before(TODAY) == oldest + 3  # the oldest three days


def test_a_stream_with_room_asks_for_nothing():
    edge = edge_of(information(10, 1), microseconds(NOW))
    assert edge
    assert edge.archive_before(TODAY) is None


def test_today_is_never_archived():
    edge = edge_of(information(0.5, 8), microseconds(NOW))
    assert edge
    assert edge.archive_before(TODAY) == TODAY


def test_an_empty_stream_has_no_edge():
    empty = information(1, 0)
    empty["state"]["messages"] = 0
    assert edge_of(empty, microseconds(NOW)) is None
