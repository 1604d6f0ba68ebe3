"""Waits for the first answered ping, which shows a new user that the system works."""

import asyncio

from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import decode
from bus.contract.questions import LiveEvent, Ping
from bus.errors import BadMessageError
from bus.transport.connection import Client


class FirstAnswer:
    """Listens to the live events until an agent has answered a ping."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[Ping] = asyncio.get_running_loop().create_future()

    @classmethod
    async def watch(cls, client: Client) -> "FirstAnswer":
        """Subscribes before it returns, so that no event of agents started afterwards is missed."""
        first_answer = cls()
        subscription = await client.subscribe(subjects.EVENT_ALL, cb=first_answer._on_event)
        first_answer._answered.add_done_callback(
            lambda _: asyncio.ensure_future(subscription.unsubscribe())
        )
        await client.flush()
        return first_answer

    async def ping(self) -> Ping:
        """The first answered ping, as soon as there is one."""
        return await asyncio.shield(self._answered)

    async def _on_event(self, message: Msg) -> None:
        try:
            event = decode(message.data, LiveEvent)
        except BadMessageError:
            return  # another event will tell of another ping
        if self._answered.done() or event.ping is None:
            return
        if event.ping.outcome == "answered":
            self._answered.set_result(event.ping)
