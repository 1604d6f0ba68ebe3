"""Reads a stream in order and without a gap: the reader makes a new consumer after each loss.

The server numbers a consumer's deliveries 1, 2, 3 ... A number that is missing here was lost on the
way, after a reconnection for example. Nothing is asked for again: the reader knows how far it has
come in the stream, and makes a consumer that begins there.
"""

import asyncio
from collections.abc import Callable

from nats.aio.msg import Msg

from bus.background import cancel_all
from bus.transport.connection import Client
from bus.transport.consumers import making
from bus.transport.consumers.pull_consumer import Delivery, PullConsumer, delivery_of
from bus.transport.jetstream_api import JsonObject


class OrderedConsumer:
    """Calls `deliver(message, position)` for each message of one consumer after another.

    `room` says how many messages may be asked for now. Create a consumer with `create`, read it
    with `run`, and do both again when `run` has returned.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        deliver: Callable[[Msg, Delivery], None],
        room: Callable[[], int],
    ) -> None:
        self._client = client
        self._stream = stream
        self._deliver = deliver
        self._room = room
        self._deliveries = 0
        self._consumer: PullConsumer | None = None
        self._lost = asyncio.Event()
        client.on_reconnect(self._on_lost)  # what was on the wire then is not sent again

    @property
    def is_lost(self) -> bool:
        """Whether a message or the consumer was lost, or `stop` was called. `create` resets it."""
        return self._lost.is_set()

    async def create(self, config: JsonObject, start: JsonObject) -> int:
        """Makes the consumer that `run` reads. Returns how many messages it has to deliver now.

        `config` with a `durable_name` replaces a consumer of that name; without one the consumer is
        the server's to delete after its `inactive_threshold`. `start` is where it begins:
        `deliver_policy` and what belongs to it. Raises what `making.make` raises.
        """
        self._lost.clear()
        self._deliveries = 0
        made = await making.make(self._client, self._stream, config | start)
        self._consumer = PullConsumer(
            self._client,
            self._stream,
            made.name,
            self._receive,
            self._room,
            self._on_lost,
            self._compare,
        )
        return made.num_pending

    async def run(self) -> None:
        """Delivers until the consumer or a delivery is lost, or `stop` is called."""
        assert self._consumer  # noqa: S101  # `create` comes first
        pulling = asyncio.create_task(self._consumer.run())
        losing = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({pulling, losing}, return_when=asyncio.FIRST_COMPLETED)
            if pulling.done():
                pulling.result()
        finally:
            self._lost.set()
            await cancel_all([pulling, losing])

    def stop(self) -> None:
        """Ends `run`; nothing is delivered after this."""
        self._lost.set()

    def room_freed(self) -> None:
        """`room` has become larger: more may be asked for."""
        if self._consumer is not None:
            self._consumer.room_freed()

    async def _on_lost(self) -> None:
        self._lost.set()

    def _compare(self, delivered: int) -> None:
        """Notices deliveries that were lost on the way, though none comes after them.

        A server drops them while it takes a changed account, and the next may be a day away.
        """
        if delivered > self._deliveries:
            self._lost.set()

    def _receive(self, message: Msg) -> None:
        where = delivery_of(message)
        if where.number != self._deliveries + 1:
            self._lost.set()
        if self._lost.is_set():
            return
        self._deliveries = where.number
        self._deliver(message, where)
