"""The uptime statement against an independent computation from the raw stream, and as files."""

import csv
import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from bus.contract import subjects
from bus.contract.exports import ExportRequest
from bus.contract.messages import AgentState, Enrolment, GpuReport, Incident, Seconds, report_of
from bus.contract.questions import HistoryReply, HistoryRequest
from bus.contract.statements import (
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementRequest,
)
from bus.errors import RefusedError, UnavailableError
from bus.settings import Settings
from bus.transport import file_transfer, micro_services
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer
from storage import service
from tests.history import read_history
from tests.storage_states import caught_up, percent, publish, state

OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
STATES = ("up", "degraded", "down", "unknown", "excused")
Timeline = list[tuple[datetime, datetime, str]]


def life(
    agent_id: str, chance: random.Random, begins: datetime, ends: datetime
) -> list[AgentState]:
    """Returns months of an agent: windows that tile, a GPU that fails now and then, misses."""
    states, at, number = [], begins, 0
    while at < ends:
        number += 1
        hours = chance.uniform(5, 40)
        until = at + timedelta(milliseconds=round(hours * 3_600_000))
        until = until.replace(microsecond=until.microsecond // 1000 * 1000)
        if chance.random() < 0.15:
            states.append(state(agent_id, number, until - timedelta(hours=2), None))
            number += 1
        states.append(answered(agent_id, number, at, until, chance))
        at = until
    return states


def answered(
    agent_id: str, number: int, since: datetime, until: datetime, chance: random.Random
) -> AgentState:
    timeline: Timeline = []
    at = since
    for _ in range(chance.choice([0, 0, 1, 3])):
        start = at + timedelta(milliseconds=chance.randrange(1, 3_000_000))
        end = start + timedelta(milliseconds=chance.randrange(1, 3_000_000))
        timeline.append((start, end, chance.choice(STATES[1:4])))
        at = end
    seconds = spent(timeline, since, until, since, until)
    incidents = tuple(
        Incident(gpu="GPU-A", state=s, reason="test", since=a, until=b) for a, b, s in timeline
    )
    whole = Seconds(up=(until - since).total_seconds())
    gpus = (
        GpuReport(
            uuid="GPU-A",
            index=0,
            name="H100",
            state="up",
            uptime_percent=percent(seconds),
            seconds=seconds,
        ),
        GpuReport(
            uuid="GPU-B", index=1, name="H100", state="up", uptime_percent=100.0, seconds=whole
        ),
    )
    return state(
        agent_id,
        number,
        until - timedelta(milliseconds=5),
        seconds,
        gpus=gpus,
        incidents=incidents,
        until=until,
    )


def spent(
    timeline: Timeline, since: datetime, until: datetime, begins: datetime, ends: datetime
) -> Seconds:
    """Returns seconds by state within `[begins, ends)`; shares no code with storage."""
    begins, ends = max(begins, since), min(ends, until)
    sums = dict.fromkeys(STATES, 0.0)
    for start, end, name in timeline:
        sums[name] += max(0.0, (min(end, ends) - max(start, begins)).total_seconds())
    sums["up"] = (ends - begins).total_seconds() - sum(sums.values())
    return Seconds(**{name: round(value, 3) for name, value in sums.items()})


def independently(states: list[AgentState], begins: datetime, ends: datetime) -> dict[str, int]:
    """The month's milliseconds from the raw reports of the stream."""
    sums = dict.fromkeys(STATES, 0)
    for one in states:
        report = report_of(one.last)
        if report is None or report.window.until <= begins or report.window.since >= ends:
            continue
        window = report.window
        timeline = [(i.since, i.until or window.until, i.state) for i in report.incidents]
        part = spent(timeline, window.since, window.until, begins, ends)
        for name in STATES:
            sums[name] += round(getattr(part, name) * 1000)
    return sums


async def ask(bus: Client, agent_id: str, month: str = "2026-10", **more) -> Statement:
    request = StatementRequest(month=month, **more)
    return await micro_services.ask(
        bus, subjects.statement(agent_id), request, Statement, who="storage"
    )


async def fetch(bus: Client, offer: FileOffer) -> bytes:
    return b"".join([piece async for piece in file_transfer.receive(bus, offer, timeout=30.0)])


async def test_monthly_sums_equal_an_independent_computation(bus: Client, base_settings: Settings):
    chance = random.Random(7)
    lives = [
        life(
            f"agent-{n}",
            chance,
            datetime(2026, 9, 28, 5, tzinfo=UTC),
            datetime(2026, 11, 2, tzinfo=UTC),
        )
        for n in range(4)
    ]
    by_number = [one for batch in zip(*lives, strict=False) for one in batch]
    shortest = min(len(one) for one in lives)
    by_number += [one for single in lives for one in single[shortest:]]
    async with service.running(base_settings):
        await publish(bus, by_number)
        await caught_up(bus, len(by_number))
        history = await read_history(bus)
        for agent_id, states in history.items():
            made = await ask(bus, agent_id)
            expected = independently(states, OCTOBER, NOVEMBER)
            found = {name: round(getattr(made.host.seconds, name) * 1000) for name in STATES}
            assert found == expected
            assert (
                sum(found.values()) == 31 * 86_400_000
            )  # windows tile: not a millisecond lost or doubled
            assert made.host.unreported_seconds == 0
            assert made.host.coverage_percent == 100.0
            assert made.final
            assert {split.method for split in made.splits} == {"exact"}
            gpus = {gpu.uuid: gpu for gpu in made.gpus}
            assert gpus["GPU-A"].seconds == made.host.seconds
            assert gpus["GPU-B"].uptime_percent == 100.0


async def test_a_partial_first_month_and_time_that_nobody_reported(
    bus: Client, base_settings: Settings
):
    enrolled = datetime(2026, 10, 20, tzinfo=UTC)
    first = enrolled + timedelta(days=1)
    last = enrolled + timedelta(days=3)
    day = Seconds(up=86_400.0)
    states = [
        state("new", 1, first, day, until=first, verdict="first"),
        state("new", 2, enrolled + timedelta(days=2), None),
        state("new", 3, last, Seconds(up=0.0, unknown=100.0, excused=172_700.0), until=last),
    ]
    async with service.running(base_settings):
        await publish(bus, states)
        await caught_up(bus, 3)
        made = await ask(bus, "new")
        told = await ask(
            bus, "new", enrolments=(Enrolment(enrolled, enrolled + timedelta(days=3)),)
        )
    assert made.enrolled_seconds == 12 * 86_400
    assert made.host.unreported_seconds == 9 * 86_400
    assert made.host.uptime_percent == pytest.approx(100 * 86_400 / (12 * 86_400 - 172_700))
    assert told.host.uptime_percent == pytest.approx(100 * 86_400 / (86_400 + 100))
    assert (made.pings, made.missed) == (3, 1)
    assert sum(getattr(made.host.seconds, name) for name in STATES) == 3 * 86_400


async def test_nothing_left_to_judge_is_no_value(bus: Client, base_settings: Settings):
    at = datetime(2026, 10, 10, tzinfo=UTC)
    async with service.running(base_settings):
        await publish(bus, [state("x", 1, at, Seconds(up=0.0, excused=3600.0), until=at)])
        await caught_up(bus, 1)
        made = await ask(bus, "x", enrolments=(Enrolment(at - timedelta(hours=1), at),))
        assert made.host.uptime_percent is None
        assert made.host.coverage_percent == 100.0
        with pytest.raises(RefusedError, match="no history") as refused:
            await ask(bus, "nobody")
        assert refused.value.code == 404
        with pytest.raises(RefusedError, match="has not begun"):
            await ask(bus, "x", month="2199-01")
        with pytest.raises(RefusedError, match="month"):
            await micro_services.ask(
                bus, subjects.statement("x"), ExportRequest(), Statement, who="storage"
            )


async def test_the_same_month_under_other_rules(bus: Client, base_settings: Settings):
    begins = datetime(2026, 10, 1, tzinfo=UTC)
    states = []
    for number in range(1, 32):
        until = begins + timedelta(days=number)
        down = 86_400 * 0.015 if number % 2 else 0.0
        states.append(state("a", number, until, Seconds(up=86_400 - down, down=down), until=until))
    async with service.running(base_settings):
        await publish(bus, states)
        await caught_up(bus, 31)
        assert (await ask(bus, "a")).replay is None
        softer = (await ask(bus, "a", threshold=98.0)).replay
        livepeer = (await ask(bus, "a", policy="livepeer")).replay
        runpod = (await ask(bus, "a", policy="runpod")).replay
        own = 'name = "half"\n[[bands]]\nat_least = 50.0\nrate = 0.5\n'
        half = (await ask(bus, "a", policy=own)).replay
        for bad in (
            "unknown",
            'name = "x"\nbands = []\n',
            'name = "x"\ntypo = 1\n[[bands]]\nat_least = 1.0\nrate = 1.0\n',
        ):
            with pytest.raises(RefusedError, match="polic"):
                await ask(bus, "a", policy=bad)
    assert softer
    assert (softer.now.good_pings, softer.then.good_pings) == (
        15,
        30,
    )  # the last ping is November's, its window is not
    assert softer.now.paid_percent == pytest.approx(100 * 15 / 31)
    assert softer.then.paid_percent == 100.0
    assert softer.change == "gains"
    assert livepeer
    assert livepeer.then.paid_percent == pytest.approx(100 * (15 + 0.5 * 16) / 31)
    assert runpod
    downtime = 16 * 86_400 * 0.015
    assert runpod.then.uptime_percent == pytest.approx(
        100 * (31 * 86_400 - downtime + 600) / (31 * 86_400)
    )
    assert runpod.then.in_pool
    assert runpod.then.paid_percent == 100.0
    assert half
    assert half.then.paid_percent == 50.0


async def test_who_in_the_fleet_gains_and_who_loses(bus: Client, base_settings: Settings):
    at = datetime(2026, 10, 10, tzinfo=UTC)
    half, most = Seconds(up=500.0, down=500.0), Seconds(up=985.0, down=15.0)
    states = [
        state("best", 1, at, Seconds(up=1000.0)),
        state("most", 1, at, most),
        state("half", 1, at, half),
    ]
    async with service.running(base_settings):
        await publish(bus, states)
        await caught_up(bus, 3)
        asked = FleetReplayRequest(month="2026-10", threshold=98.0)
        made = await micro_services.ask(bus, subjects.REPLAY, asked, FleetReplay, who="storage")
        strict = FleetReplayRequest(month="2026-10", threshold=100.0, policy="livepeer")
        livepeer = await micro_services.ask(
            bus, subjects.REPLAY, strict, FleetReplay, who="storage"
        )
    assert (made.gains, made.loses, made.same) == (1, 0, 2)
    assert (made.agents[0].agent_id, made.agents[0].change_percent) == ("most", 100.0)
    assert {one.agent_id: one.then_paid_percent for one in livepeer.agents} == {
        "best": 100.0,
        "most": 50.0,
        "half": 0.0,
    }


async def test_every_format_says_the_same(bus: Client, base_settings: Settings, tmp_path: Path):
    chance = random.Random(3)
    states = life("a", chance, datetime(2026, 9, 30, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
    async with service.running(base_settings) as storage:
        await publish(bus, states)
        await caught_up(bus, len(states))
        made = await ask(bus, "a", policy="livepeer")
        files = {}
        for form in ("csv", "parquet", "html"):
            request = StatementRequest(month="2026-10", format=form, policy="livepeer")
            offer = await micro_services.ask(
                bus, subjects.statement("a"), request, FileOffer, who="storage"
            )
            assert offer.name == f"a-2026-10.{form}"
            files[form] = await fetch(bus, offer)
        assert not list(storage.store.paths.scratch.glob("export-*"))  # fetched, and gone
    rows = list(csv.DictReader(io.StringIO(files["csv"].decode())))
    assert [row["subject"] for row in rows] == ["host", "GPU-A", "GPU-B"]
    assert float(rows[0]["down_seconds"]) == made.host.seconds.down
    (tmp_path / "s.parquet").write_bytes(files["parquet"])
    found = duckdb.sql(
        f"SELECT subject, up_seconds, uptime_percent FROM '{tmp_path}/s.parquet'"  # noqa: S608
    ).fetchall()
    assert found[0] == ("host", made.host.seconds.up, made.host.uptime_percent)
    page = files["html"].decode()
    assert "GPU-B" in page
    assert "Livepeer job rate" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


@pytest.mark.slow
async def test_history_exports_come_whole_in_small_pieces(
    bus: Client, base_settings: Settings, tmp_path: Path
):
    begins = datetime(2026, 10, 1, tzinfo=UTC)
    states = [state(f"a{n}", 1, begins) for n in range(3)]
    states += [state("a0", n, begins + timedelta(minutes=n)) for n in range(2, 40)]
    async with service.running(base_settings):
        await publish(bus, states)
        await caught_up(bus, len(states))
        request = ExportRequest(hours=80_000.0, format="csv")
        offer = await micro_services.ask(
            bus, subjects.export("a0"), request, FileOffer, who="storage"
        )
        text = (await fetch(bus, offer)).decode()
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [int(row["ping_seq"]) for row in rows] == list(range(39, 0, -1))
        assert rows[-1]["pinged_at"] == "2026-10-01T00:00:00.000000Z"
        assert rows[0]["up_seconds"] == "900.0"
        with pytest.raises(UnavailableError, match="ended at byte 0"):
            await fetch(bus, offer)  # once only
        page = HistoryRequest(hours=80_000.0, limit=10)
        before = await micro_services.ask(
            bus, subjects.history("a0"), page, HistoryReply, who="storage"
        )
        some = ExportRequest(hours=80_000.0, format="csv", limit=3, cursor=before.next_cursor)
        offer = await micro_services.ask(bus, subjects.export("a0"), some, FileOffer, who="storage")
        few = csv.DictReader(io.StringIO((await fetch(bus, offer)).decode()))
        assert [row["ping_seq"] for row in few] == ["29", "28", "27"]
        parquet = await micro_services.ask(
            bus,
            subjects.export("a0"),
            ExportRequest(hours=80_000.0, format="parquet"),
            FileOffer,
            who="storage",
        )
        (tmp_path / "h.parquet").write_bytes(await fetch(bus, parquet))
        count = duckdb.sql(
            f"SELECT count(*), sum(up_seconds) FROM '{tmp_path}/h.parquet'"  # noqa: S608
        ).fetchall()
        assert count == [(39, 39 * 900.0)]
