"""Tables of history as files: equal however the rows are kept, safe to open, errors told apart."""

import csv
import io
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from bus.contract import subjects
from bus.contract.exports import TABLES, ExportRequest, TableRequest
from bus.contract.messages import GpuReport, Incident, Seconds
from bus.contract.statements import FleetReplayRequest, StatementRequest
from bus.errors import RefusedError
from bus.settings import Settings, load
from bus.transport import micro_services
from bus.transport.connection import Client
from storage import service
from storage.answers import tables
from storage.answers.latencies import EXACT_PINGS
from storage.engine import table_files
from storage.engine.database import rows_of
from storage.statements import build, replay
from storage.store.store import Reader
from tests.storage_kept import MONTH, NOW, OCTOBER, Kept, fleet
from tests.storage_states import AgentState, state

EVIL = '=HYPERLINK("//evil","x")'


@pytest.fixture
async def kept(tmp_path: Path):
    made = Kept(load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_ARCHIVE_AFTER_DAYS=5))
    yield made
    await made.store.close()


def uptime(states: list[AgentState]) -> float:
    good = sum(
        one.last.seconds.up + one.last.seconds.degraded for one in states if one.last.seconds
    )
    lost = sum(
        one.last.seconds.down + one.last.seconds.unknown for one in states if one.last.seconds
    )
    return 100 * good / (good + lost)


async def test_tables_say_what_the_outcomes_say(kept: Kept):
    states = fleet()
    await kept.fill(states)
    rows = await kept.table("agents")
    assert [row["agent_id"] for row in rows] == [f"agent-{n}" for n in range(4)]
    for row in rows:
        own = [one for one in states if one.agent_id == row["agent_id"]]
        assert int(row["pings"]) == len(own)
        assert int(row["missed"]) == sum(one.last.outcome == "missed" for one in own)
        assert int(row["poor"]) == sum(one.last.verdict == "poor" for one in own)
        assert float(row["uptime_percent"]) == pytest.approx(uptime(own), abs=1e-9)
    whole, *none = await kept.table("fleet")
    assert not none
    assert float(whole["uptime_percent"]) == pytest.approx(uptime(states), abs=1e-9)
    assert (whole["since"], whole["until"]) == (
        "2026-10-01T00:00:00.000000Z",
        "2026-11-01T00:00:00.000000Z",
    )
    days = await kept.table("fleet", by="day")
    assert sum(int(row["pings"]) for row in days) == len(states)
    assert days[1]["since"] == "2026-10-02T00:00:00.000000Z"
    outcomes = await kept.table("history")
    assert sorted((row["agent_id"], int(row["ping_seq"])) for row in outcomes) == sorted(
        (one.agent_id, one.ping_seq) for one in states
    )
    board = await kept.table("dashboard")
    newest = {one.agent_id: one for one in states}  # the last one wins
    assert {row["agent_id"]: row["outcome"] for row in board} == {
        a: one.last.outcome for a, one in newest.items()
    }
    own = await kept.table("history", agent_id="agent-2")
    assert [int(row["ping_seq"]) for row in own] == list(range(200, 0, -1))


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def test_percentiles_are_exact_for_few_pings(kept: Kept):
    states = fleet()
    await kept.fill(states)
    took = [one.last.response_ms for one in states if one.last.response_ms is not None]
    (exact,) = await kept.table("response-times")
    assert int(exact["pings"]) == len(took)
    assert float(exact["p50_ms"]) == pytest.approx(quantile(took, 0.5), abs=0.02)
    assert len(await kept.table("response-times", by="agent")) == 4
    late = await kept.table("lateness", by="hour")
    assert all(float(row["p99_ms"]) == 12.5 for row in late)
    assert sum(int(row["pings"]) for row in late) == len(states)


