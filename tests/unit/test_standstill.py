"""The scheduler's own standstills: gaps between two ticks of its event loop."""

import pytest

from scheduler.ping.outages.standstill import MARGIN_SECONDS, REMEMBERED, StandstillWatch


@pytest.fixture
def watch() -> StandstillWatch:
    """Has ticked at 1000.0 s, whatever the clock says."""
    watch = StandstillWatch()
    watch._last_tick = 1000.0
    return watch


def test_a_loop_that_runs_has_no_standstill(watch: StandstillWatch) -> None:
    for tick in range(1, 100):
        watch.tick(1000.0 + tick / 10)
    assert watch.seconds_within(0.0, 2000.0) == 0.0


def test_standstills_that_follow_one_another_are_one(watch: StandstillWatch) -> None:
    """A starved loop: the margins of two gaps overlap, and no time counts twice."""
    for gap in range(1, 101):
        watch.tick(1000.0 + gap / 2)
    assert watch.seconds_within(0.0, 2000.0) == pytest.approx(50.0 + 2 * MARGIN_SECONDS)
    assert watch.seconds_within(1010.0, 1020.0) == pytest.approx(10.0)


def test_the_oldest_are_forgotten(watch: StandstillWatch) -> None:
    for gap in range(1, 3 * REMEMBERED):
        watch.tick(1000.0 + 10 * gap - 1)
        watch._last_tick = 1000.0 + 10 * gap
    assert len(watch._standstills) <= 2 * REMEMBERED
    ended = 1000.0 + 30 * REMEMBERED
    newest = watch.seconds_within(ended - 1000.0, ended)
    assert newest == pytest.approx(100 * (9.0 + 2 * MARGIN_SECONDS), abs=20)


def test_standstills_are_summed_as_far_as_they_lie_within(watch: StandstillWatch) -> None:
    watch.tick(1060.0)
    for tick in range(1, 21):
        watch.tick(1060.0 + tick / 10)
    watch.tick(1072.0)
    margins = 2 * MARGIN_SECONDS
    assert watch.seconds_within(0.0, 2000.0) == pytest.approx(70.0 + 2 * margins)
    assert watch.seconds_within(1050.0, 1055.0) == pytest.approx(5.0)
    assert watch.seconds_within(1080.0, 1090.0) == 0.0
