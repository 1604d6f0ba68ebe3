"""The next state carries everything that the policy decided."""

from datetime import UTC, datetime

from bus.contract.messages import AgentEntry, AnsweredPing, Standing
from scheduler.fleet.directory import Directory
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import next_state
from scheduler.policy import Missed, Policy, advance

NOW = datetime(2026, 11, 26, tzinfo=UTC)
POLICY = Policy(
    base_seconds=900,
    max_seconds=86_400,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=False,
)


def test_no_field_of_the_standing_is_left_out():
    directory = Directory(POLICY)
    directory.apply_entry("a", AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW), 1)
    tracked = directory.get("a")
    assert tracked
    attempt = PingAttempt("a", tracked, "p-1", NOW)
    attempt.start(NOW, "nonce", AnsweredPing(boot_id="boot", boottime=1.0), 10.0)
    attempt.base_state = None
    state = next_state(attempt, Missed("timeout"), NOW, POLICY)
    step = advance(Standing(), Missed("timeout"), POLICY)
    for name in Standing.__struct_fields__:
        assert getattr(state, name) == getattr(step.standing, name), name
    source = (
        "answered consecutive_poor good_streak recovering no_gpu last_judged last_outcome "
        "uptime_percent unjudged schema_version"
    )
    assert set(Standing.__struct_fields__) == set(source.split()), "next_state has to carry it, too"
