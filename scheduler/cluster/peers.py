"""Which schedulers are alive, and which of them pings an agent.

This divides the work and never decides what is true. If two schedulers ping the same agent, the
compare-and-set lets only one outcome into the bucket. If none pings it, the agent's timer fires.
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

ANNOUNCE_SECONDS = 1.0
SILENT_SECONDS = 3.5
GREETING_SECONDS = 0.25
Word = Literal["hello", "here", "bye"]


class Alive(Message, kw_only=True, frozen=True):
    """What one scheduler announces to the others; the subject names the sender."""

    word: Word


class Peers:
    """The schedulers heard within SILENT_SECONDS, and this one.

    `on_change` is called when a scheduler appears or disappears. `greeted` is set once the others
    had time to answer this scheduler's first announcement.
    """

    def __init__(self, client: Client, instance: str, on_change: Callable[[], None]) -> None:
        self._client = client
        self._instance = instance
        self.on_change = on_change
        self._heard_at: dict[str, float] = {}  # CLOCK_BOOTTIME, seconds, by instance
        self._heard_self_at = 0.0
        self._alive: tuple[str, ...] = (instance,)
        self.greeted = asyncio.Event()

    async def run(self) -> None:
        """Announces this scheduler until cancelled, and then announces that it leaves."""
        subscription = await self._client.subscribe(subjects.ALIVE_ALL, cb=self._receive)
        await self._announce("hello")
        await asyncio.sleep(GREETING_SECONDS)
        self.greeted.set()
        try:
            while True:
                await asyncio.sleep(ANNOUNCE_SECONDS)
                await self._announce("here")
                self._expire_silent()
        finally:
            if self._client.is_connected:
                await self._announce("bye")
                await subscription.unsubscribe()

    def is_mine(self, agent_id: str) -> bool:
        """Returns whether this scheduler pings the agent.

        The highest random weight decides, so that few agents change hands when a scheduler comes or
        goes.
        """
        if self.alone:
            return True

        def weight(instance: str) -> int:
            return zlib.crc32(f"{instance}:{agent_id}".encode())

        return max(self._alive, key=weight) == self._instance

    @property
    def alone(self) -> bool:
        """Whether no other scheduler is alive."""
        return len(self._alive) == 1

    async def _announce(self, word: Word) -> None:
        message = Alive(word=word)
        try:
            await self._client.publish(subjects.alive(self._instance), encode(message))
        except nats.errors.Error as error:
            log.debug("peer_announce_failed", detail=str(error))

    async def _receive(self, message: Msg) -> None:
        sender = message.subject.rpartition(".")[2]
        if sender == self._instance:
            self._heard_self_at = boottime()
            return
        try:
            word = decode(message.data, Alive).word
        except BadMessageError as error:
            log.warning("peer_message_rejected", detail=str(error))
            return
        if word == "bye":
            self._heard_at.pop(sender, None)
        else:
            self._heard_at[sender] = boottime()
        self._update_alive()
        if word == "hello":
            await self._announce("here")

    def _expire_silent(self) -> None:
        """Removes the peers that were silent while this scheduler heard its own announcements.

        While the bus is away this scheduler does not hear itself either, so no peer is removed.
        """
        expired_before = self._heard_self_at - SILENT_SECONDS
        self._heard_at = {
            instance: heard_at
            for instance, heard_at in self._heard_at.items()
            if heard_at > expired_before
        }
        self._update_alive()

    def _update_alive(self) -> None:
        alive = tuple(sorted((*self._heard_at, self._instance)))
        if alive != self._alive:
            log.info("schedulers_changed", alive=len(alive))
            self._alive = alive
            self.on_change()
