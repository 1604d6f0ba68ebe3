"""Reading a JetStream pull consumer without ever asking for more than there is room for.

One standing inbox, batched pull requests with heartbeats, and a renewal whenever the server falls silent or
the connection came back. nats-py's `fetch` makes a subscription and a time-out exception per call, which a
loop of ten thousand messages a second cannot afford.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from nats.aio.msg import Msg

from bus.clock import boottime
from bus.contract import subjects
from bus.errors import BusError
from bus.transport.connection import Client

log = structlog.get_logger("bus.transport.pull_consumer")

EXPIRES_SECONDS = 30.0
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
_NANOSECONDS = 1_000_000_000


class Delivery(NamedTuple):
    """What a reply subject tells: stream sequence, the consumer's count, time (ns since 1970), messages to come."""

    sequence: int
    number: int
    time_ns: int
    pending: int


def delivery_of(message: Msg) -> Delivery:
    """Read from `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<cseq>.<time>.<pending>` (or with a domain)."""
    tokens = message.reply.split(".")
    tokens = tokens[-7:] if len(tokens) == 9 else tokens[4:11]
    return Delivery(int(tokens[3]), int(tokens[4]), int(tokens[5]), int(tokens[6]))


class PullConsumer:
    """Feeds `deliver` from a pull consumer; `room` says how many more messages may be asked for now.

    `lost` is awaited when the consumer is gone (deleted, or its stream was); make it again there.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        consumer: str,
        deliver: Callable[[Msg], None],
        room: Callable[[], int],
        lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._subject = subjects.jetstream_api(f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._deliver, self._room, self._lost = deliver, room, lost
        self._inbox = client.new_inbox()
        self._asked = 0  # messages asked for and not yet delivered
        self._heard = boottime()
        self._gone = False  # the consumer
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Pulls until cancelled."""
        async with self._client.listening(f"{self._inbox}.*", self._receive):
            while True:
                self._wake.clear()
                if self._gone:
                    await self._make_again()
                await self._ask_for_more()
                await self._until_woken()

    def room_freed(self) -> None:
        """There is room again."""
        self._wake.set()

    async def pull_again(self) -> None:
        """Asks again: to be called after a reconnection, when the server has forgotten what was asked."""
        self._asked = 0
        self._wake.set()

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(
                HEARTBEAT_SECONDS
            ):  # wait_for can swallow a cancellation before Python 3.12
                await self._wake.wait()
        except TimeoutError:
            if self._asked and boottime() - self._heard > SILENCE_SECONDS:
                self._asked = 0

    async def _ask_for_more(self) -> None:
        wanted = self._room() - self._asked
        # small top-ups would cost a request for every message
        if wanted <= 0 or (self._asked and wanted < self._asked) or not self._client.is_connected:
            return
        body = {
            "batch": wanted,
            "expires": int(EXPIRES_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        if not self._asked:
            self._heard = boottime()
        self._asked += wanted
        await self._client.publish(
            self._subject, json.dumps(body).encode(), reply=f"{self._inbox}.{wanted}"
        )

    async def _make_again(self) -> None:
        try:
            await self._lost()
        except BusError as error:
            log.warning(
                "consumer_not_made", consumer=self._subject.rpartition(".")[2], detail=str(error)
            )
        else:
            self._gone = False

    def _receive(self, message: Msg) -> None:
        self._heard = boottime()
        if message.reply and not (message.headers and "Status" in message.headers):
            self._asked = max(0, self._asked - 1)
            self._deliver(message)
            if self._asked == 0 or self._room() > 2 * self._asked:
                self._wake.set()
            return
        self._status(message)

    def _status(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == "100":  # a heartbeat
            return
        self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", "0")))
        if status == "503" or (status == "409" and "Deleted" in headers.get("Description", "")):
            log.warning("consumer_lost", consumer=self._subject.rpartition(".")[2], status=status)
            self._asked = 0
            self._gone = True
        self._wake.set()
