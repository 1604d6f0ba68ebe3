"""Makes consumers of streams for services that may not make them: storage and alerts."""

import msgspec
from nats.micro.request import Request

from bus.contract import subjects
from bus.contract.consumers import ConsumerMade, ConsumerRequest
from bus.contract.messages import decode
from bus.errors import RefusedError
from bus.transport.connection import Client
from bus.transport.consumers import making
from bus.transport.micro_services import Endpoint

# Those of the bucket and of alerts end with their reader. The bucket's durable consumer is ours.
_READ = (subjects.HISTORY_STREAM, subjects.BUCKET_STREAM, subjects.ALERTS_STREAM)
_READ_DURABLY = (subjects.HISTORY_STREAM,)


class ConsumerEndpoints:
    """One handler. Unknown fields of a request, such as a subject to send to, are not passed on."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def all(self) -> list[Endpoint]:
        """What the scheduler serves besides."""
        return [Endpoint("make-consumer", subjects.MAKE_CONSUMER, self.make)]

    async def make(self, request: Request) -> ConsumerMade:
        """Answers `gpuping.scheduler.make-consumer`."""
        asked = decode(request.data, ConsumerRequest)
        if asked.stream not in _READ:
            raise RefusedError(403, f"nobody reads the stream {asked.stream[:80]!r} in this way")
        is_durable = asked.config.durable_name is not None
        if is_durable and asked.stream not in _READ_DURABLY:
            raise RefusedError(403, f"{asked.stream} has no durable consumers of other services")
        if not is_durable and not asked.config.inactive_threshold:
            raise RefusedError(400, "a consumer without a durable_name needs inactive_threshold")
        config = msgspec.to_builtins(asked.config)
        return await making.make(self._client, asked.stream, config)
