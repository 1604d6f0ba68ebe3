"""Announcements of schedulers are claims: nobody's word keeps an agent from being pinged."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bus.background import cancel_all
from bus.contract import subjects
from bus.contract.messages import encode
from bus.contract.questions import RegisterRequest
from bus.settings import Settings
from bus.transport import connection
from scheduler.cluster.peers import Alive, new_instance
from scheduler.service import running
from tests.agents import TestAgents, answering
from tests.history import until_history
from tests.waiting import until

# So many that a scheduler without any of them is out of the question.
NAMES = [f"a{number}" for number in range(24)]
PATIENCE_SECONDS = 6.0  # of a scheduler with this time-out


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every 1.2 s, given up after 1 s."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=4.8 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=1.0,
    )


async def enrol(scheduler, agents: TestAgents) -> None:
    for name in NAMES:
        await agents.add(name)
        await scheduler.registry.register(name, RegisterRequest(), datetime.now(UTC))


@asynccontextmanager
async def claiming(
    bus: connection.Client, name: Callable[[], str], seconds: float
) -> AsyncIterator[None]:
    """Announces schedulers that do not exist, one every so many seconds."""

    async def claim() -> None:
        while True:
            await bus.publish(subjects.alive(name()), encode(Alive(word="here")))
            await asyncio.sleep(seconds)

    claims = asyncio.create_task(claim())
    try:
        yield
    finally:
        await cancel_all([claims])


async def everyone_is_pinged_for(bus: connection.Client, rounds: int, within: float) -> float:
    """Returns the longest time between two pings of one agent since now."""
    since = datetime.now(UTC)

    def recent(states):
        return [state for state in states if state.last.pinged_at > since]

    history = await until_history(
        bus, lambda h: all(len(recent(h[name])) >= rounds for name in NAMES), within=within
    )
    longest = 0.0
    for name in NAMES:
        times = [since, *(state.last.pinged_at for state in recent(history[name]))]
        for before, after in zip(times, times[1:], strict=False):  # noqa: RUF007
            longest = max(longest, (after - before).total_seconds())
    return longest


async def test_a_flood_of_names_keeps_nobody_from_being_pinged(bus, config):
    """20 new names a second: before, there was no ping in 100 s."""
    async with running(config) as scheduler, answering(config) as agents:
        await enrol(scheduler, agents)
        async with claiming(bus, new_instance, 0.05):
            await until(lambda: not scheduler.peers.alone)
            longest = await everyone_is_pinged_for(bus, rounds=6, within=60)
    assert longest < 2 * PATIENCE_SECONDS


async def test_a_peer_that_pings_nobody_counts_no_more(bus, config):
    async with running(config) as scheduler, answering(config) as agents:
        await enrol(scheduler, agents)
        async with claiming(bus, lambda: "liar", 0.5):
            await until(lambda: scheduler.peers.owner("x") != "" and not scheduler.peers.alone)
            await everyone_is_pinged_for(bus, rounds=1, within=30)
            owners = {scheduler.peers.owner(name) for name in NAMES}
            assert owners == {scheduler.instance}
            longest = await everyone_is_pinged_for(bus, rounds=4, within=30)
            assert longest < PATIENCE_SECONDS  # its share waits no more
            assert not scheduler.peers.alone  # it is heard, and not believed


async def test_schedulers_that_ping_believe_each_other_and_share(bus, config):
    async with running(config) as one, running(config) as two, answering(config) as agents:
        await enrol(one, agents)
        await until_history(bus, lambda h: all(len(h[name]) >= 4 for name in NAMES), within=40)
        for name in NAMES:
            assert one.peers.owner(name) == two.peers.owner(name)
        owners = {one.peers.owner(name) for name in NAMES}
        assert owners == {one.instance, two.instance}
        assert one.stats().differing_policies == ()


async def test_schedulers_with_other_rules_are_told(bus, config):
    lenient = replace(config, PING_UPTIME_THRESHOLD=50.0)
    async with running(config) as one, running(lenient) as two:
        await until(lambda: one.stats().differing_policies == (two.instance,))
        await until(lambda: two.stats().differing_policies == (one.instance,))


async def test_only_the_own_agents_timers_are_put_off(bus, config):
    """The timer of another's agent is there for the case that the other one hangs."""
    async with running(config) as scheduler, answering(config) as agents:
        await enrol(scheduler, agents)
        async with claiming(bus, lambda: "liar", 0.5):
            await until(lambda: any(scheduler.peers.owner(name) == "liar" for name in NAMES))
            theirs = next(name for name in NAMES if scheduler.peers.owner(name) == "liar")
            assert not scheduler.timer_deferral._fires_soon(theirs, datetime.now(UTC))
