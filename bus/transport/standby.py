"""Replicas of one service, of which some cannot answer as they should: those stand by.

Who stands by hears the same questions in a queue group of its own, and speaks only where no replica is ready: alone
it says what it can, or why it cannot; beside one that is ready it takes no question from it.
"""

import secrets

import nats.errors
from msgspec import Struct
from nats.micro.request import Request
from nats.micro.service import Endpoint as Standing
from nats.micro.service import Service

from bus.transport.connection import Client
from bus.transport.micro_services import Endpoint, Handler, add

STANDBY_GROUP = "standby"
READY_SECONDS = 0.5  # who is ready says so within this time, whatever else it does


class Replica:
    """The endpoints of a micro service, in one group or the other. Whoever is ready answers on `ready_subject`."""

    def __init__(
        self, client: Client, service: Service, ready_subject: str, endpoints: list[Endpoint]
    ) -> None:
        self._client, self._service, self._ready_subject = client, service, ready_subject
        self._id = secrets.token_hex(8).encode()
        self._ready = [
            *endpoints,
            Endpoint("ready", ready_subject, self._here),
        ]  # last: it says that the others stand
        self._standing_by = [
            one._replace(handler=self._unless_another_is_ready(one.handler)) for one in endpoints
        ]
        self._standing: list[Standing] = []
        self.ready: bool | None = None  # None: neither yet

    async def be(self, *, ready: bool) -> None:
        """Ready or standing by. At each moment in between it hears every question, a few of them twice."""
        if ready == self.ready:
            return
        before, self._standing = self._standing, []
        for endpoint in self._ready if ready else self._standing_by:
            self._standing.append(
                await add(self._service, endpoint, None if ready else STANDBY_GROUP)
            )
        await self._client.settle()
        self.ready = ready
        await self._leave(before)

    async def _leave(self, before: list[Standing]) -> None:
        """Who is no longer ready says so first: what it would not hear, another must answer."""
        for one in before:
            self._service._endpoints.remove(one)  # noqa: SLF001  # nats.micro takes no endpoint back
        leaving = [one._subscription for one in reversed(before) if one._subscription]  # noqa: SLF001
        await self._client.hear_out(leaving)

    def _unless_another_is_ready(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Struct | bytes | None:
            return None if await self._another_is_ready() else await handler(request)

        return answer

    async def _another_is_ready(self) -> bool:
        """Not this one: it may have become ready after the question came, and would hear it in no other group."""
        try:
            reply = await self._client.request(self._ready_subject, b"", timeout=READY_SECONDS)
        except nats.errors.Error:  # nobody listens, or nobody says so
            return False
        return reply.data != self._id

    async def _here(self, _request: Request) -> bytes:
        return self._id
