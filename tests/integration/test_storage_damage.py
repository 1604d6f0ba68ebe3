"""Partitions of the archive that are damaged or gone: set aside by themselves, and made again from
the stream.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import msgspec
import pytest

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.questions import HistoryReply, HistoryRequest
from bus.errors import RefusedError, UnavailableError
from bus.settings import Settings, load
from bus.transport import micro_services
from bus.transport.connection import Client
from storage import service
from storage.archive.day_folders import Content
from storage.engine import database
from storage.engine.database import rows_of
from storage.engine.errors import FlawedError
from storage.store.store import Store
from storage.stream import rebuild
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
from tests.storage_states import AgentState, caught_up, publish, series
from tests.waiting import until_answered

STATES = mixed(agents=4, days=4)


@pytest.fixture
def kept(tmp_path: Path) -> Settings:
    return load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=2)


def zeroed(data: bytes) -> bytes:
    """Damage that only reading the values shows."""
    return data[:8] + bytes(592) + data[600:]


DAMAGE: dict[str, Callable[[bytes], bytes] | None] = {
    "missing": None,
    "empty": lambda _: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "in the footer": lambda data: data[:-100] + os.urandom(100),
    "in the middle": zeroed,
}


def damage(settings: Settings, kind: str, table: str = "pings", number: int = 1) -> Path:
    """Ruins one file of a day's partition."""
    file = sorted(database.HistoryPaths(settings).archive.glob(f"day=*/{table}-*.parquet"))[number]
    if (ruin := DAMAGE[kind]) is None:
        file.unlink()
    else:
        file.write_bytes(ruin(file.read_bytes()))
        os.utime(
            file, (0, 0)
        )  # DuckDB remembers what it read of a file, as long as it is of the same time
    return file


def set_aside(settings: Settings) -> list[str]:
    return sorted(path.name for path in database.HistoryPaths(settings).folder.rglob("*.damaged-*"))


async def filled(bus: Client, settings: Settings) -> Content:
    """All of STATES, older days in Parquet."""
    async with service.running(settings) as storage:
        await publish(bus, STATES)
        await caught_up(bus, len(STATES))
        await tended(storage.store, utc_now())
        return await everything(storage.store)


@pytest.fixture
def archiving(base_settings: Settings) -> Settings:
    return msgspec.structs.replace(base_settings, STORAGE_ARCHIVE_AFTER_DAYS=2)


@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_damaged_partition_is_set_aside_and_its_day_comes_back(
    bus: Client, archiving: Settings, kind: str
):
    before = await filled(bus, archiving)
    damage(archiving, kind)
    inode = database.HistoryPaths(archiving).file.stat().st_ino
    async with service.running(archiving) as storage:
        await until_answered(lambda: _readable(bus))
        await caught_up(bus, len(STATES))
        assert await everything(storage.store) == before
        sums = await rollup_rows(storage.store)
        await tended(storage.store, utc_now())  # the day moves again
        assert await everything(storage.store) == before
        assert await rollup_rows(storage.store) == sums
        assert storage.store.ingest
        assert storage.store.ingest.sequences.missing == 0
    assert (
        database.HistoryPaths(archiving).file.stat().st_ino == inode
    )  # the history file had no part in it
    there = ["gpus-1.parquet", "incidents-1.parquet", "pings-1.parquet"][
        : 2 if kind == "missing" else 3
    ]
    assert [name.partition(".damaged-")[0] for name in set_aside(archiving)] == there


async def _readable(bus: Client) -> bool:
    """Reads all there is; damage that shows only now is answered with the file's name."""
    asked = HistoryRequest(hours=2000.0)
    answers: list[HistoryReply] = []
    refusals: list[str] = []
    for agent in range(4):
        try:
            answers.append(
                await micro_services.ask(
                    bus, subjects.history(f"agent-{agent}"), asked, HistoryReply, who="storage"
                )
            )
        except UnavailableError:
            return False  # it starts
        except RefusedError as refused:
            refusals.append(f"{refused.code} {refused.detail}")
    assert all(refusal.startswith("503 ") and "pings-1.parquet" in refusal for refusal in refusals)
    return len(answers) == 4


async def test_a_question_that_meets_damage_is_answered_with_the_files_name(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(STATES))
    await tended(store)
    file = damage(kept, "in the middle")
    with pytest.raises(FlawedError, match=str(file)):
        await everything(store)
    with pytest.raises(UnavailableError, match=str(file)):
        await everything(store)
    await store.open(NOW)
    assert await store.read(lambda reader: len(reader.partitions.days)) > 0
    assert not list(store.paths.folder.glob("*.damaged-*"))
    await store.close()


