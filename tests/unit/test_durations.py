from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.contract.durations import Durations, Interval, uptime_percent
from bus.contract.messages import Seconds
from bus.settings import Settings
from storage.engine import database

LONGEST_MS = 1000 * 2**32
milliseconds = st.integers(0, LONGEST_MS)
durations = st.builds(Durations, *[milliseconds] * 5)
intervals = st.builds(Interval, st.integers(-1000, 1000), st.integers(-1000, 1000))


@given(durations)
def test_the_wire_carries_every_millisecond(spent: Durations):
    assert Durations.from_seconds(spent.to_seconds()) == spent
    assert spent.window == spent.judged + spent.excused
    assert spent.judged == spent.good + spent.down + spent.unknown


@given(durations, durations)
def test_durations_add_and_subtract_by_state(one: Durations, other: Durations):
    assert one + other - other == one
    assert (one + other).window == one.window + other.window
    assert Durations.total([one, other]) == one + other


@given(durations)
def test_uptime_is_a_percentage_and_none_only_where_all_is_excused(spent: Durations):
    percent = spent.uptime_percent
    if spent.judged == 0:
        assert percent is None
    else:
        assert percent is not None
        assert 0.0 <= percent <= 100.0


def test_unknown_time_counts_against_uptime_and_excused_time_does_not():
    assert Durations(unknown=1_000).uptime_percent == 0.0
    assert (
        Durations(up=600, degraded=300, down=50, unknown=50, excused=1_000).uptime_percent == 90.0
    )
    assert Durations(excused=1_000).uptime_percent is None
    assert Durations.total([]) == Durations.from_seconds(Seconds())


@given(intervals, intervals)
def test_an_intersection_holds_what_is_in_both(one: Interval, other: Interval):
    both = one.intersection(other)
    members = {at for at in range(-1000, 1000) if at in one and at in other}
    assert {at for at in range(-1000, 1000) if at in both} == members
    assert both.length == len(members)
    if one.length and other.length:
        assert one.overlaps(other) == bool(members)


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory):
    settings = Settings(GPUPING_DATA_DIR=str(tmp_path_factory.mktemp("data")))
    connection = database.open_file(settings, database.HistoryPaths(settings))
    yield database.reading_cursor(connection)
    connection.close()


@given(durations)
def test_sql_and_python_compute_the_same_uptime(reading: database.Connection, spent: Durations):
    asked = "SELECT uptime_percent($good, $judged)"
    found = reading.execute(asked, {"good": spent.good, "judged": spent.judged}).fetchone()
    assert found == (spent.uptime_percent,) == (uptime_percent(spent.good, spent.judged),)


def test_the_history_file_contains_no_macro(tmp_path: Path):
    settings = Settings(GPUPING_DATA_DIR=str(tmp_path))
    paths = database.HistoryPaths(settings)
    database.open_file(settings, paths).close()
    with database.in_memory() as plain:
        plain.execute(f"ATTACH '{paths.file}' AS stored (READ_ONLY)")
        counted = "SELECT count(*) FROM duckdb_functions() WHERE function_name = 'uptime_percent'"
        assert plain.execute(counted).fetchone() == (0,)
