"""When a timer that stands may go on standing."""

from datetime import UTC, datetime, timedelta

import pytest

from bus.contract.messages import AgentState, Outcome
from scheduler.write.timers import BUSY_TIMER_DELAY, TIMER_DELAY, busy_fires_at

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def state(interval_seconds: float) -> AgentState:
    last = Outcome(ping_id="p", ping_seq=1, pinged_at=NOW, outcome="answered", verdict="good")
    return AgentState(
        agent_id="a",
        ping_seq=1,
        interval_seconds=interval_seconds,
        next_ping_at=NOW + timedelta(seconds=interval_seconds),
        last=last,
    )


def test_an_agent_that_is_pinged_often_gets_a_timer_that_outlasts_the_next_outcomes():
    after = state(10.0)
    first = busy_fires_at(after, None)
    assert first == after.next_ping_at + BUSY_TIMER_DELAY
    assert busy_fires_at(after, first) == first


def test_an_agent_that_is_pinged_seldom_gets_the_usual_one():
    after = state(900.0)
    assert busy_fires_at(after, None) == after.next_ping_at + TIMER_DELAY


@pytest.mark.parametrize("short", [timedelta(0), timedelta(milliseconds=1)])
def test_a_timer_stands_for_as_long_as_it_fires_no_earlier_than_the_patience(short):
    after = state(10.0)
    stands = after.next_ping_at + TIMER_DELAY - short
    kept = busy_fires_at(after, stands) == stands
    assert kept == (short == timedelta(0))
