"""A server that was frozen for a moment, too short for the connection to be given up."""

import asyncio
import signal

import nats.errors
import pytest


async def test_a_connection_still_hears_after_a_flush_gave_up_on_a_frozen_server(bus, nats_server):
    heard = asyncio.Event()

    async def hear(_message) -> None:
        heard.set()

    await bus.subscribe("test.heard", cb=hear)
    await bus.flush()
    assert nats_server.process
    nats_server.process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(nats.errors.TimeoutError):
            await bus.flush(timeout=0.3)
    nats_server.process.send_signal(signal.SIGCONT)
    await bus.publish("test.heard", b"")
    async with asyncio.timeout(3):
        await heard.wait()
    assert bus.stats["reconnects"] == 0
