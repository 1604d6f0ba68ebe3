"""The statement of hosts that come and go, whose clocks are wrong, whose GPUs are replaced."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from rich.console import Console

from bus.contract.messages import Enrolment, GpuReport, Incident, Seconds, encode
from bus.contract.remarks import TWO_UNDER_ONE_ID
from bus.contract.statements import (
    FleetReplayRequest,
    Statement,
    StatementRequest,
)
from bus.errors import RefusedError
from bus.settings import load
from gpuping.output.statements import statement_table
from storage.archive import day_folders
from storage.engine.rows import Arrival, microseconds
from storage.statements import build, page, replay
from storage.store.store import Store
from tests.storage_kept import patient
from tests.storage_states import AgentState, state

OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 12, 20, tzinfo=UTC)
DAY = timedelta(days=1)
FULL = Seconds(up=86_400.0)


class Kept:
    """A store, what is put into it, and statements out of it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(patient(folder))
        self._sequence = 0

    async def put(self, states: list[AgentState]) -> None:
        batch = [
            Arrival(self._sequence + i, one.agent_id, encode(one))
            for i, one in enumerate(states, 1)
        ]
        self._sequence += len(batch)
        await self.store.write(1, await self.store.prepare(batch))

    async def statement(
        self, agent_id: str, month: str = "2026-10", now: datetime = NOW, **asked
    ) -> Statement:
        request = StatementRequest(month=month, **asked)
        return await self.store.read(
            lambda reader: build.statement(reader, agent_id, request, now, 99.0)
        )


@pytest.fixture
async def kept(tmp_path: Path):
    made = Kept(tmp_path)
    await made.store.open(NOW)
    yield made
    await made.store.close()


def days(
    agent_id: str,
    since: datetime,
    count: int,
    *,
    first: int = 1,
    ahead: timedelta = timedelta(0),
    **about,
):
    """A window a day, all of it up, by a host whose clock is so far ahead."""
    pinged = [since + DAY * n for n in range(1, count + 1)]
    return [
        state(agent_id, n, at, FULL, until=at + ahead, **about)
        for n, at in enumerate(pinged, first)
    ]


async def test_a_month_survives_that_the_host_is_removed_and_registered_again(kept: Kept):
    await kept.put(days("a", datetime(2026, 9, 1, tzinfo=UTC), 70))
    again = datetime(2026, 11, 25, tzinfo=UTC)
    await kept.put(days("a", again, 10, first=71))
    enrolments = (Enrolment(datetime(2026, 9, 1, tzinfo=UTC), again - DAY), Enrolment(again))
    for known in (
        enrolments,
        enrolments[1:],
        (),
    ):  # known, after a lost registry, and asked by hand
        october = await kept.statement("a", enrolments=known)
        assert (october.enrolled_seconds, october.host.uptime_percent) == (31 * 86_400, 100.0)
        assert october.final
    november = await kept.statement("a", "2026-11", enrolments=enrolments)
    assert [(one.since.day, one.until.day) for one in november.enrolled] == [(1, 10), (25, 1)]
    assert november.enrolled_seconds == (9 + 6) * 86_400
    assert november.host.uptime_percent == 100.0
    assert "removed and registered again" in page.render(november)


async def test_a_host_that_retired_is_enrolled_up_to_its_last_outcome(kept: Kept):
    began = datetime(2026, 9, 1, tzinfo=UTC)
    await kept.put([*days("gone", began, 39), *days("other", began, 120)])  # up to 10 October
    enrolments = (Enrolment(began, datetime(2026, 10, 10, 5, tzinfo=UTC)),)
    october = await kept.statement("gone", enrolments=enrolments)
    assert (october.enrolled_seconds, october.host.unreported_seconds) == (9 * 86_400, 0)
    assert october.host.uptime_percent == 100.0
    assert october.final
    november = await kept.statement("gone", "2026-11", enrolments=enrolments)
    assert (november.enrolled_seconds, november.host.uptime_percent, november.enrolled) == (
        0,
        None,
        (),
    )
    assert november.final
    assert "Uptime statement, November 2026" in page.render(november)


