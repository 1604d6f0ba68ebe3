"""A server that was frozen for less time than it takes to give up the connection."""

import asyncio

import nats.errors
import pytest

from tests.freezing import frozen


async def test_a_connection_still_hears_after_a_flush_gave_up_on_a_frozen_server(bus, nats_server):
    heard = asyncio.Event()

    async def hear(_message) -> None:
        heard.set()

    await bus.subscribe("test.heard", cb=hear)
    await bus.flush()
    async with frozen(nats_server.process):
        for _ in range(2):
            with pytest.raises(nats.errors.TimeoutError):
                await bus.flush(timeout=0.3)
    await bus.publish("test.heard", b"")
    async with asyncio.timeout(60):
        await heard.wait()
    assert bus.stats["reconnects"] == 0
