"""The scheduler's own standstills: gaps between two ticks of its event loop."""

import pytest

from scheduler.ping.standstill import MARGIN_SECONDS, StandstillWatch


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


def test_standstills_are_summed_as_far_as_they_lie_within(watch: StandstillWatch) -> None:
    watch.tick(1060.0)
    watch.tick(1060.1)
    watch.tick(1070.1)
    margins = 2 * MARGIN_SECONDS
    assert watch.seconds_within(0.0, 2000.0) == pytest.approx(70.0 + 2 * margins)
    assert watch.seconds_within(1050.0, 1055.0) == pytest.approx(5.0)
    assert watch.seconds_within(1080.0, 1090.0) == 0.0
