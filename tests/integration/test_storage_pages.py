"""Pages of an agent's history have every outcome once, in one order, wherever it is stored."""

import csv
import io
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bus.contract.exports import ExportRequest
from bus.contract.messages import AgentState, decode, encode
from bus.contract.questions import HistoryReply, HistoryRequest
from bus.errors import BadMessageError
from bus.settings import load
from storage.answers import history, tables
from storage.engine.rows import Arrival
from tests.storage_kept import NOW, Kept
from tests.storage_states import series, state

EVER = 87_600.0
Place = tuple[datetime, int]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=2))
    await made.fill(series("other", 20, NOW - timedelta(days=4)))
    yield made
    await made.store.close()


async def put(kept: Kept, states: list[AgentState]) -> None:
    batch = [Arrival(1, one.agent_id, encode(one)) for one in states]
    await kept.store.write(1, await kept.store.prepare(batch))


async def page(kept: Kept, cursor: str | None, limit: int) -> HistoryReply:
    asked = HistoryRequest(hours=EVER, limit=limit, cursor=cursor)
    return await kept.store.read(lambda reader: history.history(reader, "a", asked, NOW))


async def pages(kept: Kept, limit: int) -> list[Place]:
    """Every outcome of all pages. A cursor that comes again would never end."""
    found, cursors, cursor = list[Place](), set[str](), None
    while True:
        reply = await page(kept, cursor, limit)
        assert len(reply.pings) <= limit
        found += [(ping.pinged_at, ping.ping_seq) for ping in reply.pings]
        if (cursor := reply.next_cursor) is None:
            return found
        assert cursor not in cursors
        cursors.add(cursor)


def places(states: list[AgentState]) -> list[Place]:
    return sorted(((one.last.pinged_at, one.ping_seq) for one in states), reverse=True)


@pytest.mark.parametrize("limit", [1, 7, 30])
async def test_numbers_that_begin_again_end_no_page_early_and_none_late(kept: Kept, limit: int):
    first, second = (
        series("a", 100, NOW - timedelta(days=3)),
        series("a", 50, NOW - timedelta(days=1)),
    )
    await put(kept, first)
    await put(kept, second)
    assert await pages(kept, limit) == places(first + second)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_outcomes_of_the_same_microsecond_are_on_some_page_each(kept: Kept, limit: int):
    at = NOW - timedelta(hours=2)
    alike = [
        state("a", number, at if number in {3, 4} else at + timedelta(seconds=number - 3.5))
        for number in range(1, 7)
    ]
    await put(kept, alike)
    assert await pages(kept, limit) == places(alike)


@pytest.mark.parametrize("seed", range(5))
async def test_what_comes_in_meanwhile_skips_and_repeats_nothing(kept: Kept, seed: int):
    """Live and archived days, two numberings, equal times, clocks that step back, late outcomes."""
    chance = random.Random(seed)
    moments = [NOW - timedelta(hours=chance.randrange(1, 120)) for _ in range(40)]
    there = [state("a", number, chance.choice(moments)) for number in range(1, 60)]
    await put(kept, there)
    await put(kept, series("a", 10, NOW - timedelta(hours=3)))
    there += series("a", 10, NOW - timedelta(hours=3))
    while await kept.store.archive_next_day(NOW):
        pass
    seen, cursor = list[Place](), None
    for turn in range(1_000):
        reply = await page(kept, cursor, chance.randrange(1, 9))
        seen += [(ping.pinged_at, ping.ping_seq) for ping in reply.pings]
        if (cursor := reply.next_cursor) is None:
            break
        await put(kept, [state("a", 11 + turn, NOW + timedelta(seconds=turn))])
        if turn == 2:
            while await kept.store.archive_next_day(NOW):
                pass
    assert seen == places(there)


async def test_a_page_begins_before_the_moment_that_was_asked_for(kept: Kept):
    """That moment's own outcome is not before it; the next pages go on as always."""
    states = series("a", 40, NOW - timedelta(days=3)) + series("a", 30, NOW - timedelta(days=1))
    await put(kept, states)
    expected = places(states)
    for since in (0, 35, 69):
        asked = HistoryRequest(hours=EVER, limit=3, before=expected[since][0])
        first = await kept.store.read(
            lambda reader, asked=asked: history.history(reader, "a", asked, NOW)
        )
        found = [(ping.pinged_at, ping.ping_seq) for ping in first.pings]
        assert found == expected[since + 1 : since + 4]


async def test_a_file_goes_on_where_a_page_does(kept: Kept):
    states = series("a", 40, NOW - timedelta(days=3)) + series("a", 30, NOW - timedelta(days=1))
    await put(kept, states[:40])
    await put(kept, states[40:])
    while await kept.store.archive_next_day(NOW):
        pass
    cursor = (await page(kept, None, 35)).next_cursor
    for limit in (None, 8):
        asked = ExportRequest(hours=EVER, cursor=cursor, limit=limit)
        text = await kept.file(lambda reader, asked=asked: tables.history(reader, "a", asked, NOW))
        rows = [int(row["ping_seq"]) for row in csv.DictReader(io.StringIO(text.decode()))]
        assert rows == [number for _, number in places(states)[35:][:limit]]


@pytest.mark.parametrize(
    "cursor", ["30", "-1", "1-2\n", "1-2-3", "", "x", "1" * 30 + "-1", "\uff11-1"]
)
def test_what_is_no_cursor_is_refused(cursor: str):
    with pytest.raises(BadMessageError, match="cursor"):
        decode(encode(HistoryRequest(cursor=cursor)), HistoryRequest)


async def test_any_cursor_is_a_place(kept: Kept):
    await put(kept, series("a", 3, NOW - timedelta(days=1)))
    assert len((await page(kept, "9" * 18 + "-" + "9" * 19, 10)).pings) == 3
    assert (await page(kept, "0-0", 10)).pings == ()
