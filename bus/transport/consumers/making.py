"""Makes consumers: by itself, or through the scheduler where this role may not.

See `bus.contract.consumers` for the reason.
"""

import msgspec

from bus.contract import subjects
from bus.contract.consumers import ConsumerConfig, ConsumerMade, ConsumerRequest
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import JsonObject
from bus.transport.micro_services import ask

# A consumer that begins at each key's last message is slow to make in a large stream.
CREATE_SECONDS = 30.0


async def make(
    client: Client,
    stream: str,
    config: JsonObject,
) -> ConsumerMade:
    """Makes a consumer; one with a `durable_name` replaces the consumer of that name.

    Raises JetStreamApiError or RefusedError, or UnavailableError when nobody answers.
    """
    if client.lives_apart:
        request = ConsumerRequest(stream=stream, config=msgspec.convert(config, ConsumerConfig))
        return await ask(
            client,
            subjects.MAKE_CONSUMER,
            request,
            ConsumerMade,
            who="the scheduler, which makes consumers for other services,",
            timeout=CREATE_SECONDS,
        )
    durable = config.get("durable_name")
    verb = f"CONSUMER.CREATE.{stream}"
    if durable:
        await jetstream_api.delete_consumer(client, stream, durable)
        verb = f"CONSUMER.DURABLE.CREATE.{stream}.{durable}"
    body = {"stream_name": stream, "config": config}
    answer = await jetstream_api.call(client, verb, body, CREATE_SECONDS)
    return ConsumerMade(name=answer["name"], num_pending=answer["num_pending"])
