"""Tells the other gateways which ping this one is at, so that no two ask an agent for one ping.

The scheduler sends an unanswered ping again every 2 s, and the server may hand that to another
gateway. An agent counts anew from each question, so the second gateway must not ask while the first
is at it. A claim is repeated while the work goes on: where the gateway that made it has died, the
next resend finds no fresh one, and another gateway asks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from bus.background import background
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import decode, encode
from bus.errors import BadMessageError
from bus.transport.connection import Client

log = structlog.get_logger("gateway.bridge.claims")

REPEAT_SECONDS = 0.5
FRESH_SECONDS = 1.5  # less than the time after which a ping is sent again


class Claim(Struct, frozen=True):
    """`instance` asks the agent for this ping now."""

    instance: str
    agent_id: str
    ping_id: str


class Claims:
    """The claims of the other gateways, and this one's own."""

    def __init__(
        self,
        client: Client,
        instance: str,
        on_other: Callable[[str], None],
    ) -> None:
        """`on_other` is called with each agent that another gateway asks."""
        self._client = client
        self._instance = instance
        self._on_other = on_other
        self._heard: dict[str, float] = {}  # by ping_id: CLOCK_BOOTTIME, seconds

    async def listen(self) -> None:
        """Hears the claims of the others from now on."""
        await self._client.subscribe(subjects.BRIDGE_CLAIM, cb=self._hear)

    def is_taken(self, ping_id: str) -> bool:
        """Whether another gateway asks for this ping now."""
        heard_at = self._heard.get(ping_id)
        return heard_at is not None and boottime() - heard_at < FRESH_SECONDS

    @asynccontextmanager
    async def held(self, agent_id: str, ping_id: str) -> AsyncIterator[None]:
        """Claims a ping for the length of a block."""
        claim = encode(Claim(self._instance, agent_id, ping_id))
        await self._client.publish(subjects.BRIDGE_CLAIM, claim)
        async with background() as start:
            start(self._repeat(claim))
            yield

    async def _repeat(self, claim: bytes) -> None:
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            if self._client.is_connected:
                await self._client.publish(subjects.BRIDGE_CLAIM, claim)

    async def _hear(self, message: Msg) -> None:
        try:
            claim = decode(message.data, Claim)
        except BadMessageError as error:
            log.warning("claim_decode_failed", detail=str(error))
            return
        if claim.instance == self._instance:
            return
        now = boottime()
        for ping_id, heard_at in list(self._heard.items()):
            if now - heard_at > FRESH_SECONDS:
                del self._heard[ping_id]
        self._heard[claim.ping_id] = now
        self._on_other(claim.agent_id)
