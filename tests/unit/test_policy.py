"""The ping policy, to the letter of docs/design/ping-policy.md."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bus import settings
from bus.contract.messages import AgentState, Outcome, Standing
from scheduler import policy as rules
from scheduler.policy import Answered, Excused, Missed, PingResult, Policy, Step, advance
from scheduler.service import policy_of
from scheduler.write.timers import busy_fires_at

POLICY = Policy(
    base_seconds=900.0,
    max_seconds=86_400.0,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=True,
)
GOOD, BAD = Answered(100.0, True), Answered(98.9, True)
FRESH = Standing()
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def walk(*results: PingResult, policy: Policy = POLICY, standing: Standing = FRESH) -> list[Step]:
    steps = []
    for result in results:
        steps.append(advance(standing, result, policy))
        standing = steps[-1].standing
    return steps


def intervals(steps: list[Step]) -> list[float]:
    return [step.interval_seconds / POLICY.base_seconds for step in steps]


def test_first_answer_checks_only_that_a_gpu_exists():
    (step,) = walk(Answered(0.0, True))
    assert (step.verdict, step.reason, step.interval_seconds) == ("first", None, 900.0)
    assert (step.standing.consecutive_poor, step.standing.good_streak, step.standing.answered) == (
        0,
        0,
        1,
    )
    assert rules.status(step.standing, maintenance=False) == "healthy"


def test_first_answer_without_a_gpu_uses_up_the_grace():
    first, second = walk(Answered(None, False), Answered(0.0, False))
    assert (first.verdict, first.reason, first.standing.consecutive_poor) == ("first", "no_gpu", 0)
    assert rules.status(first.standing, maintenance=False) == "poor"
    assert (second.verdict, second.reason, second.standing.consecutive_poor) == (
        "poor",
        "no_gpu",
        1,
    )


def test_a_miss_before_the_first_answer_changes_nothing():
    steps = walk(Missed("timeout"), Missed("no_responders"), GOOD, GOOD)
    assert [s.verdict for s in steps] == ["first", "first", "first", "good"]
    assert intervals(steps) == [1, 1, 1, 1]
    assert rules.status(steps[1].standing, maintenance=False) == "pending"


def test_without_grace_the_first_ping_is_judged():
    strict = replace(POLICY, grace=False)
    assert [s.verdict for s in walk(BAD, Missed("timeout"), policy=strict)] == ["poor", "poor"]
    assert rules.first_ping_at(NOW, strict) == NOW + timedelta(seconds=900)
    assert rules.first_ping_at(NOW, POLICY) == NOW


def test_escalation_doubles_up_to_the_cap():
    assert intervals(walk(GOOD, *[BAD] * 9)) == [1, 2, 4, 8, 16, 32, 64, 96, 96, 96]


def test_each_good_ping_steps_down_and_three_in_a_row_recover_fully():
    steps = walk(GOOD, *[BAD] * 6, GOOD, GOOD, GOOD)
    assert [s.standing.consecutive_poor for s in steps[6:]] == [6, 5, 4, 0]
    assert intervals(steps)[6:] == [64, 32, 16, 1]
    assert [rules.status(s.standing, maintenance=False) for s in steps[6:]] == [
        "poor", "recovering", "recovering", "healthy",
    ]  # fmt: skip


def test_a_poor_ping_ends_the_streak():
    steps = walk(GOOD, *[BAD] * 4, GOOD, GOOD, BAD, GOOD)
    assert [s.standing.consecutive_poor for s in steps[4:]] == [4, 3, 2, 3, 2]
    assert [s.standing.good_streak for s in steps[4:]] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("uptime", "verdict"), [(99.0, "good"), (98.999999, "poor"), (0.0, "poor"), (100.0, "good")]
)
def test_the_threshold_itself_is_good(uptime: float, verdict: str):
    assert walk(GOOD, Answered(uptime, True))[1].verdict == verdict


def test_threshold_zero_and_multiplier_one_are_legal():
    lenient = replace(POLICY, threshold_percent=0.0, multiplier=1.0)
    steps = walk(GOOD, Answered(0.0, True), Missed("timeout"), policy=lenient)
    assert [s.verdict for s in steps] == ["first", "good", "poor"]
    assert {s.interval_seconds for s in steps} == {900.0}


def test_an_excuse_leaves_the_counters_alone():
    before, after = walk(GOOD, BAD, Excused("bus_outage"))[1:]
    assert after.verdict == "excused"
    assert after.standing == replace(before.standing, last_outcome="excused")


def test_an_answer_with_nothing_to_judge_is_excused():
    _, poor, nothing = walk(GOOD, BAD, Answered(None, True))
    assert (nothing.verdict, nothing.reason) == ("excused", "nothing_to_judge")
    assert nothing.standing.consecutive_poor == poor.standing.consecutive_poor == 1
    assert nothing.standing.answered == 3


def test_uptime_shown_is_of_the_last_judged_ping_and_never_stale():
    steps = walk(GOOD, BAD, Excused("bus_outage"), Missed("timeout"))
    assert [s.standing.uptime_percent for s in steps] == [None, 98.9, 98.9, None]


def test_status_is_the_first_that_holds():
    (_, missed) = walk(GOOD, Missed("timeout"))
    assert rules.status(missed.standing, maintenance=True) == "maintenance"
    assert rules.status(missed.standing, maintenance=False) == "missing"
    assert rules.status(None, maintenance=False) == "pending"


def test_next_ping_counts_from_the_ping_and_is_never_in_the_past():
    assert rules.next_ping_at(NOW, 60.0, NOW + timedelta(seconds=5)) == NOW + timedelta(seconds=60)
    assert rules.next_ping_at(NOW, 60.0, NOW + timedelta(seconds=90)) == NOW + timedelta(seconds=90)


results = st.one_of(
    st.builds(Answered, st.none() | st.floats(0.0, 100.0), st.booleans()),
    st.builds(Missed, st.sampled_from(["timeout", "no_responders", "bad_report"])),
    st.builds(Excused, st.just("bus_outage")),
)
policies = st.builds(
    Policy,
    base_seconds=st.floats(0.001, 1e6),
    max_seconds=st.just(0.0),
    multiplier=st.one_of(st.just(1.0), st.floats(1.0, 1e6)),
    threshold_percent=st.floats(0.0, 100.0),
    recovery_pings=st.integers(1, 20),
    grace=st.booleans(),
)


@given(policies, st.floats(1.0, 1e9), st.lists(results, max_size=80))
def test_any_sequence_keeps_every_bound(policy: Policy, reach: float, sequence: list[PingResult]):
    policy = replace(policy, max_seconds=policy.base_seconds * reach)
    before = Standing()
    for step in walk(*sequence, policy=policy):
        standing = step.standing
        assert policy.base_seconds <= step.interval_seconds <= policy.max_seconds
        assert step.interval_seconds == rules.interval_seconds(standing.consecutive_poor, policy)
        assert standing.consecutive_poor >= 0
        assert not (standing.good_streak >= policy.recovery_pings and standing.consecutive_poor)
        assert standing.consecutive_poor <= before.consecutive_poor + 1
        assert (step.verdict == "excused") <= (standing.consecutive_poor == before.consecutive_poor)
        assert (step.verdict == "first") <= policy.grace
        before = standing


@given(policies, st.integers(0, 10**12))
def test_no_row_of_poor_pings_overflows(policy: Policy, poor: int):
    policy = replace(policy, max_seconds=policy.base_seconds * 1000)
    assert policy.base_seconds <= rules.interval_seconds(poor, policy) <= policy.max_seconds


@given(st.integers(0, 60))
def test_the_formula_of_the_guide(poor: int):
    assert rules.interval_seconds(poor, POLICY) == pytest.approx(min(900.0 * 2.0**poor, 86_400.0))


@given(st.lists(results, max_size=60))
def test_recovery_takes_the_configured_number_of_good_pings_however_deep(
    sequence: list[PingResult],
):
    standing = Standing()
    for step in walk(GOOD, *sequence):
        standing = step.standing
    healed = walk(GOOD, GOOD, GOOD, standing=standing)[-1]
    assert (healed.standing.consecutive_poor, healed.interval_seconds) == (0, 900.0)
    assert rules.status(healed.standing, maintenance=False) == "healthy"


def test_after_three_answers_in_a_row_with_nothing_to_judge_no_old_uptime_is_shown():
    """A host whose windows are always empty is not "100 %, healthy" for ever."""
    nothing = Answered(None, True)
    first, good, *empty = walk(GOOD, GOOD, nothing, nothing, nothing, nothing)
    assert (first.standing.uptime_percent, good.standing.uptime_percent) == (None, 100.0)
    assert [step.standing.uptime_percent for step in empty] == [100.0, 100.0, None, None]
    shown = [rules.status(step.standing, maintenance=False) for step in empty]
    assert shown == ["healthy", "healthy", "pending", "pending"]
    (judged,) = walk(GOOD, standing=empty[-1].standing)
    assert judged.standing.uptime_percent == 100.0
    assert rules.status(judged.standing, maintenance=False) == "healthy"


def test_a_huge_longest_interval_overflows_nowhere():
    chosen = settings.load({"PING_MAX_INTERVAL_HOURS": "1e9", "PING_ESCALATION_MULTIPLIER": "1e6"})
    policy = policy_of(chosen)
    century = 100 * 365.25 * 86_400
    *_, poor = walk(Missed("timeout"), Missed("timeout"), policy=replace(policy, grace=False))
    assert poor.interval_seconds == century
    due_at = rules.next_ping_at(NOW, poor.interval_seconds, NOW)
    assert due_at == NOW + timedelta(seconds=century)
    assert rules.latest_due_time(NOW, 1e300, policy) == due_at
    assert busy_fires_at(state_due_at(due_at), None) > due_at


def state_due_at(due_at: datetime) -> AgentState:
    outcome = Outcome(ping_id="p", ping_seq=1, pinged_at=NOW, outcome="missed", verdict="poor")
    return AgentState(
        agent_id="a", ping_seq=1, interval_seconds=1.0, next_ping_at=due_at, last=outcome
    )
