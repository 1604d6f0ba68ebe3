"""Old days in Parquet, read as one history with the file; retention; rebuild from archive and stream."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from bus import services, subjects
from bus.clock import utc_now
from bus.connection import Client
from bus.messages import Incident, Seconds, encode
from bus.questions import HistoryReply, HistoryRequest, UptimesReply, UptimesRequest
from bus.settings import Settings, load
from storage import archive, imports, rebuild, rollups, service
from storage.database import rows_of
from storage.errors import CannotWriteError, StorageError
from storage.ingest import Written
from storage.rows import Arrival
from storage.store import Store
from tests.storage_states import AgentState, caught_up, gpu, publish, series, state

NOW = utc_now().replace(hour=12, minute=0, second=0, microsecond=0)
BAD = Seconds(up=500.0, down=400.0)


def mixed(agents: int = 3, days: int = 6) -> list[AgentState]:
    """Days of pings, some with details of GPUs and incidents, oldest first."""
    states = []
    for number in range(1, days * 8 + 1):
        at = NOW - timedelta(days=days) + timedelta(hours=3) * (number - 1)
        for agent in range(agents):
            bad = number % 5 == agent
            lost = Incident(gpu="GPU-x", state="down", reason="lost", since=at - timedelta(seconds=400), until=at)
            states.append(
                state(
                    f"agent-{agent}",
                    number,
                    at,
                    BAD,
                    gpus=(gpu(BAD, state="down", reasons=("lost",)),),
                    incidents=(lost,),
                    verdict="poor",
                )
                if bad
                else state(f"agent-{agent}", number, at)
            )
    return states


def arrivals(states: list[AgentState], first: int = 1) -> list[Arrival]:
    return [Arrival(first + i, one.agent_id, encode(one)) for i, one in enumerate(states)]


@pytest.fixture
def kept(tmp_path: Path) -> Settings:
    return load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=2)


async def opened(settings: Settings) -> Store:
    store = Store(settings)
    await store.open(NOW)
    return store


async def written_to(store: Store, batch: list[Arrival]) -> Written:
    return await store.write(1, await store.prepare(batch))


async def everything(store: Store) -> archive.Content:
    return await store.read(lambda reader: archive.content(reader.cursor, store.places.archive))


async def rollup_rows(store: Store) -> list[list[tuple[object, ...]]]:
    """By the agents' names: their numbers are each file's own."""
    by_name = "SELECT agent_id, agent_days.* EXCLUDE (agent) FROM agent_days JOIN agents USING (agent)"
    questions = (by_name, "FROM fleet_hours", "FROM fleet_latencies")
    return await store.read(lambda reader: [sorted(rows_of(reader.cursor, text), key=repr) for text in questions])


async def test_archived_days_are_read_as_if_they_had_never_moved(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    before = await everything(store)
    while await store.move(NOW):
        pass
    days = sorted(path.name for path in store.places.archive.iterdir())
    assert len(days) == 4
    live = await store.read(lambda reader: rows_of(reader.cursor, "SELECT count(*) FROM pings")[0][0])
    assert 0 < live < before["pings"][0]
    assert await everything(store) == before
    await store.close()
    again = await opened(kept)
    assert await everything(again) == before
    assert again.ingest is not None
    assert again.ingest.numbering.missing == 0
    written = await written_to(again, arrivals(mixed()))
    assert (written.rows, written.duplicates) == (0, len(mixed()))  # held, wherever it lies
    await again.close()


async def test_a_late_outcome_of_an_archived_day_is_added_and_moved_too(kept: Settings):
    states = mixed()
    late = states.pop(4)
    store = await opened(kept)
    await written_to(store, arrivals(states))
    while await store.seal(NOW):
        pass
    while await store.move(NOW):
        pass
    written = await written_to(store, arrivals([late], 1000))
    assert written.rows == 1
    while await store.move(NOW):
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


async def test_retention_lets_go_of_all_of_a_day(kept: Settings):
    short = msgspec.structs.replace(kept, STORAGE_RETENTION_DAYS=3)
    store = await opened(short)
    await written_to(store, arrivals(mixed()))
    while await store.move(NOW):
        pass
    await store.move(NOW)
    oldest = await store.read(lambda r: rows_of(r.cursor, r.partitions.fill("SELECT min(pinged_us) FROM {pings}")))
    assert oldest[0][0] >= (NOW - timedelta(days=3)).replace(hour=0).timestamp() * 1e6
    assert all(path.name >= f"day={NOW - timedelta(days=3):%Y-%m-%d}" for path in store.places.archive.iterdir())
    await store.close()
    again = await opened(short)
    assert again.ingest is not None
    assert again.ingest.numbering.missing == 0  # what was let go is not missing
    await again.close()


async def test_a_crash_between_partition_and_commit_leaves_one_history(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(mixed()))
    before = await everything(store)
    assert store.ingest is not None
    day = rows_of(store.ingest.connection, "SELECT min(pinged_us) // 86400000000 FROM pings")[0][0]
    archive.write_day(store.ingest.connection, store.ingest.partitions, day, 1)  # and the power goes
    await store.close()
    again = await opened(kept)
    assert await everything(again) == before
    while await again.move(NOW):
        pass
    assert await everything(again) == before
    await again.close()


async def test_rebuild_from_stream_and_archive_has_equal_hashes(bus: Client, base_settings: Settings):
    settings = msgspec.structs.replace(base_settings, STORAGE_ARCHIVE_AFTER_DAYS=2)
    states = mixed(agents=40, days=3)[:240]
    async with service.running(settings) as storage:
        await publish(bus, states)
        await caught_up(bus, len(states))
        with pytest.raises(CannotWriteError, match="attached"):
            await rebuild.rebuild(settings)
        while await storage.store.move(utc_now()):
            pass
        before = await everything(storage.store)
    await bus.jetstream().purge_stream(subjects.HISTORY_STREAM, keep=150)  # the older part is in the archive only
    seen: list[tuple[int, int]] = []
    result = await rebuild.rebuild(settings, progress=lambda read, there: seen.append((read, there)))
    assert result.equal
    assert result.replaced
    assert result.after == before
    left = (await bus.jetstream().stream_info(subjects.HISTORY_STREAM)).state.messages
    assert seen[-1] == (left, left)
    async with service.running(settings):
        await caught_up(bus, len(states))


async def test_a_rebuild_that_would_lose_something_leaves_the_old_file(bus: Client, base_settings: Settings):
    async with service.running(base_settings):
        await publish(bus, series("a", 4))
        await caught_up(bus, 4)
    await bus.jetstream().purge_stream(subjects.HISTORY_STREAM, keep=1)
    result = await rebuild.rebuild(base_settings)
    assert not result.replaced
    async with service.running(base_settings):
        await caught_up(bus, 4)


async def test_long_periods_are_the_same_from_rollups_and_archive(bus: Client, base_settings: Settings):
    settings = msgspec.structs.replace(base_settings, STORAGE_ARCHIVE_AFTER_DAYS=2)
    states = mixed(agents=2, days=4)
    async with service.running(settings) as storage:
        await written_to(storage.store, arrivals(states))
        asked = UptimesRequest(agent_ids=("agent-0", "agent-1"), hours=2000)
        raw = await services.ask(bus, subjects.UPTIMES, asked, UptimesReply, who="storage")
        page = await _history(bus)
        while await storage.store.seal(utc_now()):
            pass
        while await storage.store.move(utc_now()):
            pass
        assert await services.ask(bus, subjects.UPTIMES, asked, UptimesReply, who="storage") == raw
        assert await _history(bus) == page


async def _history(bus: Client) -> HistoryReply:
    asked = HistoryRequest(hours=2000.0)
    return await services.ask(bus, subjects.history("agent-0"), asked, HistoryReply, who="storage")


async def test_an_archive_is_taken_in_once_and_completely(kept: Settings, tmp_path: Path):
    whole = await opened(kept)
    await written_to(whole, arrivals(mixed()))
    while await whole.move(NOW):
        pass
    folder = whole.places.archive
    await whole.close()

    other = msgspec.structs.replace(kept, STORAGE_NAME="other", STORAGE_ARCHIVE_AFTER_DAYS=90)
    some = await opened(other)
    await written_to(some, arrivals(mixed()[::3]))
    while await some.seal(NOW):
        pass
    await some.close()
    seen: list[tuple[int, int]] = []
    first = imports.import_archive(other, folder, progress=lambda done, there: seen.append((done, there)))
    again = imports.import_archive(other, folder)
    assert first.added > 0
    assert first.held > 0
    assert (again.added, again.held) == (0, first.added + first.held)
    assert seen[-1] == (4, 4)

    merged = await opened(other)
    await written_to(merged, arrivals(mixed()))  # the days that were not archived
    expected = Store(msgspec.structs.replace(other, STORAGE_NAME="expected"))
    await expected.open(NOW)
    await written_to(expected, arrivals(mixed()))
    while await expected.seal(NOW):
        pass
    assert await everything(merged) == await everything(expected)
    assert await rollup_rows(merged) == await rollup_rows(expected)
    await merged.close()
    await expected.close()
    with pytest.raises(StorageError, match="no partitions"):
        imports.import_archive(other, tmp_path / "nothing")
