"""Reads the history stream into the store: in order, in batches, acknowledged after the commit.

The history file decides how far ingest has come, and not the consumer. Whenever reading begins, the
durable consumer is made anew behind the file's position. When a delivery is lost, reading begins
again. So nothing here depends on redelivery, and the state of the consumer is only for people to
look at.
"""

import asyncio
import base64
from datetime import datetime
from typing import Any

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.background import cancel_all, wait_at_most
from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import jetstream_api, layout
from bus.transport.connection import Client
from bus.transport.consumers.ordered_consumer import OrderedConsumer
from bus.transport.consumers.pull_consumer import Delivery, delivery_of
from bus.transport.jetstream_api import JetStreamApiError
from storage.engine.errors import CannotWriteError, DamagedError, StorageError
from storage.engine.rows import Arrival, microseconds
from storage.ingest.decode import SIGNATURE_HEADER, TOMBSTONE_HEADER
from storage.ingest.position import fingerprint
from storage.store.store import Prepared, Store
from storage.stream.catch_up import CatchUp
from storage.stream.resume import Start, StreamState, choose_start
from storage.stream.wait_log import WaitLog

log = structlog.get_logger("storage")

# With half as many rows, the cost of the transaction itself is a fifth of the whole (measured).
BATCH_ROWS = 20_000
# How long a batch waits for more after its first message.
BATCH_SECONDS = 0.1
# Messages that wait in memory. As many may be in decoding, and as many in writing.
BUFFER_ROOM = 20_000
RETRY_SECONDS = 1.0


