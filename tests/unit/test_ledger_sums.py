"""The ledger's arithmetic against the plainest way to do it: millisecond by millisecond."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agentd.ledger import windows
from agentd.ledger.ledger import Moment
from agentd.ledger.reports import label
from agentd.ledger.timeline import NOT_RECORDED, STATES, Kind, Timeline
from bus.contract.messages import Span

kinds = st.builds(Kind, st.sampled_from(STATES), st.sampled_from([(), ("a",), ("b",)]))
changes = st.lists(st.tuples(st.integers(0, 20), kinds), max_size=30)
limits = st.integers(1, 12)


def timeline_of(steps, limit) -> Timeline:
    timeline, at = Timeline(), 0
    for step, kind in steps:
        at += step
        timeline.set(at, kind, limit)
    return timeline


def truth(steps) -> dict[int, Kind]:
    """What holds in each millisecond."""
    held, at = {}, 0
    for step, kind in steps:
        at += step
        for millisecond in range(at, 1_000):
            held[millisecond] = kind
    return held


@given(changes, st.integers(-20, 700), st.integers(0, 300))
def test_pieces_and_sums_are_what_held_in_each_millisecond(steps, since, length):
    timeline, held = timeline_of(steps, 10_000), truth(steps)
    window = range(since, since + length)
    pieces = list(timeline.pieces(since, since + length))
    told = [piece.kind for piece in pieces for _ in range(piece.since, piece.until)]
    assert told == [held.get(millisecond, NOT_RECORDED) for millisecond in window]
    counted = [sum(kind.state == state for kind in told) for state in STATES]
    assert list(timeline.sums(since, since + length)) == counted


@given(changes, limits, st.integers(-20, 700), st.integers(0, 300))
def test_a_full_timeline_forgets_the_oldest_and_says_unknown(steps, limit, since, length):
    full, whole = timeline_of(steps, limit), timeline_of(steps, 10_000)
    assert len(full) <= limit
    kept = next(full.changes(), (since + length,))[0]
    for piece in full.pieces(since, since + length):
        if piece.since < kept:
            assert piece.kind == NOT_RECORDED
        else:
            assert piece in list(whole.pieces(piece.since, piece.until))
    assert sum(full.sums(since, since + length)) == length


spans = st.lists(st.tuples(st.integers(-50, 150), st.integers(-50, 150)), max_size=8)


@given(spans, st.integers(0, 100), st.integers(0, 100))
def test_excused_and_judged_time_are_the_window_and_never_overlap(booked, one, other):
    since, now = sorted((one, other))
    moment = Moment(0, 1_800_000_000_000)
    day = label(moment.wall) - timedelta(milliseconds=now)
    wall = [
        Span(since=day + timedelta(milliseconds=a), until=day + timedelta(milliseconds=b))
        for a, b in booked
    ]
    excused = windows.excused_stretches(wall, since, now, moment)
    judged = windows.judged_stretches(since, now, excused)
    covered = sorted(
        millisecond for begin, end in [*excused, *judged] for millisecond in range(begin, end)
    )
    assert covered == list(range(since, now))
    wanted = {millisecond for a, b in booked for millisecond in range(a, b)} & set(
        range(since, now)
    )
    assert {millisecond for begin, end in excused for millisecond in range(begin, end)} == wanted
