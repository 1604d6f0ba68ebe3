"""A scheduler with a wrong clock silences no agent, and moves no window."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.messages import AgentEntry, encode
from bus.contract.questions import RegisterReply, RegisterRequest, SchedulerStats
from bus.monitoring.scheduler_families import scheduler_families
from bus.settings import Settings
from bus.transport import bus_clock, connection, micro_services
from bus.transport.bucket import read
from gpuping.doctor.bus_checks import clock_finding, scheduler_clocks
from scheduler.service import Scheduler, running
from tests.agents import answering
from tests.history import until_history
from tests.scheduler_processes import SchedulerProcess

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
MONTH = timedelta(days=30)


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """A base interval of 1.2 s."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=4.8 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=5.0,
    )


@pytest.fixture(autouse=True)
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No later measurement takes back what a test says of a clock."""
    monkeypatch.setattr(bus_clock, "MEASURE_SECONDS", 3600.0)


async def register(bus: connection.Client, agent_id: str) -> RegisterReply:
    return await micro_services.ask(
        bus,
        subjects.register(agent_id),
        RegisterRequest(),
        RegisterReply,
        who="scheduler",
        timeout=20.0,
    )


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
@pytest.mark.timeout(180)
async def test_a_scheduler_30_days_ahead_silences_nobody_and_enrols_nobody_in_the_future(
    bus, config
):
    ahead = SchedulerProcess(
        config,
        LD_PRELOAD=str(FAKETIME),
        FAKETIME="+30d",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        DONT_FAKE_MONOTONIC="1",
    )
    async with answering(config) as agents:
        await agents.add("a")
        try:
            await ahead.start()
            began = datetime.now(UTC)
            await register(bus, "a")
            history = await until_history(bus, lambda h: len(h["a"]) >= 3)
        finally:
            await ahead.kill()
        soon = datetime.now(UTC) + timedelta(seconds=10)
        for state in history["a"]:
            assert began - timedelta(seconds=1) < state.last.pinged_at < soon
            assert state.next_ping_at < soon
        entry = await read(bus, subjects.agent_key("a"), AgentEntry)
        assert entry
        assert began - timedelta(seconds=1) < entry.value.enrolled_at < soon
        async with running(config):
            count = len(history["a"])
            history = await until_history(bus, lambda h: len(h["a"]) >= count + 2)
        for state in history["a"]:
            assert state.last.outcome == "answered"
        for state in history["a"][1:]:
            assert state.last.uptime_percent == pytest.approx(100.0)


async def test_what_a_scheduler_of_before_wrote_with_a_wrong_clock_is_corrected_when_read(
    bus, config
):
    """Its states and entries are in the bucket, a month ahead."""
    slow = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)
    async with answering(slow) as agents:
        await agents.add("a")
        async with running(slow):
            await register(bus, "a")
            first = (await until_history(bus, lambda h: h["a"]))["a"][0]
        entry = await read(bus, subjects.agent_key("a"), AgentEntry)
        assert entry
        late = replace(first, ping_seq=2, next_ping_at=first.next_ping_at + MONTH)
        ahead = replace(entry.value, enrolled_at=entry.value.enrolled_at + MONTH)
        bucket = await bus.jetstream().key_value(subjects.BUCKET)
        await bucket.put("state.a", encode(late))
        await bucket.put("agent.a", encode(ahead))
        async with running(slow) as scheduler:
            tracked = scheduler.directory.get("a")
            assert tracked
            due = tracked.next_ping_at(scheduler.directory.policy)
            assert due
            assert due <= datetime.now(UTC) + timedelta(minutes=10)
            assert tracked.entry
            assert tracked.entry.enrolled_at <= datetime.now(UTC)


@pytest.mark.parametrize("seconds", [-MONTH.total_seconds(), 2.5, MONTH.total_seconds()])
async def test_a_clock_that_differs_from_the_bus_is_said(bus, config, capsys, seconds):
    """The server's clock, as this scheduler measures it, is that far from its own."""
    async with running(config) as scheduler:
        stats = await scheduler_stats(bus)
        assert stats.bus_clock_offset_seconds == pytest.approx(0.0, abs=1.0)
        assert "clock_differs_from_bus" not in capsys.readouterr().out
        set_clock_apart(scheduler, seconds)
        stats = await scheduler_stats(bus)
        assert stats.bus_clock_offset_seconds == pytest.approx(seconds, abs=0.5)
        assert "clock_differs_from_bus" in capsys.readouterr().out


async def test_a_clock_ahead_of_the_bus_is_clamped_to_it_and_one_behind_is_not(bus, config):
    async with running(config) as scheduler:
        clock = scheduler.bus_clock
        set_clock_apart(scheduler, -MONTH.total_seconds())
        away = datetime.now(UTC) - clock.now()
        assert abs(away - MONTH) < timedelta(seconds=5)
        set_clock_apart(scheduler, MONTH.total_seconds())
        assert abs(datetime.now(UTC) - clock.now()) < timedelta(seconds=5)
        set_clock_apart(scheduler, -1.5)
        assert abs(datetime.now(UTC) - clock.now()) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("offsets", "level"),
    [
        ({}, "note"),
        ({"one": 0.1}, "ok"),
        ({"one": 1.9, "two": 0.1}, "ok"),
        ({"one": 2.1}, "warning"),
        ({"one": 1.5, "two": -1.5}, "warning"),
        ({"one": -86_400.0, "two": 0.0}, "warning"),
    ],
)
def test_doctor_says_which_clocks_differ_by_more_than_2_seconds(offsets, level):
    assert clock_finding(offsets).level == level


async def test_doctor_and_metrics_tell_the_offset_of_a_scheduler(bus, config):
    async with running(config) as scheduler:
        assert (await scheduler_clocks(bus)).level == "ok"
        set_clock_apart(scheduler, 3.0)
        finding = await scheduler_clocks(bus)
        stats = await scheduler_stats(bus)
    assert (finding.level, finding.detail) == (
        "warning",
        "1 asked, at most 3.0 s from the server's",
    )
    text = "".join(str(family) for family in scheduler_families(stats))
    assert "gpuping_scheduler_clock_offset_seconds" in text


async def test_two_schedulers_whose_clocks_differ_say_so_in_doctor_log_and_metrics(
    bus, config, capsys
):
    """Each is within 2 s of the server's clock, and the two are 3 s apart."""
    async with running(config) as one, running(config) as two:
        said = ""
        async with asyncio.timeout(60):
            while "clock_differs_from_peer" not in said:  # they announce themselves every second
                set_clock_apart(one, 1.5)
                set_clock_apart(two, -1.4)
                await asyncio.sleep(0.05)
                said += capsys.readouterr().out
        finding = await scheduler_clocks(bus)
        stats = [one.stats(), two.stats()]
    assert "seconds=2.9" in said
    assert "clock_differs_from_bus" not in said
    assert (finding.level, finding.detail) == (
        "warning",
        "2 asked, at most 1.5 s from the server's and 2.9 s from each other's",
    )
    assert max(one.peer_clock_difference_seconds for one in stats) == pytest.approx(2.9)
    text = "".join(str(family) for family in scheduler_families(stats[0]))
    assert "gpuping_scheduler_peer_clock_difference_seconds" in text


def set_clock_apart(scheduler: Scheduler, seconds: float) -> None:
    """As if the server had been measured to be that far from this scheduler's clock."""
    scheduler.bus_clock.note(seconds)


async def scheduler_stats(bus: connection.Client) -> SchedulerStats:
    return await micro_services.ask(bus, subjects.STATS, None, SchedulerStats, who="scheduler")