class Feed:
    """Keeps the store up to date with the stream until it is cancelled."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        store: Store,
        consumer: str | None = None,
    ) -> None:
        self.catch_up = CatchUp()
        self.wait_log = WaitLog()
        self._client = client
        self._settings = settings
        self._store = store
        self._durable_name = consumer or settings.STORAGE_NAME
        self._consumer = OrderedConsumer(client, subjects.HISTORY_STREAM, self._deliver, self._room)
        self._arrived = asyncio.Event()
        self._buffer: list[tuple[Msg, int]] = []  # messages and their sequence numbers
        self._stream_us = 0

    async def run(self) -> None:
        """Reads for ever. When the bus is away or the disk is full, it waits and tries again."""
        while True:
            try:
                await self._read_once()
            except (BusError, CannotWriteError, DamagedError) as error:
                self.wait_log.waiting(str(error))
                if not isinstance(error, DamagedError):
                    await asyncio.sleep(RETRY_SECONDS)

    async def _read_once(self) -> None:
        """Reads until the consumer is lost or the file fails."""
        if self._store.waiting is not None:
            self.catch_up.reset()
            await self._store.open(utc_now())
        await self._create_consumer()
        if self.catch_up.complete:
            self.wait_log.running()
        await self._follow()

    async def _create_consumer(self) -> None:
        """Makes a consumer that begins right after what the file has."""
        await layout.ensure(self._client, self._settings)
        self._arrived.clear()
        self._buffer.clear()
        info = await jetstream_api.call(self._client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
        self._stream_us = microseconds(datetime.fromisoformat(info["created"]))
        start = await self._choose_start(info)
        pending = await self._consumer.create(self._consumer_config(), start.consumer)
        self.catch_up.begin(pending)

    async def _choose_start(self, info: dict[str, Any]) -> Start:
        assert self._store.ingest  # noqa: S101  # open
        position = self._store.ingest.position
        there = None
        if position is not None:
            there = await self._fingerprint_at(position.sequence)
        stream = StreamState(self._stream_us, info["state"]["first_seq"], there)
        start = choose_start(position, stream, self._store.ingest.newest_us, utc_now())
        _log_start(start, info["state"]["messages"])
        return start

    async def _fingerprint_at(self, sequence: int) -> str | None:
        """The fingerprint of the message that has this number in the stream.

        None where there is none.
        """
        request = {"seq": sequence}
        subject = f"STREAM.MSG.GET.{subjects.HISTORY_STREAM}"
        try:
            answer = await jetstream_api.call(self._client, subject, request)
        except JetStreamApiError:
            return None
        message = answer["message"]
        data = base64.b64decode(message.get("data", ""))
        return fingerprint(data, _agent_id(message["subject"]))

    def _consumer_config(self) -> dict[str, Any]:
        """An hour until redelivery, for ingest does not rely on it."""
        config: dict[str, Any] = {
            "durable_name": self._durable_name,
            "ack_policy": "all",
            "ack_wait": 3600 * 1_000_000_000,
            "max_ack_pending": 4 * BUFFER_ROOM,
        }
        if self._durable_name != self._settings.STORAGE_NAME:
            config["inactive_threshold"] = 3600 * 1_000_000_000  # of a rebuild, which may crash
        return config

    async def _follow(self) -> None:
        """Pulls, decodes and writes until the consumer is lost.

        A batch is decoded while the last one is written.
        """
        pulling = asyncio.create_task(self._consumer.run())
        pulling.add_done_callback(lambda _: self._arrived.set())
        failing = asyncio.create_task(self._store.failed.wait())
        failing.add_done_callback(self._on_failed)
        writing: asyncio.Task[None] | None = None
        try:
            while not self._consumer.is_lost:
                batch = await self._next_batch()
                if not batch:
                    continue
                prepared = await self._store.prepare(_arrivals(batch))
                if writing is not None:
                    await writing
                last_message, _ = batch[-1]
                writing = asyncio.create_task(self._write(prepared, last_message))
        finally:
            await cancel_all([pulling, failing])
            if writing is not None:
                # It has begun, and where reading begins again depends on it.
                await writing

    async def _next_batch(self) -> list[tuple[Msg, int]]:
        """Takes what has arrived, at once where it fills a batch.

        Otherwise it waits BATCH_SECONDS after the first message. Empty when the consumer is lost.
        """
        await self._arrived.wait()
        await self._fill_buffer(boottime() + BATCH_SECONDS)
        batch = self._buffer[:BATCH_ROWS]
        del self._buffer[:BATCH_ROWS]
        if self._buffer or self._consumer.is_lost:
            self._arrived.set()
        else:
            self._arrived.clear()
        return batch

    async def _fill_buffer(self, deadline: float) -> None:
        """Waits until there is enough for a batch, the deadline, or the loss of the consumer."""
        while len(self._buffer) < BATCH_ROWS and not self._consumer.is_lost:
            left = deadline - boottime()
            if left <= 0:
                return
            self._arrived.clear()
            if not await wait_at_most(self._arrived, left):
                return

    async def _write(self, prepared: Prepared, last_message: Msg) -> None:
        """Commits a batch and acknowledges its last message. Raises StorageError."""
        last = delivery_of(last_message)
        try:
            await self._store.write(self._stream_us, prepared)
        except StorageError:
            self.wait_log.write_failed(last.sequence)
            raise
        self.catch_up.advance(last.number, last.pending)
        if self.catch_up.complete:
            self.wait_log.running()
        else:
            self.wait_log.written(last.sequence)
        self._consumer.room_freed()
        await self._acknowledge(last_message)

    async def _acknowledge(self, message: Msg) -> None:
        """Tells the server how far ingest has come.

        Nothing depends on it, so a failure is ignored.
        """
        if not self._client.is_connected:
            return
        try:
            await self._client.publish(message.reply, b"+ACK")
        except nats.errors.Error as error:
            log.debug("ack_failed", detail=str(error))

    def _room(self) -> int:
        return BUFFER_ROOM - len(self._buffer)

    def _deliver(self, message: Msg, where: Delivery) -> None:
        self._buffer.append((message, where.sequence))
        self._arrived.set()

    def _on_failed(self, failing: asyncio.Task[bool]) -> None:
        """Stops reading when the history file must be opened again."""
        if not failing.cancelled():
            self.catch_up.reset()
        self._consumer.stop()


def _log_start(start: Start, messages: int) -> None:
    """Logs why reading begins there, unless it goes on as usual."""
    match start.reason:
        case "ingest_started_from_beginning":
            log.info(start.reason, messages=messages)
        case "unread_outcomes_expired":
            log.warning(start.reason, messages=start.unread)
        case "stream_renumbered":
            since = start.consumer.get("opt_start_time", "all of it")
            log.warning(start.reason, reading=since)


def _arrivals(batch: list[tuple[Msg, int]]) -> list[Arrival]:
    return [_arrival(message, sequence) for message, sequence in batch]


def _arrival(message: Msg, sequence: int) -> Arrival:
    headers = message.headers or {}
    tombstone = TOMBSTONE_HEADER in headers
    data = message.data
    if tombstone:
        data = b""
    return Arrival(
        sequence=sequence,
        agent_id=_agent_id(message.subject),
        data=data,
        signature=headers.get(SIGNATURE_HEADER),
        tombstone=tombstone,
    )


def _agent_id(subject: str) -> str:
    return subject.removeprefix(subjects.HISTORY_PREFIX)
