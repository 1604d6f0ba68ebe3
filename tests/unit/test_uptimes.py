"""The uptime that lists show is what storage says of the same time, and nothing besides."""

from datetime import UTC, datetime, timedelta

import pytest

from bus.client.recent_uptime import with_uptime
from bus.contract.messages import Status
from bus.contract.questions import Agent, UptimesReply

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def agent(status: Status, silent_hours: float) -> Agent:
    return Agent(
        agent_id="a",
        agent_url=None,
        capabilities=(),
        metadata={},
        status=status,
        registered_at=NOW,
        uptime_percent=None,
        uptime_24h_percent=None,
        consecutive_poor_uptime=0,
        good_streak=0,
        current_interval_minutes=15.0,
        next_ping_at=NOW,
        last_ping_at=NOW,
        last_answered_at=NOW - timedelta(hours=silent_hours),
        total_pings=9,
        missed_pings=0,
        last_response_ms=None,
        connected=None,
    )


def known(percent: float, hours: float) -> UptimesReply:
    return UptimesReply(uptimes={"a": percent}, judged_seconds={"a": hours * 3600})


@pytest.mark.parametrize(
    ("status", "silent", "reply", "expected"),
    [
        ("healthy", 0.0, known(100.0, 24), 100.0),
        ("healthy", 0.2, known(75.0, 4), 75.0),  # the time since the last answer is not due yet
        ("poor", 0.2, UptimesReply(uptimes={"a": 88.3529411764706}), 88.3529411764706),  # as it is
        # A host that is missing: storage has counted the silence already.
        ("missing", 12.0, known(50.0, 24), 50.0),
        ("missing", 100.0, known(0.0, 24), 0.0),
        ("pending", 0.0, UptimesReply(uptimes={}), None),
    ],
)
def test_the_uptime_is_what_storage_says(status, silent, reply, expected):
    shown = with_uptime(agent(status, silent), reply)
    assert shown.uptime_24h_percent == expected
    assert shown.uptime_24h_seconds == reply.judged_seconds.get("a", 0.0)
