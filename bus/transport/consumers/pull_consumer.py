"""Reads a JetStream pull consumer and never asks for more messages than there is room for.

It has one inbox for as long as it runs, and sends pull requests for many messages with heartbeats.
It asks again when the server is silent or the connection was lost. nats-py's `fetch` makes a
subscription and raises a time-out on each call, which costs too much at ten thousand messages a
second.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from nats.aio.msg import Msg

from bus.background import wait_at_most
from bus.clock import boottime
from bus.contract import subjects
from bus.errors import BusError
from bus.transport.connection import Client

log = structlog.get_logger("bus.transport.consumers.pull_consumer")

EXPIRES_SECONDS = 30.0
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
_NANOSECONDS = 1_000_000_000


class Delivery(NamedTuple):
    """What the reply subject of a delivered message says.

    `sequence` is the stream's, `number` counts the consumer's deliveries from 1, `time_ns` is when
    the message was stored (ns since 1970), `pending` is how many messages the consumer has to
    deliver still.
    """

    sequence: int
    number: int
    time_ns: int
    pending: int


def delivery_of(message: Msg) -> Delivery:
    """The delivery of a message, from its reply subject.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<cseq>.<time>.<pending>`, or with domain and
    account before the stream and a token of random text at the end.
    """
    tokens = message.reply.split(".")
    if len(tokens) == 9:
        tokens = tokens[2:]
    else:
        tokens = tokens[4:11]
    sequence, number, time_ns, pending = tokens[3:7]
    return Delivery(int(sequence), int(number), int(time_ns), int(pending))


class PullConsumer:
    """Calls `deliver` with each message of a pull consumer.

    `room` returns how many messages may be outstanding now. `lost` is awaited when the consumer
    does not exist any more (it or its stream was deleted); it should create the consumer again.
    `delivered` is called with each heartbeat's count of messages that the server has delivered.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        consumer: str,
        deliver: Callable[[Msg], None],
        room: Callable[[], int],
        lost: Callable[[], Awaitable[None]],
        delivered: Callable[[int], None] | None = None,
    ) -> None:
        self._client = client
        self._name = consumer
        self._subject = subjects.jetstream_api(f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._deliver = deliver
        self._room = room
        self._lost = lost
        self._delivered = delivered
        self._inbox = client.new_inbox()
        self._outstanding = 0  # messages asked for and not yet delivered
        self._heard_at = boottime()
        self._is_gone = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Pulls until cancelled."""
        async with self._client.listening(f"{self._inbox}.*", self._receive):
            while True:
                self._wake.clear()
                if self._is_gone:
                    await self._create_again()
                await self._ask_for_more()
                await self._wait()

    def room_freed(self) -> None:
        """`room` has become larger: more may be asked for."""
        self._wake.set()

    async def pull_again(self) -> None:
        """Asks again. Call it after a reconnection: the server has dropped the pull requests."""
        self._outstanding = 0
        self._wake.set()

    async def _wait(self) -> None:
        """Waits until something changes. What was asked of a silent server is given up."""
        if await wait_at_most(self._wake, HEARTBEAT_SECONDS):
            return
        silent_seconds = boottime() - self._heard_at
        if self._outstanding and silent_seconds > SILENCE_SECONDS:
            self._outstanding = 0

    async def _ask_for_more(self) -> None:
        wanted = self._room() - self._outstanding
        if wanted <= 0 or not self._client.is_connected:
            return
        if wanted < self._outstanding:
            return  # small top-ups would cost a request for every message
        body = {
            "batch": wanted,
            "expires": int(EXPIRES_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        if not self._outstanding:
            self._heard_at = boottime()
        self._outstanding += wanted
        payload = json.dumps(body).encode()
        await self._client.publish(self._subject, payload, reply=f"{self._inbox}.{wanted}")

    async def _create_again(self) -> None:
        try:
            await self._lost()
        except BusError as error:
            log.warning("consumer_create_failed", consumer=self._name, detail=str(error))
        else:
            self._is_gone = False

    def _receive(self, message: Msg) -> None:
        self._heard_at = boottime()
        is_status = message.headers is not None and "Status" in message.headers
        if is_status or not message.reply:
            self._receive_status(message)
            return
        self._outstanding = max(0, self._outstanding - 1)
        self._deliver(message)
        if self._outstanding == 0 or self._room() > 2 * self._outstanding:
            self._wake.set()

    def _receive_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "100":  # a heartbeat
            number = headers.get("Nats-Last-Consumer", "")
            if self._delivered is not None and number.isdecimal():
                self._delivered(int(number))
            return
        dropped = int(headers.get("Nats-Pending-Messages", "0"))
        self._outstanding = max(0, self._outstanding - dropped)
        is_deleted = status == "409" and "Deleted" in headers.get("Description", "")
        if is_deleted or status == "503":
            log.warning("consumer_lost", consumer=self._name, status=status)
            self._outstanding = 0
            self._is_gone = True
        self._wake.set()
