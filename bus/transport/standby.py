"""Replicas of one service, of which some cannot answer as they should: those stand by.

Ready replicas share the questions in the service's own queue group. A replica on standby subscribes
in a second group, so it hears every question too, and answers only where no replica is ready.

A question that the replica which got it does not answer soon comes to every replica a second time
(`bus.transport.hedging`).
"""

import secrets

import nats.errors
from msgspec import Struct
from nats.micro.request import Request
from nats.micro.service import Endpoint as ServiceEndpoint
from nats.micro.service import Service

from bus.transport.connection import Client, forget_endpoint
from bus.transport.hedging import HedgedEndpoints
from bus.transport.micro_services import Answer, Endpoint, Handler, add

STANDBY_GROUP = "standby"
READY_SECONDS = (
    0.5  # a ready replica answers on `ready_subject` within this time, whatever else it does
)


class Replica:
    """One replica's endpoints, in one of the two groups. Ready ones answer on `ready_subject`."""

    def __init__(
        self,
        client: Client,
        service: Service,
        ready_subject: str,
        endpoints: list[Endpoint],
    ) -> None:
        self._client = client
        self._service = service
        self._ready_subject = ready_subject
        self._id = secrets.token_hex(8).encode()
        answered_now = [
            endpoint._replace(handler=self._as_it_stands(endpoint.handler))
            for endpoint in endpoints
        ]
        self._hedged = HedgedEndpoints(client, answered_now)
        # the ready endpoint comes last: when it answers, the others stand
        self._when_ready = [
            *self._hedged.endpoints,
            Endpoint("ready", ready_subject, self._say_ready),
        ]
        self._on_standby = self._hedged.endpoints
        self._added: list[ServiceEndpoint] = []
        self.ready: bool | None = None  # None before the first `set_ready`

    async def set_ready(self, *, ready: bool) -> None:
        """Changes the group. The new endpoints are added before the old ones go.

        No question is missed meanwhile; a few are answered twice.
        """
        if ready == self.ready:
            return
        before = self._added
        self._added = []
        endpoints = self._when_ready if ready else self._on_standby
        group = None if ready else STANDBY_GROUP
        for endpoint in endpoints:
            self._added.append(await add(self._service, endpoint, group))
        await self._client.settle()
        is_first = self.ready is None
        self.ready = ready
        if is_first:
            await self._hedged.listen()
        await self._remove(before)

    async def _remove(self, endpoints: list[ServiceEndpoint]) -> None:
        """Removes the ready endpoint first, so that no standby relies on this replica."""
        subscriptions = []
        for endpoint in reversed(endpoints):
            subscription = forget_endpoint(self._service, endpoint)
            if subscription is not None:
                subscriptions.append(subscription)
        await self._client.drain_callbacks(subscriptions)

    def _as_it_stands(self, handler: Handler) -> Handler:
        """Answers when ready, and on standby where no other replica is ready."""

        async def answer(request: Request) -> Struct | bytes | Answer | None:
            if not self.ready and await self._another_is_ready():
                return None
            return await handler(request)

        return answer

    async def _another_is_ready(self) -> bool:
        """Whether a replica other than this one is ready.

        This one may have become ready after the question came. It then answers the question itself,
        because it does not get it in the other group.
        """
        try:
            reply = await self._client.request(self._ready_subject, b"", timeout=READY_SECONDS)
        except nats.errors.Error:  # nobody listens there, or nobody answers in time
            return False
        return reply.data != self._id

    async def _say_ready(self, _request: Request) -> bytes:
        return self._id
