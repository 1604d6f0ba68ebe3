"""Cutting windows: the parts always add up, and incidents put every millisecond on its side."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from bus.contract.durations import Durations, Interval
from bus.contract.messages import Incident
from storage.engine.rows import from_microseconds, microseconds
from storage.statements.windows import STATES, ReportWindow, share_within

START = datetime(2026, 10, 31, 12, tzinfo=UTC)
START_US = microseconds(START)
HOUR = 3_600_000_000

durations = st.builds(Durations, *[st.integers(0, 50_000_000)] * 5)


def window(whole: Durations, length_us: int, incidents: tuple[Incident, ...] = ()) -> ReportWindow:
    interval = Interval(START_US, START_US + length_us)
    return ReportWindow(1, interval, whole, {"g": whole}, incidents)


@given(durations, st.integers(1, 100 * HOUR), st.lists(st.integers(0, 101 * HOUR), max_size=4))
@example(Durations(unknown=1, excused=1), 5, [2, 3])
def test_the_parts_add_up_to_the_whole(whole: Durations, length_us: int, cuts: list[int]):
    one = window(whole, length_us)
    edges = [START_US - HOUR, *sorted(START_US + cut for cut in cuts), START_US + 200 * HOUR]
    parts = [share_within(one, None, Interval(a, b)).durations for a, b in pairwise(edges)]
    assert [sum(getattr(part, name) for part in parts) for name in STATES] == [
        getattr(whole, n) for n in STATES
    ]
    assert all(getattr(part, name) >= 0 for part in parts for name in STATES)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5_000),
            st.integers(1, 5_000),
            st.sampled_from(["down", "degraded", "unknown"]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 1),
)
def test_incidents_put_each_millisecond_on_its_side(
    spells: list[tuple[int, int, str]], share: float
):
    at, incidents, sums = START, [], dict.fromkeys(STATES, 0)
    timeline = []
    for gap, length, name in spells:
        since = at + timedelta(milliseconds=gap)
        at = since + timedelta(milliseconds=length)
        incidents.append(Incident(gpu="g", state=name, reason="x", since=since, until=at))
        timeline += ["up"] * gap + [name] * length
    for name in timeline:
        sums[name] += 1
    cut = round(len(timeline) * share)
    whole = Durations(**sums)
    one = window(whole, len(timeline) * 1000, tuple(incidents))
    part = share_within(one, "g", Interval(START_US, START_US + cut * 1000))
    assert part.durations == Durations(**{name: timeline[:cut].count(name) for name in STATES})
    assert part.method == "exact"


def test_what_incidents_do_not_explain_is_shared_out_and_said():
    mixed = Durations(up=3_000, down=1_000)
    half = Interval(START_US, START_US + 2_000_000)
    part = share_within(window(mixed, 4_000_000), None, half)
    assert part.method == "prorated"
    assert part.durations == Durations(up=1_500, down=500)


def test_a_window_in_one_state_is_cut_exactly():
    second = Interval(START_US + 1_000_000, START_US + 2_000_000)
    part = share_within(window(Durations(unknown=4_000), 4_000_000), None, second)
    assert (part.durations, part.method) == (Durations(unknown=1_000), "exact")


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_are_exact(aware: datetime):
    assert from_microseconds(microseconds(aware)) == aware
