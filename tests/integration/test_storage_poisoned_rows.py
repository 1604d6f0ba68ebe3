"""Rows that versions before admission kept and that cannot be: no aggregate ends by them, and they
are named.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from msgspec import structs

from bus.contract.exports import TableRequest
from bus.contract.fleet_map import FleetUptimesRequest
from bus.contract.messages import AgentState, Incident, Seconds, decode, encode
from bus.contract.questions import (
    HistoryRequest,
    OverviewReply,
    OverviewRequest,
    StoredHistory,
    UptimesReply,
    UptimesRequest,
)
from bus.contract.statements import FleetReplay, FleetReplayRequest, Statement, StatementRequest
from bus.settings import load
from storage.answers import history
from storage.statements import build, page, replay
from tests.storage_kept import MONTH, NOW, OCTOBER, Kept
from tests.storage_states import state

LONGEST = Seconds(up=4_294_967_296.0)
HOUR = timedelta(hours=1)
EVER = 87_600.0


@pytest.fixture
async def kept(tmp_path: Path):
    made = Kept(load({}, GPUPING_DATA_DIR=str(tmp_path)))
    incident = Incident(
        gpu=None,
        state="down",
        reason="lost",
        since=datetime(1970, 1, 1, tzinfo=UTC),
        until=datetime(9998, 12, 31, tzinfo=UTC),
    )
    label = datetime(9998, 12, 31, tzinfo=UTC)
    await made.fill(
        [
            state("good", 1, OCTOBER + HOUR),
            liar(1, OCTOBER + 2 * HOUR),
            liar(2, OCTOBER + 3 * HOUR),
            state("liar", 3, OCTOBER + 4 * HOUR),
            state("odd", 1, OCTOBER + 5 * HOUR, until=label, incidents=(incident,)),
            state("later", 1, NOW),
        ]
    )
    while await made.store.seal(NOW):
        pass
    yield made
    await made.store.close()


def liar(number: int, at: datetime) -> AgentState:
    """136 years, in a report whose label says a quarter of an hour."""
    one = state("liar", number, at)
    last = structs.replace(one.last, seconds=LONGEST, window_seconds=LONGEST.up)
    return structs.replace(one, last=last)


async def test_fleet_replay(kept: Kept):
    asked = FleetReplayRequest(month=MONTH, policy="livepeer")
    made = await kept.store.read(lambda reader: replay.fleet(reader, asked, NOW, 99.0))
    made = decode(encode(made), FleetReplay)
    covered = {one.agent_id: one.covered_seconds for one in made.agents}
    assert covered == {"good": 900.0, "liar": 900.0, "odd": 900.0}
    assert [(one.agent_id, one.ping_seq) for one in made.left_out] == [("liar", 1), ("liar", 2)]


async def test_history_and_uptimes(kept: Kept):
    asked = HistoryRequest(hours=EVER)
    made = await kept.store.read(lambda reader: history.history(reader, "liar", asked, NOW))
    made = decode(encode(made), StoredHistory)
    assert made.summary.seconds.up == 900.0
    assert made.summary.pings == 3
    ask = UptimesRequest(agent_ids=("liar", "odd"), hours=EVER)
    found = await kept.store.read(lambda reader: history.uptimes(reader, ask, NOW))
    found = decode(encode(found), UptimesReply)
    assert found.judged_seconds == {"liar": 900.0, "odd": 900.0}
    everyone = FleetUptimesRequest(hours=EVER)
    packed = await kept.store.read(lambda reader: history.fleet_uptimes(reader, everyone, NOW))
    assert {"liar", "odd"} <= set(packed.agent_ids)


async def test_dashboard(kept: Kept):
    asked = OverviewRequest(hours=EVER)
    made = await kept.store.read(lambda reader: history.overview(reader, asked, NOW))
    made = decode(encode(made), OverviewReply)
    assert made.seconds.up == 4 * 900.0
    rows = await kept.table("dashboard")
    assert {row["agent_id"] for row in rows} == {"good", "liar", "odd"}


@pytest.mark.parametrize("agent_id", ["liar", "odd"])
async def test_statement(kept: Kept, agent_id: str):
    asked = StatementRequest(month=MONTH, threshold=95.0)
    made = await kept.store.read(lambda reader: build.statement(reader, agent_id, asked, NOW, 99.0))
    made = decode(encode(made), Statement)
    assert made.host.seconds.up == 900.0
    left_out = [one.ping_seq for one in made.left_out]
    assert left_out == ([1, 2] if agent_id == "liar" else [])
    text = page.render(made)
    assert ("cannot be accounted for" in text) == bool(left_out)


@pytest.mark.parametrize("table", ["agents", "fleet", "incidents", "history"])
async def test_tables(kept: Kept, table: str):
    request = TableRequest(table=table, month=MONTH)
    assert await kept.table(request.table)


async def test_sums_of_before_are_made_again_where_the_rows_are_archived(tmp_path: Path):
    """A file of schema 2 has sums with windows that cannot be; their rows may be in the archive."""
    settings = load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=5)
    before = Kept(settings)
    await before.fill(
        [
            state("good", 1, OCTOBER + HOUR),
            liar(1, OCTOBER + 2 * HOUR),
            state("later", 1, NOW),
        ]
    )
    while await before.store.seal(NOW):
        pass
    while await before.store.archive_next_day(NOW):
        pass
    await before.store.close()
    with duckdb.connect(str(before.store.paths.file)) as file:
        assert file.execute("SELECT count(*) FROM pings").fetchone() == (1,)
        for column in ("remarks", "enrolled_us"):
            file.execute(f"ALTER TABLE pings DROP COLUMN {column}")
        for rollup in ("agent_days", "fleet_hours"):
            file.execute(f"UPDATE {rollup} SET up_ms = up_ms + 4294967296000")  # noqa: S608
        file.execute("UPDATE about SET schema_version = 2")
    after = Kept(settings)
    await after.store.open(NOW)
    asked = OverviewRequest(hours=EVER)
    for is_sealed in (False, True):
        while is_sealed and await after.store.seal(NOW):
            pass
        made = await after.store.read(lambda reader: history.overview(reader, asked, NOW))
        assert made.seconds.up == 2 * 900.0, is_sealed
        (row,) = await after.table("fleet")
        assert float(row["up_seconds"]) == 900.0
    await after.store.close()
