"""A message without a reply subject, as `nats pub` sends it, must not disturb a service."""

from bus.contract import subjects
from bus.transport.connection import Client
from bus.transport.micro_services import Endpoint, ask_raw, serve


async def test_a_plain_publish_is_no_question(bus: Client) -> None:
    asked = []

    async def handler(request):
        asked.append(request.data)
        return b"answer"

    service = await serve(
        bus, "test-service", "for this test", [Endpoint("stats", subjects.STATS, handler)]
    )
    await bus.publish(subjects.STATS, b"nobody waits")
    assert await ask_raw(bus, subjects.STATS, b"a question", who="the service") == b"answer"
    assert asked == [b"a question"]
    await service.stop()
