"""A fleet that has become large is set aside from the search for garbage, whenever that happens."""

import gc
from collections.abc import Iterator

import pytest

from scheduler.fleet.garbage import LARGE_FLEET, LARGE_FLEET_THRESHOLDS, GarbageSearch


@pytest.fixture(autouse=True)
def _search_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_a_small_fleet_is_searched_as_everything_is() -> None:
    thresholds = gc.get_threshold()
    GarbageSearch(range(LARGE_FLEET - 1)).on_loaded()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, 0)


def test_a_fleet_that_is_large_at_the_start() -> None:
    GarbageSearch(range(LARGE_FLEET)).on_loaded()
    assert gc.get_threshold() == LARGE_FLEET_THRESHOLDS
    assert gc.get_freeze_count() > 0


def test_a_fleet_that_grows_while_it_is_pinged() -> None:
    fleet: list[list[int]] = []
    search = GarbageSearch(fleet)
    search.on_loaded()
    counts = []
    for agents in (LARGE_FLEET - 1, LARGE_FLEET, 2 * LARGE_FLEET - 1, 2 * LARGE_FLEET):
        fleet.extend([number] for number in range(len(fleet), agents))
        search.set_aside()
        counts.append(gc.get_freeze_count())
    assert counts[0] == 0
    assert 0 < counts[1] == counts[2]  # not before it has doubled
    assert counts[3] >= counts[2] + LARGE_FLEET
    assert gc.get_threshold() == LARGE_FLEET_THRESHOLDS