async def test_percentiles_of_many_pings_are_within_one_percent(kept: Kept):
    chance = random.Random(9)
    states = [
        state(
            f"agent-{a:02}",
            n,
            OCTOBER + timedelta(minutes=15 * n),
            response_ms=chance.lognormvariate(1, 1),
        )
        for n in range(1, 2601)
        for a in range(20)
    ]
    await kept.fill(states)
    assert len(states) > EXACT_PINGS
    while await kept.store.seal(NOW):
        pass
    for asked in ({}, {"agent_id": "agent-07"}):
        took = [
            one.last.response_ms
            for one in states
            if one.agent_id == asked.get("agent_id", one.agent_id)
        ]
        (row,) = await kept.table("response-times", **asked)
        assert int(row["pings"]) == len(took)
        for share in (50, 95, 99):
            assert float(row[f"p{share}_ms"]) == pytest.approx(
                quantile(took, share / 100), rel=0.02
            )
    days = await kept.table("response-times", by="day")
    assert sum(int(row["pings"]) for row in days) == len(states)
    by_agent = await kept.table("lateness", by="agent")
    assert {row["agent_id"]: row["pings"] for row in by_agent} == {
        f"agent-{a:02}": "2600" for a in range(20)
    }
    assert all(float(row["p50_ms"]) == pytest.approx(12.5, rel=0.01) for row in by_agent)


async def test_sealed_and_archived_days_change_nothing(kept: Kept):
    await kept.fill(fleet())
    asked: list[dict[str, Any]] = [{"table": table} for table in TABLES]
    asked += [
        {"table": "fleet", "by": "day"},
        {"table": "agents", "agent_id": "agent-1"},
        {"table": "fleet", "by": "hour"},
    ]
    asked += [
        {"table": "agents", "month": None, "hours": 500.0},
        {"table": "fleet", "month": None, "hours": 700.5},
    ]
    before = [sorted(map(str, await kept.table(**one))) for one in asked]
    while await kept.store.seal(NOW):
        pass
    while await kept.store.archive_next_day(NOW):
        pass
    assert await kept.store.read(lambda reader: len(reader.partitions.days)) > 5
    for one, rows in zip(asked, before, strict=True):
        assert sorted(map(str, await kept.table(**one))) == rows, one


async def test_incidents_are_told_once_with_their_end(kept: Kept):
    """Reports label one beginning a little differently; a later incident is another one."""
    at = OCTOBER + timedelta(days=3)

    def told(number: int, *incidents: tuple[timedelta, timedelta | None]) -> AgentState:
        lost = tuple(
            Incident(
                gpu="GPU-x",
                state="down",
                reason="lost",
                since=at + a,
                until=None if b is None else at + b,
            )
            for a, b in incidents
        )
        return state(
            "a", number, at + timedelta(minutes=15 * number), Seconds(up=900.0), incidents=lost
        )

    minute, tick = timedelta(minutes=1), timedelta(milliseconds=1)
    states = [
        told(1, (10 * minute, None)),
        told(2, (10 * minute + tick, None)),
        told(
            3,
            (10 * minute - tick, 40 * minute),
            (40 * minute + tick, 41 * minute),
            (42 * minute, None),
        ),
        told(4, (42 * minute + tick, None)),
    ]
    await kept.fill([*states, state("b", 1, at, None)])
    rows = await kept.table("incidents")
    assert [(row["agent_id"], row["gpu"], row["seconds"]) for row in rows] == [
        ("a", "GPU-x", "1800.0"),
        ("a", "GPU-x", "59.999"),
        ("a", "GPU-x", ""),
    ]
    assert rows[0]["until"] == "2026-10-04T00:40:00.000000Z"
    assert not await kept.table("incidents", agent_id="b")
    asked = StatementRequest(month=MONTH)
    made = await kept.store.read(lambda reader: build.statement(reader, "a", asked, NOW, 99.0))
    assert [(one.since - at, one.until and one.until - at) for one in made.incidents] == [
        (10 * minute, 40 * minute),
        (40 * minute + tick, 41 * minute),
        (42 * minute, None),
    ]


