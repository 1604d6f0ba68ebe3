"""The moment a newcomer waits for: the first answered ping since the start."""

import asyncio

from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import decode
from bus.contract.questions import LiveEvent, Ping
from bus.errors import BadMessageError
from bus.transport.connection import Client


class FirstAnswer:
    """Listens to the live events until one agent has answered one ping."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[Ping] = asyncio.get_running_loop().create_future()

    @classmethod
    async def watch(cls, client: Client) -> "FirstAnswer":
        """Listens when this returns: nothing that is started afterwards is missed."""
        first = cls()
        subscription = await client.subscribe(subjects.EVENT_ALL, cb=first._heard)
        first._answered.add_done_callback(
            lambda _: asyncio.ensure_future(subscription.unsubscribe())
        )
        await client.flush()
        return first

    async def ping(self) -> Ping:
        """The first answered ping, as soon as there is one."""
        return await asyncio.shield(self._answered)

    async def _heard(self, message: Msg) -> None:
        try:
            event = decode(message.data, LiveEvent)
        except BadMessageError:
            return  # live views lose events without harm
        if event.ping and event.ping.outcome == "answered" and not self._answered.done():
            self._answered.set_result(event.ping)
