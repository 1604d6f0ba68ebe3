"""A scheduler knows the server's time before it pings, also when the server is slow to answer."""

import asyncio

from bus.transport import connection
from bus.transport.bus_clock import LONGEST_ROUND_TRIP_SECONDS, BusClock
from bus.transport.embedded_server import EmbeddedServer
from tests.freezing import frozen


async def test_the_first_measurement_counts_however_slow_it_is(
    bus: connection.Client, nats_server: EmbeddedServer
):
    """Seed 305 of the drill: a scheduler whose clock was an hour behind took its outcomes, and
    what was due next, for an hour old, because no measurement had been quick enough.
    """
    clock = BusClock(bus)
    async with frozen(nats_server.process):
        measuring = asyncio.create_task(clock.measure())
        await asyncio.sleep(LONGEST_ROUND_TRIP_SECONDS + 0.5)  # so slow is this one
    async with asyncio.timeout(60):
        await measuring
    assert clock.offset_seconds is not None
