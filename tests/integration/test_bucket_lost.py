"""The bucket is deleted, emptied or made anew under a running scheduler, which says so."""

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.questions import RegisterRequest
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from scheduler.ping.bucket_guard import GONE
from scheduler.service import Scheduler, running
from tests.agents import TestAgents, answering
from tests.history import assert_gapless, until_history
from tests.waiting import until

NAMES = [f"a{number}" for number in range(5)]


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every 1.2 s."""
    return replace(
        base_settings, PING_BASE_INTERVAL_MINUTES=0.02, PING_MAX_INTERVAL_HOURS=4.8 / 3600
    )


async def fleet(bus: connection.Client, scheduler: Scheduler, agents: TestAgents) -> None:
    for name in NAMES:
        await agents.add(name)
        await scheduler.registry.register(name, RegisterRequest(), datetime.now(UTC))
    await until_history(bus, lambda h: all(len(h[name]) >= 2 for name in NAMES))


@pytest.mark.parametrize(
    "loss",
    [
        "deleted",
        pytest.param("made anew", marks=pytest.mark.slow),
        pytest.param("emptied", marks=pytest.mark.slow),
    ],
)
async def test_a_lost_bucket_is_said_and_read_again_and_numbers_go_on(
    bus: connection.Client, config: Settings, loss: str
):
    async with running(config) as scheduler, answering(config) as agents:
        await fleet(bus, scheduler, agents)
        stream = subjects.BUCKET_STREAM
        if loss == "emptied":
            await jetstream_api.call(bus, f"STREAM.PURGE.{stream}")
        else:
            await jetstream_api.call(bus, f"STREAM.DELETE.{stream}")
        if loss == "deleted":
            await until(lambda: scheduler.stats().bucket_problem == GONE)
            await asyncio.sleep(3)  # the scheduler makes no bucket of its own accord
            assert scheduler.stats().bucket_problem == GONE
        if loss != "emptied":
            await layout.ensure(bus, config)
        await until(lambda: scheduler.stats().lost_enrolments == len(NAMES))
        await until(lambda: scheduler.stats().bucket_problem is None)
        assert list(scheduler.directory.registered_ids()) == []
        before = await until_history(bus, lambda h: all(h[name] for name in NAMES))
        for name in NAMES:
            await scheduler.registry.register(name, RegisterRequest(), datetime.now(UTC))
        history = await until_history(
            bus,
            lambda h: all(len(h[name]) >= len(before[name]) + 2 for name in NAMES),
            within=60,
        )
    assert_gapless(history)
    for name in NAMES:
        assert history[name][: len(before[name])] == before[name]
