"""An outage of the bus that is shorter than 2 s bills nobody, also with a time-out of 1 s."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.settings import Settings
from bus.transport import connection, embedded_server, micro_services
from scheduler.service import running
from tests.agents import answering
from tests.freezing import frozen
from tests.history import History, assert_gapless, until_history

STOP_SECONDS = 1.7
BETWEEN_SECONDS = 1.0
SHIFT_SECONDS = 0.15
AGENTS = 20


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """A ping of each agent every 1.2 s, given up after 1 s: each stop meets many pings."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=4.8 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=1.0,
    )


async def test_a_stop_of_1_7_seconds_bills_nobody(bus, config, nats_server):
    await stop_often(bus, config, nats_server, times=4)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_20_stops_of_1_7_seconds_bill_nobody(bus, config, nats_server):
    await stop_often(bus, config, nats_server, times=20)


async def stop_often(
    bus: connection.Client,
    config: Settings,
    server: embedded_server.EmbeddedServer,
    times: int,
) -> None:
    names = [f"a{number:02d}" for number in range(AGENTS)]
    async with running(config), answering(config) as agents:
        for name in names:
            await agents.add(name)
            await register(bus, name)
        await until_history(bus, lambda h: all(len(h[name]) >= 2 for name in names))
        for number in range(times):
            async with frozen(server.process):
                await asyncio.sleep(STOP_SECONDS)  # the outage itself
            # Each stop begins at another point of the interval.
            await asyncio.sleep(BETWEEN_SECONDS + SHIFT_SECONDS * (number % 8))
        ended = datetime.now(UTC)
        history = await until_history(
            bus, lambda h: all(answered_since(h, name, ended) for name in names)
        )
    outcomes: Counter[str] = Counter()
    for states in history.values():
        for state in states:
            outcomes[state.last.outcome] += 1
            assert state.last.outcome != "missed", state.last
            assert state.consecutive_poor == 0, state.last
    assert_gapless(history)
    # A stop met pings that were in flight; otherwise nothing was shown.
    assert outcomes["excused"] >= times, outcomes


def answered_since(history: History, name: str, since: datetime) -> bool:
    last = history[name][-1].last
    return last.outcome == "answered" and last.pinged_at > since


async def register(bus: connection.Client, agent_id: str) -> None:
    subject = subjects.register(agent_id)
    await micro_services.ask(bus, subject, RegisterRequest(), RegisterReply, who="scheduler")
