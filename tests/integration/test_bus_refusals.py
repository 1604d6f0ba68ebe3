"""What the bus refuses ends no scheduler, and one dead address of several keeps nobody away."""

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.questions import RegisterRequest
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from bus.transport.batch import Write, commit
from scheduler.service import running
from tests.agents import answering
from tests.history import assert_gapless, until_history
from tests.ports import free_port


async def test_of_several_addresses_one_that_answers_is_enough(
    nats_server, base_settings: Settings
):
    dead = free_port()
    both = replace(base_settings, NATS_URL=f"nats://127.0.0.1:{dead}, {nats_server.url}")
    async with asyncio.timeout(60), connection.connected(both, "test") as client:
        assert client.address == nats_server.url
        await layout.ensure(client, both)


async def test_a_bucket_that_refuses_every_write_ends_no_scheduler(
    bus: connection.Client, base_settings: Settings
):
    """As a server without file descriptors does (10176): it refuses, and answers."""
    config = replace(
        base_settings, PING_BASE_INTERVAL_MINUTES=0.02, PING_MAX_INTERVAL_HOURS=4.8 / 3600
    )
    stream = await jetstream_api.call(bus, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    refusing = stream["config"] | {"max_msg_size": 10}
    async with running(config) as scheduler, answering(config) as agents:
        await agents.add("a")
        await scheduler.registry.register("a", RegisterRequest(), datetime.now(UTC))
        await until_history(bus, lambda h: len(h["a"]) >= 2)
        await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", refusing)
        with pytest.raises(BusError):
            await commit(bus, [Write(subjects.agent_key("b"), b"{}" * 20)])
        scheduler.directory.on_timer_suspect("a")
        with pytest.raises(BusError):
            await scheduler.registry.register("c", RegisterRequest(), datetime.now(UTC))
        async with asyncio.timeout(60):
            while scheduler.loop.committer.trouble is None:  # noqa: ASYNC110  # no event of ours
                await asyncio.sleep(0.05)
        await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", stream["config"])
        before = len((await until_history(bus, lambda h: h["a"]))["a"])
        history = await until_history(bus, lambda h: len(h["a"]) >= before + 2, within=40)
    assert_gapless(history)
