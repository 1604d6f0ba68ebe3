"""What must hold when schedulers start and stop, and when the bus is killed or frozen."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.questions import AgentPage, ListRequest, RegisterRequest
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, embedded_server, micro_services
from scheduler.service import running
from scheduler.write.timers import TIMER_DELAY
from tests.agents import answering
from tests.freezing import frozen
from tests.history import assert_gapless, read_history, until_history
from tests.registering import register


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every 1.2 s, answered or missed within 3 s."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=4.8 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=3.0,
    )


@asynccontextmanager
async def scheduler_process(config: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """A scheduler in a process of its own, which is killed at the end if it still runs."""
    env = {name: str(value) for name, value in _as_environment(config).items()}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scheduler", stdout=asyncio.subprocess.PIPE, env=os.environ | env
    )
    try:
        assert child.stdout
        async with asyncio.timeout(60):
            assert await child.stdout.readline() == b"ready\n"
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _as_environment(config: Settings) -> dict[str, object]:
    names = (
        "NATS_URL",
        "PING_BASE_INTERVAL_MINUTES",
        "PING_MAX_INTERVAL_HOURS",
        "PING_RESPONSE_TIMEOUT_SECONDS",
    )
    return {name: getattr(config, name) for name in names} | {"LOG_LEVEL": "warning"}


async def enrol(bus: connection.Client, agents, count: int) -> list[str]:
    names = [f"a{number:03d}" for number in range(count)]
    for name in names:
        await agents.add(name)
        await register(bus, name)
    return names


def good_only(history) -> bool:
    return all(s.consecutive_poor == 0 for states in history.values() for s in states)


async def test_two_schedulers_share_the_work_and_double_nothing(bus, config):
    async with running(config) as one, running(config) as two, answering(config) as agents:
        names = await enrol(bus, agents, 30)
        history = await until_history(bus, lambda h: all(len(h[n]) >= 4 for n in names))
        assert_gapless(history)
        assert good_only(history)
        shares = [sum(s.stats().verdicts.values()) for s in (one, two)]
        assert all(share > 20 for share in shares), shares


async def test_a_scheduler_sees_what_another_registered(bus, config):
    async with running(config) as one, running(config) as two:
        for number in range(20):
            name = f"n{number}"
            await (one if number % 2 else two).registry.register(
                name, RegisterRequest(), datetime.now(UTC)
            )
            page = await micro_services.ask(
                bus, subjects.LIST, ListRequest(), AgentPage, who="scheduler"
            )
            assert page.total == number + 1  # whichever of the two answered


async def test_a_killed_scheduler_loses_and_doubles_nothing(bus, config):
    async with scheduler_process(config) as first, answering(config) as agents:
        names = await enrol(bus, agents, 20)
        await until_history(bus, lambda h: all(len(h[n]) >= 1 for n in names))
        first.send_signal(signal.SIGKILL)
        await first.wait()
        async with running(config):
            before = await read_history(bus)
            history = await until_history(
                bus, lambda h: all(len(h[n]) >= len(before[n]) + 2 for n in names)
            )
    assert_gapless(history)
    assert good_only(history)


async def test_the_survivor_takes_over_from_a_killed_one(bus, config):
    async with (
        running(config) as survivor,
        answering(config) as agents,
        scheduler_process(config) as victim,
    ):
        names = await enrol(bus, agents, 20)
        await until_history(bus, lambda h: all(len(h[n]) >= 1 for n in names))
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
        counted = sum(survivor.stats().verdicts.values())
        before = await read_history(bus)
        history = await until_history(
            bus, lambda h: all(len(h[n]) >= len(before[n]) + 2 for n in names), within=45
        )
        assert sum(survivor.stats().verdicts.values()) > counted
    assert_gapless(history)
    assert good_only(history)
    worst = max(s.last.late_ms or 0 for states in history.values() for s in states)
    assert (
        worst < TIMER_DELAY.total_seconds() * 1000
    )  # taken over by listening, not by waiting for timers


async def test_nats_killed_under_load_costs_no_agent_anything(
    bus, config, nats_server: embedded_server.EmbeddedServer
):
    async with running(config), answering(config) as agents:
        names = await enrol(bus, agents, 20)
        await until_history(bus, lambda h: all(len(h[n]) >= 1 for n in names))
        assert nats_server.process
        nats_server.process.kill()
        history = await until_history_after_outage(bus, names, 2)
    assert_gapless(history)
    assert good_only(history)


async def test_nats_frozen_is_our_outage_and_excused(
    bus, config, nats_server: embedded_server.EmbeddedServer
):
    async with running(config), answering(config) as agents:
        names = await enrol(bus, agents, 10)
        await until_history(bus, lambda h: all(len(h[n]) >= 1 for n in names))
        async with frozen(nats_server.process):
            await asyncio.sleep(7)  # longer than the time-out: each ping in flight expires
        history = await until_history_after_outage(bus, names, 2)
    assert_gapless(history)
    assert good_only(history)
    outcomes = {s.last.outcome for states in history.values() for s in states}
    assert "missed" not in outcomes


async def until_history_after_outage(bus, names, more: int):
    """Returns the history once each agent has that many more answered pings."""
    before: dict[str, int] = {}
    async with asyncio.timeout(120):
        while not before:
            with suppress(Exception):  # the bus is coming back
                before = {n: len(states) for n, states in (await read_history(bus)).items()}
            await asyncio.sleep(0.2)
        while True:
            with suppress(BusError, nats.errors.Error, nats.js.errors.Error):
                return await until_history(
                    bus, lambda h: all(len(h[n]) >= before[n] + more for n in names), within=100
                )
            await asyncio.sleep(0.2)