@pytest.mark.parametrize(
    "ahead", [timedelta(days=-16_000), timedelta(days=3), timedelta(hours=-1)], ids=str
)
async def test_a_host_s_clock_does_not_decide_what_counts(kept: Kept, ahead: timedelta):
    began = datetime(2026, 9, 1, tzinfo=UTC)
    told = began + DAY * 40 + ahead
    incident = Incident(gpu="G", state="degraded", reason="test", since=told - DAY / 2, until=told)
    await kept.put(days("a", began, 40, ahead=ahead))
    await kept.put(days("a", began + DAY * 40, 1, first=41, ahead=ahead, incidents=(incident,)))
    await kept.put(days("a", began + DAY * 41, 40, first=42))  # and then it is set right
    for month, length in (("2026-09", 30), ("2026-10", 31)):
        made = await kept.statement("a", month, enrolments=(Enrolment(began),))
        assert (made.host.seconds.up, made.host.unreported_seconds) == (length * 86_400, 0), month
        assert made.host.uptime_percent == 100.0
    assert [one.since for one in made.incidents] == [told - ahead - DAY / 2]


async def test_an_hour_that_nobody_reported_is_not_hidden_by_a_clock_that_is_set_back(kept: Kept):
    began, hour = datetime(2026, 10, 1, tzinfo=UTC), timedelta(hours=1)
    await kept.put(days("a", began, 10, ahead=hour))
    await kept.put(days("a", began + DAY * 10 + hour, 25, first=11))
    made = await kept.statement("a", enrolments=(Enrolment(began),))
    assert made.host.unreported_seconds == 3600
    assert made.host.uptime_percent == pytest.approx(100 * (31 - 1 / 24) / 31)


async def test_final_is_said_only_of_what_no_report_to_come_can_change(kept: Kept):
    enrolled = (Enrolment(OCTOBER),)
    await kept.put(days("cut", OCTOBER, 28))
    await kept.put(days("other", OCTOBER, 20))
    assert not (
        await kept.statement("other", now=NOVEMBER + DAY * 20, enrolments=enrolled)
    ).final  # ingest lags
    await kept.put(days("other", OCTOBER + DAY * 20, 20, first=21))
    assert (await kept.statement("other", now=NOVEMBER + DAY * 20, enrolments=enrolled)).final
    early = await kept.statement("cut", now=NOVEMBER + DAY * 4, enrolments=enrolled)
    assert (early.final, early.host.unreported_seconds) == (False, 3 * 86_400)
    back = OCTOBER + DAY * 36
    await kept.put([state("cut", 29, back, Seconds(up=8 * 86_400.0), until=back)])
    late = await kept.statement("cut", now=NOVEMBER + DAY * 6, enrolments=enrolled)
    assert (late.final, late.host.uptime_percent) == (True, 100.0)
    await kept.put(days("dead", OCTOBER, 5))
    assert not (
        await kept.statement("dead", now=NOVEMBER + DAY * 50, enrolments=enrolled)
    ).final  # ingest lags
    await kept.put([state("other", 41, NOVEMBER + DAY * 40)])
    assert (await kept.statement("dead", now=NOVEMBER + DAY * 50, enrolments=enrolled)).final
    ahead = await kept.statement("other", now=NOVEMBER - DAY, enrolments=enrolled)
    assert not ahead.final  # the month still runs, whatever a host's clock says


async def test_a_host_removed_after_the_month_is_final_once_its_last_answer_is_taken_in(kept: Kept):
    removed = NOVEMBER + DAY * 4 + timedelta(hours=10)
    enrolled = (Enrolment(OCTOBER, removed),)
    await kept.put([*days("cut", OCTOBER, 27), *days("other", OCTOBER, 33)])
    early = await kept.statement("cut", now=removed + DAY, enrolments=enrolled)
    assert (early.final, early.host.unreported_seconds) == (False, 0)
    back = OCTOBER + DAY * 34
    await kept.put(
        [state("cut", 28, back, Seconds(up=4 * 86_400.0, down=3 * 86_400.0), until=back)]
    )
    assert (await kept.statement("cut", now=removed + DAY, enrolments=enrolled)).final