async def test_text_of_strangers_is_no_formula_and_no_command_to_a_terminal(kept: Kept):
    at = OCTOBER + timedelta(days=3)
    half = Seconds(up=450.0, down=450.0)
    gpu = GpuReport(uuid="-GPU", index=0, name=EVIL, state="down", reasons=("@x",), seconds=half)
    incident = Incident(
        gpu="-GPU", state="down", reason='=1+1,"\n\x1b[2J\u202e\x9b1m', since=at, until=None
    )
    await kept.fill([state("a", 1, at, half, gpus=(gpu,), incidents=(incident,))])
    (row,) = await kept.table("incidents")
    assert (row["gpu"], row["reason"]) == ("'-GPU", "'=1+1,\"�" + "�[2J��1m")
    request = StatementRequest(month=MONTH)

    def sums(reader: Reader) -> table_files.TableQuery:
        return tables.statement(build.statement(reader, "a", request, NOW, 99.0))

    _, shown = csv.DictReader(io.StringIO((await kept.file(sums)).decode()))
    assert (shown["subject"], shown["gpu_name"]) == ("'-GPU", f"'{EVIL}")
    assert float(shown["down_seconds"]) == 450.0

    def loses(reader: Reader) -> table_files.TableQuery:
        asked = FleetReplayRequest(
            month=MONTH, policy='name = "+all"\n[[bands]]\nat_least = 60.0\nrate = 1.0\n'
        )
        return tables.replay(replay.fleet(reader, asked, NOW, 10.0))

    (row,) = csv.DictReader(io.StringIO((await kept.file(loses)).decode()))
    assert (row["then"], row["change_percent"]) == ("'+all", "-100.0")  # numbers stay numbers
    file = kept.store.paths.folder / "s.parquet"
    file.write_bytes(await kept.file(sums, "parquet"))
    names = duckdb.read_parquet(str(file)).project("gpu_name").fetchall()
    assert names == [("",), (EVIL,)]  # as it is


def outcomes_of(agent_id: str, reader: Reader) -> table_files.TableQuery:
    return tables.history(reader, agent_id, ExportRequest(hours=10_000.0, registered=True), NOW)


async def test_a_file_of_an_agent_that_was_never_pinged_has_columns(kept: Kept):
    await kept.fill(fleet(agents=1, pings=3))
    columns = []
    for name in ("agent-0", "new"):
        file = kept.store.paths.folder / f"{name}.parquet"
        file.write_bytes(await kept.file(partial(outcomes_of, name), "parquet"))
        found = duckdb.read_parquet(str(file))
        columns.append(list(zip(found.columns, map(str, found.types), strict=True)))
    assert columns[0] == columns[1]
    assert ("pinged_at", "TIMESTAMP WITH TIME ZONE") in columns[0]
    with pytest.raises(RefusedError, match="no history of agent new"):
        await kept.file(lambda r: tables.history(r, "new", ExportRequest(), NOW))
    for bad in ({"table": "fleet", "by": "agent"}, {"table": "agents", "month": "2199-01"}):
        with pytest.raises(RefusedError) as refused:
            await kept.table(**bad)
        assert refused.value.code == 400


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses larger files, which to a program is the same as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_without_room_is_refused_and_harms_nothing(kept: Kept):
    await kept.fill(fleet(pings=400))
    scratch = kept.store.paths.scratch

    def write(reader: Reader) -> None:
        question = tables.table(reader, TableRequest(table="history", month=MONTH), NOW)
        with largest_file(50_000):
            table_files.write(reader.cursor, scratch, question, "x", "csv")

    with pytest.raises(RefusedError, match="no room") as refused:
        await kept.store.read(write)
    assert refused.value.code == 507
    assert kept.store.waiting is None
    assert not list(scratch.glob("*"))
    assert await kept.store.read(lambda r: rows_of(r.cursor, "SELECT count(*) FROM pings")) == [
        (1600,)
    ]


async def test_what_a_killed_storage_left_in_its_scratch_folder_is_swept(
    bus: Client, base_settings: Settings
):
    settings = msgspec.structs.replace(base_settings, STORAGE_NAME="swept")
    async with service.running(settings) as storage:
        scratch = storage.store.paths.scratch
    for name in ("export-1.csv", "tmp_export-2.parquet"):
        (scratch / name).touch()
    async with service.running(settings):
        assert not list(scratch.glob("*export*"))


@pytest.mark.parametrize("limit", [0, 2**31, 2**63, 2**200])
async def test_a_limit_that_no_table_reaches_is_refused_in_plain_words(
    bus: Client, base_settings: Settings, limit: int
):
    async with service.running(base_settings):
        with pytest.raises(RefusedError, match="limit") as refused:
            await micro_services.ask_raw(
                bus, subjects.export("a"), b'{"limit":%d}' % limit, who="storage"
            )
    assert refused.value.code == 400
    assert "SELECT" not in refused.value.detail
