"""What our connection adds to nats-py's."""

from bus import connection
from bus.settings import Settings


async def test_a_subscription_stands_when_flush_returns(bus: connection.Client, base_settings: Settings):
    """nats-py's own flush overtakes what waits to be written: among many commands, some request finds nobody."""
    async with connection.connected(base_settings, "subscriber") as client:

        async def answer(message) -> None:
            await message.respond(b"here")

        for number in range(200):
            await client.subscribe(f"answers.{number}", cb=answer)
            await client.flush()
            assert (await bus.request(f"answers.{number}", b"", timeout=5)).data == b"here"
