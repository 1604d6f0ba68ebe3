"""Old days in Parquet, read as one history with the file; sums; retention."""

import asyncio
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import msgspec
import pytest

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.questions import HistoryReply, HistoryRequest, UptimesReply, UptimesRequest
from bus.settings import Settings, load
from bus.transport import micro_services
from bus.transport.connection import Client
from storage import service
from storage.archive import day_folders
from storage.engine import rollups
from storage.engine.database import rows_of
from storage.engine.partitions import DAY_US, TABLES
from storage.engine.rows import microseconds
from storage.store.store import Reader, Store
from storage.stream import edge
from tests.storage_days import (
    NOW,
    arrivals,
    everything,
    mixed,
    opened,
    rollup_rows,
    tended,
    written_to,
)
from tests.storage_states import series, state

FAR_AHEAD = timedelta(days=4000)


@pytest.fixture
def kept(tmp_path: Path) -> Settings:
    return load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=2)


async def test_archived_days_are_read_as_if_they_had_never_moved(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    before = await everything(store)
    while await store.archive_next_day(NOW):
        pass
    days = sorted(path.name for path in store.paths.archive.iterdir())
    assert len(days) == 4
    live = await store.read(
        lambda reader: rows_of(reader.cursor, "SELECT count(*) FROM pings")[0][0]
    )
    assert 0 < live < before["pings"][0]
    assert await everything(store) == before
    await store.close()
    again = await opened(kept)
    assert await everything(again) == before
    assert again.ingest is not None
    assert again.ingest.sequences.missing == 0
    written = await written_to(again, arrivals(mixed()))
    assert (written.rows, written.duplicates) == (0, len(mixed()))  # held, wherever it lies
    await again.close()


async def test_days_that_the_stream_is_about_to_drop_are_archived_whatever_the_setting(
    tmp_path: Path,
):
    """Otherwise they would be in the history file only, and lost with it."""
    patient = load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=90)
    store = await opened(patient)
    await written_to(store, arrivals(mixed()))
    before = await everything(store)
    assert not await store.archive_next_day(NOW)
    today = microseconds(NOW) // DAY_US
    alone = await store.days_in_file_only(microseconds(NOW))
    assert alone > 2
    while await store.archive_next_day(NOW, due_before=today - 2):
        pass
    assert await store.days_in_file_only((today - 2) * DAY_US) == 0
    assert await everything(store) == before
    await store.close()


async def test_a_history_stream_that_was_emptied_leaves_days_in_the_file_only(
    base_settings: Settings, bus: Client
):
    """The day on which the stream begins anew was not counted, and no day of an empty one."""
    store = await opened(base_settings)
    await written_to(store, arrivals([state("a", 1, pinged_at=NOW - timedelta(hours=30))]))
    await written_to(store, arrivals([state("a", 2, pinged_at=NOW - timedelta(hours=3))]))
    assert await store.days_in_file_only(microseconds(NOW) - DAY_US) == 1
    assert await store.days_in_file_only(microseconds(NOW) - 2 * DAY_US) == 0
    before_us = microseconds(utc_now())
    watch = edge.EdgeWatch(bus)
    assert watch.holds_since_us is None
    await watch.look()  # it has no message
    assert watch.found is None
    assert watch.holds_since_us is not None
    assert watch.holds_since_us >= before_us
    await store.close()


async def test_a_late_outcome_of_an_archived_day_is_added_and_moved_too(kept: Settings):
    states = mixed()
    late = states.pop(4)
    store = await opened(kept)
    await written_to(store, arrivals(states))
    while await store.seal(NOW):
        pass
    while await store.archive_next_day(NOW):
        pass
    written = await written_to(store, arrivals([late], 1000))
    assert written.rows == 1
    while await store.archive_next_day(NOW):
        pass
    shown = await everything(store)
    sums = await rollup_rows(store)
    await store.close()

    other = Store(msgspec.structs.replace(kept, STORAGE_NAME="other"))
    await other.open(NOW)
    await written_to(other, arrivals(mixed()))
    while await other.seal(NOW):
        pass
    assert await everything(other) == shown
    assert await rollup_rows(other) == sums
    await other.close()


