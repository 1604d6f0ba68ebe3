"""What never came: counted the same while it runs, after a restart of numbers, after retention,
when opened again.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bus.contract.messages import AgentState, encode
from bus.contract.questions import HistoryRequest
from bus.contract.statements import StatementRequest
from bus.settings import Settings, load
from storage.answers import history
from storage.archive import day_folders
from storage.engine.database import rows_of
from storage.engine.rows import Arrival
from storage.statements import build
from storage.store.store import Store
from tests.storage_kept import NOW
from tests.storage_states import series, state

HOUR = timedelta(hours=1)
Numberings = list[list[AgentState]]


@pytest.fixture
def keeps_five_days(tmp_path: Path) -> Settings:
    return load(
        {}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_RETENTION_DAYS=5, STORAGE_ARCHIVE_AFTER_DAYS=3
    )


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    """Another agent is pinged now: retention goes by the newest outcome, and not by a clock that
    may be wrong.
    """
    store = Store(settings)
    await store.open(NOW)
    await put(store, [state("now", 1, NOW)])
    try:
        yield store
    finally:
        await store.close()


async def put(store: Store, states: list[AgentState]) -> None:
    batch = [Arrival(1, one.agent_id, encode(one)) for one in states]
    await store.write(1, await store.prepare(batch))


async def tend(store: Store) -> None:
    while await store.seal(NOW):
        pass
    while await store.archive_next_day(NOW):
        pass


async def missing(store: Store, agent_id: str, hours: float = 87_600.0) -> int:
    """As the summary of a period says."""
    asked = HistoryRequest(hours=hours, limit=1)
    reply = await store.read(lambda reader: history.history(reader, agent_id, asked, NOW))
    return reply.summary.missing_seqs


def counted(store: Store) -> tuple[int, int]:
    """Missing and held, as the statistics have it."""
    assert store.ingest
    return store.ingest.sequences.missing, store.ingest.rows


async def held(store: Store) -> int:
    content = await store.read(
        lambda reader: day_folders.content(reader.cursor, store.paths.archive)
    )
    return content["pings"][0]


def life(chance: random.Random, begins: datetime) -> Numberings:
    """A few numberings, an outcome an hour, some of which never came; the first and the last of
    each did.
    """
    numberings: Numberings = []
    at = begins
    for _ in range(chance.randrange(1, 4)):
        last = chance.randrange(10, 90)
        lost = set(chance.sample(range(2, last), chance.randrange(last // 3)))
        numberings.append(
            [state("a", n, at + n * HOUR) for n in range(1, last + 1) if n not in lost]
        )
        at += (last + 1) * HOUR
    return numberings


def truly_missing(numberings: Numberings, since: datetime, kept_since: datetime) -> int:
    """Numbers up to the last of a period that are not there, from the one before the period on."""
    total = 0
    for numbering in numberings:
        there = [one.ping_seq for one in numbering if one.last.pinged_at >= kept_since]
        inside = [one.ping_seq for one in numbering if one.last.pinged_at >= max(since, kept_since)]
        if inside:
            is_cut = numbering[0].last.pinged_at < kept_since
            first = there[0] - 1 if is_cut else 0
            before = max((n for n in there if n < inside[0]), default=first)
            total += inside[-1] - before - len(inside)
    return total


async def test_a_gap_between_two_numberings_is_none(keeps_five_days: Settings):
    async with opened(keeps_five_days) as store:
        await put(store, series("a", 100, NOW - timedelta(days=3)))
        await put(store, series("a", 50, NOW - timedelta(days=1)))
        assert await missing(store, "a") == 0
        asked = StatementRequest(month="2026-11")
        made = await store.read(lambda reader: build.statement(reader, "a", asked, NOW, 99.0))
        assert (made.pings, made.missing_seqs) == (150, 0)
        assert counted(store) == (0, 151)


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_missing_is_what_never_came_before_and_after_retention(
    keeps_five_days: Settings, seed: int
):
    chance = random.Random(seed)
    numberings = life(chance, NOW - timedelta(days=9))
    horizon = NOW - timedelta(days=5)
    periods = [chance.randrange(1, 250) for _ in range(6)]
    async with opened(keeps_five_days) as store:
        for numbering in numberings:
            await put(store, numbering)
        await tell(store, numberings, NOW - timedelta(days=100), periods)
        await tend(store)
        await tell(store, numberings, horizon, periods)
    async with opened(keeps_five_days) as store:
        await tell(store, numberings, horizon, periods)


async def tell(
    store: Store, numberings: Numberings, kept_since: datetime, periods: list[int]
) -> None:
    everything = truly_missing(numberings, kept_since, kept_since)
    assert counted(store) == (everything, await held(store))
    for hours in periods:
        expected = truly_missing(numberings, NOW - hours * HOUR, kept_since)
        assert await missing(store, "a", hours) == expected, hours


@pytest.mark.parametrize("anew", [False, True])
async def test_an_agent_that_comes_back_after_all_of_it_was_let_go_misses_nothing(
    keeps_five_days: Settings, anew: bool
):
    async with opened(keeps_five_days) as store:
        await put(
            store,
            series("a", 90, NOW - timedelta(days=12)) + series("b", 40, NOW - timedelta(days=2)),
        )
        await tend(store)
        assert counted(store) == (0, 41)
        if not anew:
            await comes_back(store)
    if anew:
        async with opened(keeps_five_days) as store:
            await comes_back(store)


async def comes_back(store: Store) -> None:
    await put(store, series("a", 2, NOW - 3 * HOUR, first=91))
    assert (counted(store), await missing(store, "a")) == ((0, 43), 0)
    await put(store, series("a", 1, NOW - HOUR, first=95))
    assert (counted(store), await missing(store, "a")) == ((2, 44), 2)
    await put(
        store, series("a", 1, NOW - HOUR / 2)
    )  # the bucket is lost: number 1 was let go, and is another
    assert (counted(store), await missing(store, "a")) == ((2, 45), 2)


async def test_what_was_let_go_and_comes_again_begins_no_numbering(keeps_five_days: Settings):
    old, new = (
        series("a", 90, NOW - timedelta(days=6)),
        series("a", 90, NOW - timedelta(days=2), first=91),
    )
    async with opened(keeps_five_days) as store:
        await put(store, old + new)
        await tend(store)
        await put(store, old + new)  # the stream is read again
        await tend(store)
        assert (counted(store), await missing(store, "a")) == ((0, 91), 0)
        assert (
            await store.read(lambda reader: rows_of(reader.cursor, "SELECT * FROM restarts")) == []
        )
