"""The history file is locked down, and a question has limits of time and memory."""

import asyncio
import threading
from pathlib import Path

import duckdb
import pytest

from bus.clock import utc_now
from bus.errors import UnavailableError
from bus.settings import load
from storage.engine.database import rows_of
from storage.store.store import Reader, Store

SLOW = "SELECT count(*) FROM range(1000000) AS a(i), range(1000000) AS b(j) WHERE i * j % 7 = 3"


async def opened(folder: Path, **more: object) -> Store:
    store = Store(load({}, GPUPING_DATA_DIR=str(folder), **more))
    await store.open(utc_now())
    return store


@pytest.mark.parametrize(
    "text",
    [
        "COPY agents TO '{outside}/stolen.csv'",
        "SELECT * FROM read_csv('/etc/hostname')",
        "ATTACH '{outside}/other.duckdb' AS other",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "LOAD httpfs",
    ],
)
async def test_nothing_outside_its_folder_can_be_touched(tmp_path: Path, text: str):
    store = await opened(tmp_path / "data")
    assert store.ingest
    with pytest.raises(
        duckdb.Error, match=r"(?i)permission|disabled|locked|not allowed|cannot change"
    ):
        store.ingest.connection.execute(text.format(outside=tmp_path))
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_a_question_that_takes_too_long_is_interrupted_and_the_next_is_answered(
    tmp_path: Path,
):
    store = await opened(tmp_path, STORAGE_QUERY_TIMEOUT_SECONDS=0.3)
    with pytest.raises(UnavailableError, match=r"longer than 0\.3 s"):
        await store.read(lambda reader: rows_of(reader.cursor, SLOW))
    assert await store.read(lambda reader: rows_of(reader.cursor, "SELECT 1")) == [(1,)]
    await store.close()


async def test_a_question_that_computes_when_its_time_is_over_is_interrupted_too(tmp_path: Path):
    """Between two statements nothing is there to interrupt; the next one must not have all the time
    in the world.
    """
    store = await opened(tmp_path, STORAGE_QUERY_TIMEOUT_SECONDS=0.2)
    over = threading.Event()
    asyncio.get_running_loop().call_later(
        0.4, over.set
    )  # after the time limit, and while no statement runs

    def question(reader: Reader) -> object:
        over.wait()
        return rows_of(reader.cursor, SLOW)

    async with asyncio.timeout(60):
        with pytest.raises(UnavailableError, match=r"longer than 0\.2 s"):
            await store.read(question)
    for _ in range(3):  # of three readers each is in order
        assert await store.read(lambda reader: rows_of(reader.cursor, "SELECT 1")) == [(1,)]
    await store.close()


async def test_what_tidies_up_after_a_question_is_never_interrupted(tmp_path: Path):
    store = await opened(tmp_path, STORAGE_QUERY_TIMEOUT_SECONDS=0.02)

    def question(reader: Reader) -> None:
        while True:
            rows_of(reader.cursor, "SELECT count(*) FROM range(100000)")

    for _ in range(30):
        with pytest.raises(UnavailableError, match="longer than"):
            await store.read(question)
    assert await store.read(lambda reader: rows_of(reader.cursor, "SELECT 1"), 5.0) == [(1,)]
    assert store.waiting is None
    await store.close()


async def test_a_question_may_not_use_more_memory_than_is_set(tmp_path: Path):
    store = await opened(tmp_path, STORAGE_MEMORY_LIMIT_MB=64)
    greedy = "SELECT list(i), list(i + 1), list(i + 2) FROM range(50000000) AS t(i)"
    with pytest.raises(UnavailableError, match="memory"):
        await store.read(lambda reader: rows_of(reader.cursor, greedy))
    assert await store.read(lambda reader: rows_of(reader.cursor, "SELECT 1")) == [(1,)]
    await store.close()


@pytest.mark.parametrize(("limit", "engine"), [(64, 64), (512, 256), (1024, 640)])
async def test_the_limit_is_the_process_and_duckdb_gets_what_the_rest_leaves(
    tmp_path: Path, limit: int, engine: int
):
    store = await opened(tmp_path, STORAGE_MEMORY_LIMIT_MB=limit)
    shown = await store.read(
        lambda reader: rows_of(reader.cursor, "SELECT current_setting('memory_limit')")
    )
    number, unit = shown[0][0].split()
    bytes_ = float(number) * {"MiB": 2**20, "GiB": 2**30}[unit]
    assert round(bytes_ / 1e6, -1) == round(engine, -1)
    await store.close()