async def test_rollups_equal_the_raw_sums_and_can_be_made_again(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    while await store.seal(NOW):
        pass
    sealed = await rollup_rows(store)
    assert sum(row[2] for row in sealed[0]) > 0
    assert store.ingest is not None
    connection, partitions = store.ingest.connection, store.ingest.partitions
    raw = rows_of(
        connection,
        "SELECT sum(up_ms), sum(down_ms), count(*) FROM pings"
        " WHERE pinged_us < (SELECT until_us FROM sealed WHERE rollup = 'agent_days')",
    )[0]
    rolled = rows_of(connection, "SELECT sum(up_ms), sum(down_ms), sum(pings) FROM agent_days")[0]
    assert raw == rolled
    rollups.remake(connection, partitions)
    assert await rollup_rows(store) == sealed
    await store.close()


@pytest.mark.parametrize("year", [1970, 1971])
async def test_years_without_outcomes_are_passed_over(kept: Settings, year: int):
    """A host's clock that was not set yet: one outcome of long ago."""
    ago = datetime(year, 12, 31, 0, 0, 30, tzinfo=UTC)
    store = await opened(msgspec.structs.replace(kept, STORAGE_RETENTION_DAYS=36_500))
    await written_to(store, arrivals(mixed()))
    await written_to(store, arrivals([state("boot", 1, ago)], 1000))
    steps = 0
    while await store.seal(NOW):
        steps += 1
    assert steps < 20
    sums = await rollup_rows(store)
    assert ("boot", ago.toordinal() - date(1970, 1, 1).toordinal()) in {row[:2] for row in sums[0]}
    assert store.ingest is not None
    rollups.remake(store.ingest.connection, store.ingest.partitions)
    assert await rollup_rows(store) == sums
    written = await written_to(
        store, arrivals([state("boot", 2, ago + timedelta(minutes=15))], 1001)
    )
    assert written.rows == 1  # late: its day is summed anew
    sums = await rollup_rows(store)
    rollups.remake(store.ingest.connection, store.ingest.partitions)
    assert await rollup_rows(store) == sums
    await store.close()


@pytest.mark.parametrize("year", [1970, 1971])
async def test_outcomes_of_long_ago_are_archived_and_known(kept: Settings, year: int):
    settings = msgspec.structs.replace(kept, STORAGE_RETENTION_DAYS=36_500)
    ago = series("boot", 3, datetime(year, 12, 31, 0, 0, 30, tzinfo=UTC))
    store = await opened(settings)
    await written_to(store, arrivals(mixed() + ago))
    before = await everything(store)
    await tended(store)
    assert await everything(store) == before
    assert await store.read(lambda reader: len(reader.partitions.days)) == 5
    await store.close()
    store.paths.file.unlink()
    again = await opened(settings)
    written = await written_to(again, arrivals(mixed() + ago))
    assert written.duplicates == len(mixed()) + 3 - written.rows > 3
    assert await everything(again) == before
    await again.close()


async def test_retention_lets_go_of_all_of_a_day(kept: Settings):
    short = msgspec.structs.replace(kept, STORAGE_RETENTION_DAYS=3)
    store = await opened(short)
    await written_to(store, arrivals(mixed()))
    while await store.archive_next_day(NOW):
        pass
    await store.archive_next_day(NOW)
    oldest = await store.read(
        lambda r: rows_of(r.cursor, r.partitions.fill("SELECT min(pinged_us) FROM {pings}"))
    )
    assert oldest[0][0] >= (NOW - timedelta(days=3)).replace(hour=0).timestamp() * 1e6
    assert all(
        path.name >= f"day={NOW - timedelta(days=3):%Y-%m-%d}"
        for path in store.paths.archive.iterdir()
    )
    await store.close()
    again = await opened(short)
    assert again.ingest is not None
    assert again.ingest.sequences.missing == 0  # what was let go is not missing
    await again.close()


async def test_a_question_keeps_its_files_while_a_new_generation_is_written(kept: Settings):
    states = mixed()
    store = await opened(kept)
    await written_to(store, arrivals([one for one in states if one is not states[4]]))
    await tended(store)
    asked, written = threading.Event(), threading.Event()

    def question(reader: Reader) -> list[list[tuple[int]]]:
        text = "SELECT count(*) FROM {pings}"
        first = rows_of(reader.cursor, reader.partitions.fill(text))
        asked.set()
        assert written.wait(20)
        return [first, rows_of(reader.cursor, reader.partitions.fill(text))]

    answering = asyncio.create_task(store.read(question))
    await asyncio.to_thread(asked.wait, 20)
    await written_to(store, arrivals([states[4]], 1000))
    await tended(store)
    written.set()
    assert await answering == [[(len(states) - 1,)]] * 2
    assert len(list(store.paths.archive.glob("day=*/pings-2.parquet"))) == 1
    first = list(store.paths.archive.glob("day=*/pings-1.parquet"))
    await tended(store)
    left = list(store.paths.archive.glob("day=*/pings-1.parquet"))
    assert len(left) == len(first) - 1  # gone one tend later
    await store.close()


async def test_a_clock_that_is_far_ahead_makes_nothing_old(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    await tended(store)
    before, files = await everything(store), sorted(store.paths.archive.rglob("*"))
    await tended(store, NOW + FAR_AHEAD)
    assert await everything(store) == before
    assert sorted(store.paths.archive.rglob("*")) == files
    assert store.ingest is not None
    store.ingest.connection.execute("DELETE FROM pings")  # all that is left lies in the archive
    await store.close()
    again = await opened(kept)
    await tended(again, NOW + FAR_AHEAD)
    assert [path for path in files if path.is_file() and not path.exists()] == []
    assert await again.read(lambda reader: len(reader.partitions.days)) == 4
    await again.close()


async def test_a_crash_between_partition_and_commit_leaves_one_history(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    before = await everything(store)
    assert store.ingest is not None
    day = rows_of(store.ingest.connection, "SELECT min(pinged_us) // 86400000000 FROM pings")[0][0]
    day_folders.write_day(
        store.ingest.connection, store.ingest.partitions, day, 1
    )  # and the power goes
    await store.close()
    again = await opened(kept)
    assert await everything(again) == before
    while await again.archive_next_day(NOW):
        pass
    assert await everything(again) == before
    await again.close()


@pytest.mark.parametrize("table", TABLES)
async def test_half_a_partition_is_none_when_the_file_is_lost_too(kept: Settings, table: str):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    before = await everything(store)
    assert store.ingest is not None
    connection, known = store.ingest.connection, store.ingest.partitions
    day = rows_of(connection, "SELECT min(pinged_us) // 86400000000 FROM pings")[0][0]
    wall = known.file(day, table, 1).with_suffix(".partial")
    wall.mkdir(parents=True)
    with pytest.raises((duckdb.Error, OSError)):
        day_folders.write_day(connection, known, day, 1)  # ends there, like a killed process
    await store.close()
    wall.rmdir()
    store.paths.file.unlink()
    again = await opened(kept)
    await written_to(again, arrivals(mixed()))
    assert await everything(again) == before
    await tended(again)
    assert await everything(again) == before
    await again.close()


@pytest.mark.parametrize("table", ["gpus", "incidents"])
async def test_a_partition_that_lost_a_file_is_none_when_the_history_file_is_lost_too(
    kept: Settings, table: str
):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    await tended(store)
    before = await everything(store)
    await store.close()
    for file in store.paths.archive.glob(f"day=*/{table}-1.parquet"):
        file.unlink()
    store.paths.file.unlink()
    again = await opened(kept)
    await written_to(again, arrivals(mixed()))
    assert await everything(again) == before
    await again.close()


async def test_long_periods_are_the_same_from_rollups_and_archive(
    bus: Client, base_settings: Settings
):
    settings = msgspec.structs.replace(base_settings, STORAGE_ARCHIVE_AFTER_DAYS=2)
    states = mixed(agents=2, days=4)
    async with service.running(settings) as storage:
        await written_to(storage.store, arrivals(states))
        asked = UptimesRequest(agent_ids=("agent-0", "agent-1"), hours=2000)
        raw = await micro_services.ask(bus, subjects.UPTIMES, asked, UptimesReply, who="storage")
        page = await _history(bus)
        while await storage.store.seal(utc_now()):
            pass
        while await storage.store.archive_next_day(utc_now()):
            pass
        assert (
            await micro_services.ask(bus, subjects.UPTIMES, asked, UptimesReply, who="storage")
            == raw
        )
        assert await _history(bus) == page


async def _history(bus: Client) -> HistoryReply:
    asked = HistoryRequest(hours=2000.0)
    return await micro_services.ask(
        bus, subjects.history("agent-0"), asked, HistoryReply, who="storage"
    )
