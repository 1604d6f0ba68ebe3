"""A reader of a stream notices deliveries that were lost on the way."""

import asyncio
import json

from nats.aio.msg import Msg

from bus.contract import subjects
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.consumers.ordered_consumer import OrderedConsumer
from bus.transport.consumers.pull_consumer import Delivery

STREAM = subjects.BUCKET_STREAM
CONFIG = {"ack_policy": "none", "inactive_threshold": 60 * 1_000_000_000}
START = {"deliver_policy": "all"}


async def test_a_lost_delivery_is_noticed_though_none_follows_it(bus: Client):
    """Whoever takes the delivery is as good as a network that drops it."""
    room = 0
    read: list[int] = []
    is_read = asyncio.Event()

    def deliver(_: Msg, where: Delivery) -> None:
        read.append(where.sequence)
        is_read.set()

    await bus.jetstream().publish(f"{subjects.KEYS}test.a", b"{}")
    reader = OrderedConsumer(bus, STREAM, deliver, lambda: room)
    assert await reader.create(CONFIG, START) == 1
    listed = await jetstream_api.call(bus, f"CONSUMER.NAMES.{STREAM}")
    taken = asyncio.Queue[Msg]()
    inbox = bus.new_inbox()
    async with bus.listening(inbox, taken.put_nowait):
        for name in listed["consumers"]:
            verb = subjects.jetstream_api(f"CONSUMER.MSG.NEXT.{STREAM}.{name}")
            await bus.publish(verb, json.dumps({"batch": 1, "no_wait": True}).encode(), reply=inbox)
        async with asyncio.timeout(60):
            while not (await taken.get()).reply:
                pass  # the other consumer of the bucket has nothing to deliver

    room = 10
    async with asyncio.timeout(60):
        await reader.run()
    assert reader.is_lost
    assert read == []

    await reader.create(CONFIG, START)
    reading = asyncio.create_task(reader.run())
    async with asyncio.timeout(60):
        await is_read.wait()
    reader.stop()
    await reading
    assert len(read) == 1
