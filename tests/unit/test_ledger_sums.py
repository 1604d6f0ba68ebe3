"""The ledger's arithmetic against the plainest way to do it: millisecond by millisecond."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentd.ledger import windows
from agentd.ledger.ledger import ClockReading, Ledger
from agentd.ledger.records import FORMAT, LedgerCreated
from agentd.ledger.reports import label
from agentd.ledger.timeline import NOT_RECORDED, STATES, Condition, Timeline
from bus.contract.durations import Durations, Interval
from bus.contract.messages import ExcusedSpan, PingRequest

conditions = st.builds(Condition, st.sampled_from(STATES), st.sampled_from([(), ("a",), ("b",)]))
changes = st.lists(st.tuples(st.integers(0, 20), conditions), max_size=30)
limits = st.integers(1, 12)


def timeline_of(steps, limit) -> Timeline:
    timeline, at = Timeline(), 0
    for step, condition in steps:
        at += step
        timeline.set(at, condition, limit)
    return timeline


def truth(steps) -> dict[int, Condition]:
    """What holds in each millisecond."""
    held, at = {}, 0
    for step, condition in steps:
        at += step
        for millisecond in range(at, 1_000):
            held[millisecond] = condition
    return held


@given(changes, st.integers(-20, 700), st.integers(0, 300))
def test_intervals_and_durations_are_what_held_in_each_millisecond(steps, since, length):
    timeline, held = timeline_of(steps, 10_000), truth(steps)
    window = range(since, since + length)
    told = []
    for interval in timeline.intervals(since, since + length):
        told += [interval.condition] * (interval.until - interval.since)
    assert told == [held.get(millisecond, NOT_RECORDED) for millisecond in window]
    durations = timeline.durations(since, since + length)
    for state in STATES:
        assert getattr(durations, state) == sum(condition.state == state for condition in told)
    assert durations.window == length


@given(changes, limits, st.integers(-20, 700), st.integers(0, 300))
def test_a_full_timeline_forgets_the_oldest_and_says_unknown(steps, limit, since, length):
    full, whole = timeline_of(steps, limit), timeline_of(steps, 10_000)
    assert len(full) <= limit
    kept = next(full.changes(), (since + length,))[0]
    for interval in full.intervals(since, since + length):
        if interval.since < kept:
            assert interval.condition == NOT_RECORDED
        else:
            assert interval in list(whole.intervals(interval.since, interval.until))
    assert full.durations(since, since + length).window == length


def milliseconds_in(intervals) -> list[int]:
    return [at for interval in intervals for at in range(interval.begin, interval.end)]


spans = st.lists(st.tuples(st.integers(-50, 150), st.integers(-50, 150)), max_size=8)


@given(spans, st.integers(0, 100), st.integers(0, 100))
def test_excused_and_judged_time_are_the_window_and_never_overlap(booked, one, other):
    since, now = sorted((one, other))
    clocks = ClockReading(now, 1_800_000_000_000)
    day = label(clocks.wall) - timedelta(milliseconds=now)
    wall = [
        ExcusedSpan(since=day + timedelta(milliseconds=a), until=day + timedelta(milliseconds=b))
        for a, b in booked
    ]
    ledger = Ledger(LedgerCreated(FORMAT, "ledger", 0), interval=1.0, limit=10)
    ledger.resume("session", "boot", ClockReading(0, clocks.wall - now))
    request = PingRequest(excused=tuple(wall), since_mark=f"ledger.{since}")
    asked = windows.asked_window(ledger, request, clocks)
    excused = asked.excused
    judged = asked.judged
    covered = milliseconds_in([*excused, *judged])
    assert sorted(covered) == list(range(since, now))
    wanted = {millisecond for a, b in booked for millisecond in range(a, b)}
    assert set(milliseconds_in(excused)) == wanted & set(range(since, now))


@given(st.lists(st.tuples(changes, limits), min_size=1, max_size=3), st.integers(0, 40))
def test_the_worst_of_several_gpus_is_so_in_each_millisecond(gpus, since):
    """As where other GPUs were expected for a while."""
    ledger = Ledger(LedgerCreated(FORMAT, "ledger", 0), interval=1.0, limit=10)
    ledger.resume("session", "boot", ClockReading(0, 0))
    for number, (steps, limit) in enumerate(gpus):
        ledger.timelines[f"GPU-{number}"] = timeline_of(steps, limit)
    interval = Interval(since, since + 60)
    now = since + 60
    uuids = tuple(ledger.timelines)[1:]
    states = {uuid: list(states_in(ledger, uuid, interval, now)) for uuid in uuids}
    counted = dict.fromkeys(STATES, 0)
    for together in zip(*states.values(), strict=True):
        worst = max(together, key=("up", "degraded", "unknown", "down").index)
        counted[worst] += 1
    assert ledger.worst_durations(uuids, interval, now) == Durations(**counted)


def states_in(ledger: Ledger, uuid: str, interval: Interval, now: int):
    for at in range(interval.begin, interval.end):
        one = ledger.durations(uuid, Interval(at, at + 1), now)
        yield next(state for state in STATES if getattr(one, state))