async def test_an_outage_of_ours_at_the_end_is_not_held_against_the_host(kept: Kept):
    removed = OCTOBER + DAY * 2.6
    ours = state(
        "a", 3, OCTOBER + DAY * 2.5, None, outcome="excused", verdict="excused", reason="bus_outage"
    )
    await kept.put([*days("a", OCTOBER, 2), ours])
    for until in (removed, None):
        made = await kept.statement("a", now=removed + DAY, enrolments=(Enrolment(OCTOBER, until),))
        assert (made.enrolled_seconds, made.host.uptime_percent) == (2 * 86_400, 100.0)


async def test_a_gpu_that_comes_in_the_window_across_the_month_s_edge_had_not_been_there(
    kept: Kept,
):
    edge = NOVEMBER + timedelta(hours=4)
    seconds = Seconds(up=2 * 3600.0, unknown=22 * 3600.0)
    came = Incident(
        gpu="new",
        state="unknown",
        reason="not_running",
        since=edge - DAY,
        until=edge - timedelta(hours=2),
    )
    await kept.put(days("a", OCTOBER + timedelta(hours=4), 30, gpus=(gpu("old"),)))
    both = (gpu("old"), GpuReport(uuid="new", state="up", uptime_percent=8.0, seconds=seconds))
    await kept.put([state("a", 31, edge, FULL, gpus=both, incidents=(came,), until=edge)])
    await kept.put(days("a", edge, 30, first=32, gpus=(gpu("old"), gpu("new"))))
    made = await kept.statement("a", "2026-11", enrolments=(Enrolment(OCTOBER),))
    new = next(one for one in made.gpus if one.uuid == "new")
    assert (new.uptime_percent, new.unreported_seconds, new.seconds.unknown) == (100.0, 0, 0)
    assert new.enrolled_seconds == 30 * 86_400 - 2 * 3600


def gpu(uuid: str, seconds: Seconds = FULL) -> GpuReport:
    return GpuReport(
        uuid=uuid, index=0, name="H100", state="up", uptime_percent=100.0, seconds=seconds
    )


async def test_a_gpu_is_accounted_while_it_was_there(kept: Kept):
    old, new = (
        (gpu("old"), gpu("stays")),
        (gpu("new", Seconds(up=3600.0, unknown=82_800.0)), gpu("stays")),
    )
    await kept.put(days("a", OCTOBER, 15, gpus=old))
    await kept.put(days("a", OCTOBER + DAY * 15, 1, first=16, gpus=new))
    await kept.put(days("a", OCTOBER + DAY * 16, 16, first=17, gpus=(gpu("new"), gpu("stays"))))
    made = await kept.statement("a", enrolments=(Enrolment(OCTOBER),))
    accounts = {one.uuid: one for one in made.gpus}
    assert {uuid: one.enrolled_seconds for uuid, one in accounts.items()} == {
        "old": 15 * 86_400, "new": 15 * 86_400 + 3600, "stays": 31 * 86_400
    }  # fmt: skip
    assert all(
        (one.uptime_percent, one.unreported_seconds) == (100.0, 0) for one in accounts.values()
    )


async def test_what_the_host_did_not_report_at_first_its_gpus_did_not_either(kept: Kept):
    await kept.put(days("a", OCTOBER + DAY * 3, 29))
    made = await kept.statement("a", enrolments=(Enrolment(OCTOBER - DAY * 30),))
    assert made.host.unreported_seconds == 3 * 86_400
    assert [one.uptime_percent for one in made.gpus] == [made.host.uptime_percent]


async def test_the_first_ping_s_way_leaves_a_perfect_host_perfect(kept: Kept):
    enrolled = datetime(2026, 10, 12, 7, 0, 0, 123_456, tzinfo=UTC)
    first = enrolled + DAY
    states = [state("a", 1, first, FULL, until=first + timedelta(milliseconds=60), verdict="first")]
    states += [
        state("a", n, first + DAY * n, FULL, until=first + DAY * n + timedelta(milliseconds=60))
        for n in range(1, 22)
    ]
    await kept.put(states)
    made = await kept.statement("a", enrolments=(Enrolment(enrolled),))
    assert (made.host.uptime_percent, made.host.coverage_percent, made.host.unreported_seconds) == (
        100.0,
        100.0,
        0,
    )
    assert made.host.seconds.up == made.enrolled_seconds


