"""What an agent's outcomes prove of the time that no window in history accounts for."""

from bus.contract.durations import Interval
from storage.engine.bounds import FIRST_US
from storage.statements.gaps import Gap, MeasuredOutcome, gaps


def outcome(number: int, since: int, pinged: int, enrolled: int | None = 0) -> MeasuredOutcome:
    return MeasuredOutcome(number, pinged, since, "answered", enrolled)


def miss(number: int, since: int, pinged: int, enrolled: int | None = 0) -> MeasuredOutcome:
    return MeasuredOutcome(number, pinged, since, "missed", enrolled)


def found(*outcomes: MeasuredOutcome, complete_since: int = FIRST_US) -> list[tuple[int, int, str]]:
    return [_told(gap) for gap in gaps(outcomes, complete_since)]


def _told(gap: Gap) -> tuple[int, int, str]:
    return gap.interval.begin, gap.interval.end, gap.kind


def lost(begin: int, end: int) -> tuple[int, int, str]:
    return begin, end, "history_lost"


def unreported(begin: int, end: int) -> tuple[int, int, str]:
    return begin, end, "unreported"


def test_the_time_between_two_enrolments_is_nobodys_though_an_outcome_is_lost_there():
    assert found(outcome(1, 0, 10), outcome(3, 100, 110, 100)) == []
    assert found(outcome(1, 0, 10), outcome(4, 110, 120, 100)) == [lost(100, 110)]


def test_misses_before_another_enrolment_are_unreported_up_to_the_last_one():
    assert found(outcome(1, 0, 10), miss(2, 10, 30), outcome(4, 100, 110, 100)) == [
        unreported(10, 30)
    ]


def test_the_first_answers_of_an_enrolment_that_were_lost_are_excused():
    assert found(outcome(3, 20, 30)) == [lost(0, 20)]
    assert found(miss(3, 20, 30)) == [lost(0, 20), unreported(20, 30)]


def test_a_first_window_that_begins_at_its_enrolment_proves_nothing():
    assert found(outcome(5, 0, 30)) == []
    assert found(outcome(5, 7, 30, None)) == []


def test_what_came_before_the_time_that_is_looked_at_is_not_called_lost():
    assert found(outcome(3, 20, 30), complete_since=20) == []
    assert found(outcome(3, 20, 30), complete_since=25) == []
    assert found(outcome(3, 20, 30), complete_since=15) == [lost(15, 20)]


def test_outcomes_of_schema_2_before_a_measured_window_are_not_lost():
    labelled = MeasuredOutcome(1, 15, None, "answered", None)
    assert found(labelled, outcome(2, 15, 30)) == []


def test_an_enrolment_that_a_clock_put_after_the_window_proves_nothing():
    assert found(outcome(1, 0, 10), outcome(2, 10, 20, 50)) == []


def test_a_miss_that_our_clock_puts_after_the_answer_to_its_window_tells_nothing():
    """Our clock was set back between the two."""
    answered = (outcome(2, 10, 20), outcome(3, 20, 30))
    assert found(outcome(1, 0, 10), *answered, miss(2, 10, 50)) == []
    assert found(outcome(1, 0, 10), *answered, miss(2, 10, 50), outcome(4, 30, 60)) == []
    assert found(outcome(1, 0, 10), outcome(3, 10, 10), miss(2, 10, 50)) == []
    assert found(outcome(1, 0, 10), outcome(3, 10, 10), miss(4, 10, 50)) == [unreported(10, 50)]


def test_intervals_are_those_of_the_outcomes():
    assert list(gaps([outcome(1, 0, 10), outcome(3, 20, 30)], FIRST_US)) == [
        Gap(Interval(10, 20), "history_lost")
    ]
