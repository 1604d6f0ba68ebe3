"""Which schedulers are alive, and which of them looks after an agent.

Only a division of labour, never a matter of truth: two that both believe an agent theirs ping it twice, and
the compare-and-set lets one outcome stand; an agent that nobody believes his is caught by its timer.
"""

import asyncio
import zlib
from collections.abc import Callable
from typing import Literal

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import Message, decode, encode
from bus.errors import BadMessageError
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.cluster.peers")

BEAT_SECONDS = 1.0
SILENT_SECONDS = 3.5
GREETING_SECONDS = 0.25
Word = Literal["hello", "here", "bye"]


class Alive(Message, kw_only=True, frozen=True):
    """What one scheduler tells the others; its subject says who."""

    word: Word


class Peers:
    """Schedulers heard lately, this one among them."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client, self._instance = client, instance
        self._heard: dict[str, float] = {}
        self._heard_self = 0.0
        self._alive: tuple[str, ...] = (instance,)
        self.changed: Callable[[], None] = lambda: None  # called when one comes or goes
        self.greeted = asyncio.Event()  # those who are there had time to say so

    async def run(self) -> None:
        """Says that it is here until cancelled, and then goodbye."""
        subscription = await self._client.subscribe(subjects.ALIVE_ALL, cb=self._hear)
        await self._say("hello")
        await asyncio.sleep(GREETING_SECONDS)
        self.greeted.set()
        try:
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                await self._say("here")
                self._forget_silent()
        finally:
            if self._client.is_connected:
                await self._say("bye")
                await subscription.unsubscribe()

    def is_mine(self, agent_id: str) -> bool:
        """Whether this scheduler looks after the agent: highest random weight, so few agents move at a change."""
        if self.alone:
            return True
        return (
            max(self._alive, key=lambda peer: zlib.crc32(f"{peer}:{agent_id}".encode()))
            == self._instance
        )

    @property
    def alone(self) -> bool:
        """Whether no other scheduler is about."""
        return len(self._alive) == 1

    async def _say(self, word: Word) -> None:
        try:
            await self._client.publish(subjects.alive(self._instance), encode(Alive(word=word)))
        except nats.errors.Error as error:
            log.debug("peers_not_told", detail=str(error))

    async def _hear(self, message: Msg) -> None:
        peer = message.subject.rpartition(".")[2]
        if peer == self._instance:
            self._heard_self = boottime()
            return
        try:
            word = decode(message.data, Alive).word
        except BadMessageError as error:
            log.warning("bad_alive_message", detail=str(error))
            return
        if word == "bye":
            self._heard.pop(peer, None)
        else:
            self._heard[peer] = boottime()
        self._settle()
        if word == "hello":
            await self._say("here")

    def _forget_silent(self) -> None:
        """Silent is who was not heard while this scheduler heard itself: when the bus is away, everybody is silent."""
        self._heard = {
            peer: at for peer, at in self._heard.items() if self._heard_self - at < SILENT_SECONDS
        }
        self._settle()

    def _settle(self) -> None:
        alive = tuple(sorted((*self._heard, self._instance)))
        if alive != self._alive:
            log.info("schedulers_changed", alive=len(alive))
            self._alive = alive
            self.changed()