async def test_a_day_that_the_stream_has_no_more_is_missing_and_nothing_else(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(STATES))
    await tended(store)
    file = damage(kept, "truncated")
    lost = [one for one in STATES if file.parent.name == f"day={one.last.pinged_at:%Y-%m-%d}"]
    await store.close()
    again = await opened(kept)
    assert again.ingest
    assert again.ingest.position is None  # the stream is read again
    assert again.ingest.rows == len(STATES) - len(lost)
    assert (await everything(again))["pings"][0] == len(STATES) - len(lost)
    assert again.ingest.sequences.missing == len(lost)
    written = await written_to(again, arrivals(STATES[-20:]))
    assert (written.rows, written.duplicates) == (0, 20)
    sums = await rollup_rows(again)
    assert sum(row[2] for row in sums[0]) == len(_sealed(STATES)) - len(lost)  # type: ignore[misc]
    await again.close()


def _sealed(states: list[AgentState]) -> list[AgentState]:
    """Those of days that ended well before the newest outcome."""
    return [one for one in states if one.last.pinged_at.date() < NOW.date()]


@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_late_outcome_of_a_damaged_day_is_not_taken_for_poison(kept: Settings, kind: str):
    states = mixed()
    late = states[4]
    store = await opened(kept)
    await written_to(store, arrivals([one for one in states if one is not late]))
    await tended(store)
    damage(kept, kind, number=0)
    batch = arrivals([late, *series("new", 3, NOW)], 1000)
    with pytest.raises(FlawedError):
        await written_to(store, batch)
    await store.open(NOW)
    await written_to(store, batch)
    await written_to(store, arrivals(states))
    assert store.ingest
    assert (store.ingest.poisoned, store.ingest.rows) == (0, len(states) + 3)
    await store.close()


@pytest.mark.parametrize("lost", [False, True])
async def test_an_older_generation_stands_in_while_it_is_there(kept: Settings, lost: bool):
    """Even where the stream has nothing of the day any more, only what came late is lost."""
    store = await opened(kept)
    await written_to(store, arrivals([one for one in STATES if one is not STATES[4]]))
    await tended(store)
    await written_to(store, arrivals(STATES[4:5], 1000))
    await tended(store)
    await store.close()
    file = next(store.paths.archive.glob("day=*/pings-2.parquet"))
    file.write_bytes(b"")
    if lost:
        store.paths.file.unlink()
    again = await opened(kept)
    live = [one for one in STATES if one.last.pinged_at.date() >= (NOW - timedelta(days=2)).date()]
    await written_to(again, arrivals(live))
    assert (await everything(again))["pings"][0] == len(STATES) - 1
    assert len(set_aside(kept)) == 3
    await again.close()


@pytest.mark.parametrize("table", ["pings", "gpus", "incidents"])
async def test_a_file_that_goes_missing_is_never_passed_over(kept: Settings, table: str):
    store = await opened(kept)
    await written_to(store, arrivals(STATES))
    await tended(store)
    before = await everything(store)
    file = damage(kept, "missing", table)
    with pytest.raises(FlawedError, match=str(file)):
        await everything(store)
    await store.open(NOW)
    await written_to(store, arrivals(STATES))
    assert await everything(store) == before
    await store.close()
    damage(kept, "missing", table, number=0)
    again = await opened(kept)  # here, looking for the files is enough
    await written_to(again, arrivals(STATES))
    assert await everything(again) == before
    await again.close()


async def test_an_archive_from_before_rows_were_counted_is_counted_once(kept: Settings):
    store = await opened(kept)
    await written_to(store, arrivals(STATES))
    await tended(store)
    before, counts = await everything(store), await _counts(store)
    await store.close()
    _as_schema_1(store.paths.file)
    again = await opened(kept)
    assert await everything(again) == before
    assert await _counts(again) == counts
    await again.close()


async def _counts(store: Store) -> list[tuple[object, ...]]:
    return await store.read(lambda reader: sorted(rows_of(reader.cursor, "FROM archived")))


def _as_schema_1(file: Path) -> None:
    with duckdb.connect(str(file)) as connection:
        for column in ("gpus", "incidents", "evidence"):
            connection.execute(f"ALTER TABLE archived DROP COLUMN {column}")
        for column in ("remarks", "enrolled_us"):
            connection.execute(f"ALTER TABLE pings DROP COLUMN {column}")
        connection.execute("UPDATE about SET schema_version = 1")


async def test_rebuild_goes_around_a_damaged_partition(bus: Client, archiving: Settings):
    before = await filled(bus, archiving)
    damage(archiving, "truncated")
    result = await rebuild.rebuild(archiving)
    assert result.replaced
    assert result.after == before
    assert set_aside(archiving)


async def test_poison_that_is_read_again_is_set_aside_once(bus: Client, archiving: Settings):
    await filled(bus, archiving)
    await bus.jetstream().publish(subjects.state_key("garbage"), b"no outcome")
    async with service.running(archiving):
        await caught_up(bus, len(STATES))
    damage(archiving, "truncated")
    async with service.running(archiving) as storage:
        await caught_up(bus, len(STATES))
        assert storage.store.ingest
        assert storage.store.ingest.poisoned == 1