async def test_a_window_across_the_month_s_edge_is_paid_by_its_own_uptime(kept: Kept):
    """Half of it is October's; its uptime of 95.83 % is worth half the rate in both months."""
    whole = OCTOBER + timedelta(hours=12)
    down = (
        Incident(
            gpu="G", state="down", reason="test", since=whole - timedelta(hours=1), until=whole
        ),
    )
    poor = Seconds(up=82_800.0, down=3600.0)
    gpus = (GpuReport(uuid="G", state="up", uptime_percent=95.0, seconds=poor),)
    await kept.put(
        [state("a", 1, whole, poor, until=whole, gpus=gpus, incidents=down, verdict="poor")]
    )
    september, october = [
        (
            await kept.statement(
                "a", month, enrolments=(Enrolment(whole - DAY, whole),), policy="livepeer"
            )
        ).replay
        for month in ("2026-09", "2026-10")
    ]
    assert september
    assert october
    assert (september.then.paid_percent, october.then.paid_percent) == (50.0, 50.0)
    assert september.then.uptime_percent == 100.0
    assert (september.then.due_seconds, september.then.paid_seconds) == (43_200.0, 21_600.0)


async def test_a_month_that_is_no_longer_kept_is_refused_and_a_part_of_one_said(kept: Kept):
    await kept.put(days("a", OCTOBER - DAY * 40, 100))
    ingest = kept.store.ingest
    assert ingest
    settings = load(
        {}, GPUPING_DATA_DIR=str(kept.store.settings.GPUPING_DATA_DIR), STORAGE_RETENTION_DAYS=40
    )
    now_us = microseconds(OCTOBER + DAY * 50)
    day_folders.archive_step(ingest.connection, ingest.partitions, settings, now_us)
    enrolled = (Enrolment(OCTOBER - DAY * 40),)
    with pytest.raises(
        RefusedError, match="2026-09 is no longer kept: history begins 2026-10-11"
    ) as refused:
        await kept.statement("a", "2026-09", enrolments=enrolled)
    assert refused.value.code == 404
    part = await kept.statement("a", enrolments=enrolled)
    assert part.forgotten_until == OCTOBER + DAY * 10
    assert (part.enrolled_seconds, part.host.uptime_percent) == (21 * 86_400, 100.0)
    assert "no longer kept" in page.render(part)


async def test_a_registered_host_without_an_outcome_has_an_empty_statement(kept: Kept):
    made = await kept.statement("a", "2026-12", enrolments=(Enrolment(NOW - DAY),))
    assert (made.enrolled_seconds, made.pings, made.host.uptime_percent, made.final) == (
        0,
        0,
        None,
        False,
    )
    with pytest.raises(RefusedError, match="no history of agent a"):
        await kept.statement("a", "2026-12")


async def test_the_fleet_is_paid_over_the_time_that_can_be_paid_for(kept: Kept):
    half = [
        state(
            "b",
            n,
            OCTOBER + DAY * n,
            Seconds(up=0.0, excused=86_400.0) if n < 20 else Seconds(up=0.0, down=86_400.0),
        )
        for n in range(30)
    ]
    await kept.put([*days("a", OCTOBER, 30), *half])
    asked = FleetReplayRequest(month="2026-10", threshold=98.0)
    made = await kept.store.read(lambda reader: replay.fleet(reader, asked, NOW, 99.0))
    assert made.now_paid_percent == 75.0
    assert made.then == "threshold 98 %"


