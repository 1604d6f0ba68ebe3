"""The time that a statement accounts for, and where windows lie in it: pure rules, case by case."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.contract.durations import Durations, Interval
from bus.contract.messages import Enrolment
from storage.engine.rows import microseconds
from storage.statements.alignment import AGREES_US, AlignedWindow, align
from storage.statements.enrolments import AgentHistory, Asked, ended_us, enrolled_intervals
from storage.statements.windows import ReportWindow

DAY = 86_400_000_000
MONTH = Interval(
    microseconds(datetime(2026, 10, 1, tzinfo=UTC)), microseconds(datetime(2026, 11, 1, tzinfo=UTC))
)
START = datetime(2026, 10, 1, tzinfo=UTC)
LATER = MONTH.end + 100 * DAY


def on(day: float) -> datetime:
    return START + timedelta(days=day)


def at(day: float) -> int:
    return MONTH.begin + round(day * DAY)


def window(number: int, begin_us: int, end_us: int, up_ms: int = 1) -> ReportWindow:
    return ReportWindow(number, Interval(begin_us, end_us), Durations(up=up_ms), {})


def known(*days: tuple[float, float], misses: tuple[float, ...] = ()) -> AgentHistory:
    """An agent whose reports cover these days, each pinged at its end."""
    windows = [
        window(n, at(begin), at(end), up_ms=(at(end) - at(begin)) // 1000)
        for n, (begin, end) in enumerate(days, 1)
    ]
    pinged = sorted([one.interval.end for one in windows] + [at(day) for day in misses])
    asked = [Asked(pinged_us, pinged_us) for pinged_us in pinged]
    return AgentHistory(asked, windows, pinged[0] if pinged else None)


def found(
    enrolments: list[Enrolment], outcomes: AgentHistory, now_us: int = LATER
) -> list[tuple[float, float]]:
    return [
        ((one.begin - MONTH.begin) / DAY, (one.end - MONTH.begin) / DAY)
        for one in enrolled_intervals(enrolments, outcomes, MONTH, now_us)
    ]


def test_one_that_goes_on_counts_to_the_month_s_end_though_nobody_reported():
    assert found([Enrolment(on(-20))], known((0, 1))) == [(0, 31)]
    assert found([Enrolment(on(10))], known((10, 11))) == [(10, 31)]


def test_while_the_month_runs_it_counts_to_the_last_outcome():
    assert found([Enrolment(on(-20))], known((0, 1), misses=(2,)), now_us=at(5)) == [(0, 2)]
    assert found([Enrolment(on(3))], known(), now_us=at(5)) == []


def test_one_that_ended_counts_to_its_last_outcome_and_never_beyond():
    assert found([Enrolment(on(-20), on(9.5))], known((8, 9))) == [(0, 9)]
    assert found([Enrolment(on(-20), on(9.5))], known((8, 9), misses=(9.4,))) == [(0, 9.4)]
    assert found([Enrolment(on(-20), on(9.5))], known((8, 9), (9, 9.6))) == [(0, 9)]
    assert found([Enrolment(on(-20), on(-5))], known()) == []
    assert found([Enrolment(on(-20), on(40))], known((0, 31), (31, 35))) == [(0, 31)]


def test_each_enrolment_counts_and_what_lies_between_does_not():
    two = [Enrolment(on(-20), on(5)), Enrolment(on(20))]
    assert found(two, known((3, 5), (20, 31))) == [(0, 5), (20, 31)]


def test_history_from_before_a_lost_registry_counts_as_an_enrolment_that_ended():
    assert found([Enrolment(on(20))], known((1, 3), (3, 12), (20, 31))) == [(1, 12), (20, 31)]
    assert found([], known((4, 6), misses=(5,))) == [(4, 31)]
    assert found([], known((1, 6), misses=(5,))) == [
        (1, 31)
    ]  # the first outcome, a miss, lies within the first window


@pytest.mark.parametrize("off_us", [-5_000_000, -1_000, 60_000, 5_000_000])
def test_a_ping_s_way_at_the_beginning_is_no_time_that_nobody_reported(off_us):
    begins = window(1, at(10) + off_us, at(11))
    outcomes = AgentHistory([Asked(at(11), at(11))], [begins], at(11))
    assert enrolled_intervals([Enrolment(on(10))], outcomes, MONTH, LATER) == [
        Interval(at(10) + off_us, MONTH.end)
    ]


def test_no_time_counts_twice_though_enrolments_touch_overlap_or_come_twice():
    """Registered again within seconds, by schedulers whose clocks differ, told twice, unsorted."""
    second = 1 / 86_400
    soon = [Enrolment(on(1), on(2)), Enrolment(on(2 + second))]
    told = known((1, 2 - second), (2 + second, 3))
    assert found(soon, told, now_us=at(5)) == [(1, 2 - second), (2 + second, 3)]
    over = [Enrolment(on(1), on(3)), Enrolment(on(2))]
    assert found(over, known((1, 2), (2, 4))) == [(1, 2), (2, 31)]
    assert found([Enrolment(on(2)), Enrolment(on(1)), Enrolment(on(2))], known((1, 4))) == [(1, 31)]


def test_a_first_ping_labelled_before_its_enrolment_makes_no_other():
    first = known((3, 4), misses=(3 - 1 / 86_400,))
    assert len(found([Enrolment(on(3))], first)) == 1


def test_a_longer_way_is():
    late = window(1, at(10) + 60_000_000, at(11))
    outcomes = AgentHistory([Asked(at(11), at(11))], [late], at(11))
    assert enrolled_intervals([Enrolment(on(10))], outcomes, MONTH, LATER) == [
        Interval(at(10), MONTH.end)
    ]


def test_when_the_last_enrolment_ended():
    assert ended_us([], MONTH, LATER) is None
    assert ended_us([Enrolment(on(1))], MONTH, LATER) is None
    assert ended_us([Enrolment(on(1), on(3))], MONTH, LATER) == at(3)
    assert ended_us([Enrolment(on(1), on(3))], MONTH, at(2)) is None
    assert ended_us([Enrolment(on(1), on(3)), Enrolment(on(4))], MONTH, LATER) is None
    assert ended_us([Enrolment(on(1), on(3)), Enrolment(on(40))], MONTH, LATER) == at(
        3
    )  # the later one is of another month


def test_a_label_that_agrees_with_our_clock_stands():
    label = Interval(at(4), at(5) + 3_000)
    assert align(at(5), 40_000, label, DAY) == AlignedWindow(label)
    assert align(at(5), None, label, DAY) == AlignedWindow(label)
    slow = align(at(5), 9_000_000, Interval(at(4), at(5) + 13_000_000), DAY)  # answered after 9 s
    assert slow.interval.end == at(5) + 13_000_000


@pytest.mark.parametrize("off_us", [-40 * 365 * DAY, -3_600_000_000, 3_600_000_000, 3 * DAY])
def test_the_window_of_a_clock_that_is_off_lies_where_the_ping_was(off_us):
    aligned = align(at(5), 1_000, Interval(at(4) + off_us, at(5) + off_us), DAY)
    assert aligned == AlignedWindow(Interval(at(4), at(5)), shift_us=-off_us)


def test_a_clock_that_is_set_within_the_window_gives_its_length_no_other_beginning():
    aligned = align(at(5), 1_000, Interval(at(4) - 3_600_000_000, at(5)), DAY)
    assert aligned == AlignedWindow(Interval(at(4), at(5)), clock_stepped=True)


@given(st.integers(0, 999), st.integers(-3_000, 3_000))
def test_a_label_is_found_again_to_the_millisecond_however_the_ping_s_moment_falls(
    phase_us, after_ms
):
    """History keeps it as whole milliseconds after the ping, rounded down."""
    pinged_us, label_us = at(5) + phase_us, at(5) + after_ms * 1000
    kept_us = pinged_us + (label_us - pinged_us) // 1000 * 1000
    aligned = align(pinged_us, None, Interval(kept_us - DAY, kept_us), DAY)
    assert aligned.interval == Interval(label_us - DAY, label_us)


@given(
    st.lists(st.integers(-10 * DAY, 10 * DAY), min_size=2, max_size=12),
    st.lists(st.integers(1_000, DAY), min_size=12, max_size=12),
)
def test_windows_tile_however_the_host_s_clock_is_set(offsets, lengths):
    """Gaps and overlaps are smaller than the difference of a clock that is still believed."""
    true = before = at(0)
    for offset, given_length in zip(offsets, lengths, strict=False):
        length = given_length // 1000 * 1000
        true += length
        label = Interval(true - length + offset, true + offset)
        interval = align(true, 5_000, label, length).interval
        assert interval.length == length
        assert abs(interval.begin - before) <= 2 * AGREES_US
        before = interval.end
