"""A fleet that has become large is excluded from garbage collections, whenever that happens."""

import gc
from collections.abc import Iterator

import pytest

from scheduler.fleet.garbage_collection import LARGE_FLEET, LARGE_FLEET_THRESHOLDS, FleetFreezer


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_a_small_fleet_is_collected_as_everything_is() -> None:
    thresholds = gc.get_threshold()
    FleetFreezer(range(LARGE_FLEET - 1)).on_loaded()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, 0)


def test_a_fleet_that_is_large_at_the_start() -> None:
    FleetFreezer(range(LARGE_FLEET)).on_loaded()
    assert gc.get_threshold() == LARGE_FLEET_THRESHOLDS
    assert gc.get_freeze_count() > 0


def test_a_fleet_that_grows_while_it_is_pinged() -> None:
    fleet: list[list[int]] = []
    freezer = FleetFreezer(fleet)
    freezer.on_loaded()
    counts = []
    for agents in (LARGE_FLEET - 1, LARGE_FLEET, 2 * LARGE_FLEET - 1, 2 * LARGE_FLEET):
        fleet.extend([number] for number in range(len(fleet), agents))
        freezer.freeze_if_large()
        counts.append(gc.get_freeze_count())
    assert counts[0] == 0
    assert 0 < counts[1] == counts[2]  # not before it has doubled
    assert counts[3] >= counts[2] + LARGE_FLEET
    assert gc.get_threshold() == LARGE_FLEET_THRESHOLDS