async def test_a_fleet_of_perfect_hosts_is_paid_in_full(kept: Kept):
    for n in range(7):
        await kept.put([state(f"a{n}", 1, OCTOBER + DAY, Seconds(up=1000.003 + n / 7))])
    asked = FleetReplayRequest(month="2026-10", threshold=99.99999)
    made = await kept.store.read(lambda reader: replay.fleet(reader, asked, NOW, 99.0))
    assert (made.now_paid_percent, made.then_paid_percent) == (100.0, 100.0)
    assert made.then == "threshold 99.99999 %"


async def test_labels_that_are_a_millisecond_off_are_no_unreported_time_and_sums_add_up(kept: Kept):
    states = [
        state("a", n, (at := OCTOBER + DAY * n), FULL, until=at + timedelta(milliseconds=n % 3))
        for n in range(1, 20)
    ]
    await kept.put(states)
    for after_ms in range(4):
        until = OCTOBER + DAY * 19 + timedelta(milliseconds=after_ms)
        made = await kept.statement("a", enrolments=(Enrolment(OCTOBER - DAY, until),))
        assert made.host.seconds.up == made.enrolled_seconds == pytest.approx(19 * 86_400, abs=0.01)
        assert (made.host.uptime_percent, made.host.unreported_seconds) == (100.0, 0)


async def test_an_incident_that_no_later_report_tells_did_not_go_on(kept: Kept):
    since = OCTOBER + DAY * 2.5
    one = Incident(gpu="G", state="down", reason="lost", since=since)
    await kept.put(days("a", OCTOBER, 2))
    await kept.put(days("a", OCTOBER + DAY * 2, 1, first=3, incidents=(one,)))
    open_yet = await kept.statement("a")
    assert [(told.since, told.until) for told in open_yet.incidents] == [(since, None)]
    await kept.put(days("a", OCTOBER + DAY * 3, 2, first=4))
    ended = await kept.statement("a")
    assert [(told.since, told.until) for told in ended.incidents] == [(since, OCTOBER + DAY * 3)]


async def test_two_agents_under_one_id_are_flagged_with_the_time_of_their_answers(kept: Kept):
    began = OCTOBER - DAY
    mixed = (TWO_UNDER_ONE_ID,)
    await kept.put(days("a", began, 4))
    await kept.put(days("a", began + 4 * DAY, 2, first=5, remarks=mixed))
    await kept.put(days("a", began + 6 * DAY, 3, first=7))
    await kept.put(days("a", began + 9 * DAY, 1, first=10, remarks=mixed))
    await kept.put(days("a", began + 10 * DAY, 60, first=11))
    made = await kept.statement("a", enrolments=(Enrolment(began),))
    found = [(one.since.day, one.until.day) for one in made.conflicts]
    assert found == [(4, 6), (9, 10)]
    assert made.remarks == {TWO_UNDER_ONE_ID: 3}
    said = page.render(made)
    assert "2026-10-04 00:00:00 to 2026-10-06 00:00:00" in said
    assert "2026-10-09 00:00:00 to 2026-10-10 00:00:00" in said
    console = Console(file=io.StringIO(), width=160)
    console.print(statement_table(made))
    assert (
        "two agents answered in turn under this id: 2026-10-09 00:00:00" in console.file.getvalue()
    )
    assert (await kept.statement("a", "2026-11", enrolments=(Enrolment(began),))).conflicts == ()


async def test_a_host_that_simulates_is_marked_so_in_its_statement(kept: Kept):
    """One simulated answer is enough: what it was paid for in that month was not hardware."""
    real = days("a", OCTOBER, 3)
    last = real[-1].last
    told = msgspec.json.decode(bytes(last.report)) | {"simulated": True}
    simulated = structs.replace(last, report=msgspec.Raw(msgspec.json.encode(told)))
    await kept.put([*real[:-1], structs.replace(real[-1], last=simulated)])
    await kept.put(days("b", OCTOBER, 3))
    made = await kept.statement("a")
    assert (made.simulated, (await kept.statement("b")).simulated) == (True, False)
    assert "This host simulates: its GPUs do not exist." in page.render(made)
    console = Console(file=io.StringIO(), width=160)
    console.print(statement_table(made))
    assert "this host simulates: its GPUs do not exist" in console.file.getvalue()
