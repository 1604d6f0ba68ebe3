"""From the history stream into the store: read in order, written in batches, acknowledged after the commit.

The history file is the authority on how far ingest has come, not the consumer: at each (re)connection the
durable consumer is made anew behind the file's position. Deliveries are counted; when one falls out, the same
is done again. So nothing here depends on redelivery, and the consumer's own state is for people to look at.
"""

import asyncio
import base64
from datetime import datetime
from typing import Any

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.background import end
from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import jetstream_api, layout
from bus.transport.connection import Client
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.ordered_consumer import OrderedConsumer
from bus.transport.pull_consumer import Delivery, delivery_of
from storage.engine.errors import CannotWriteError, DamagedError, StorageError
from storage.engine.rows import Arrival, microseconds
from storage.ingest.decode import SIGNATURE_HEADER, TOMBSTONE_HEADER
from storage.ingest.position import fingerprint
from storage.store.store import Prepared, Store
from storage.stream.catch_up import CatchUp
from storage.stream.resume import Start, Stream, beginning
from storage.stream.wait_log import WaitLog

log = structlog.get_logger("storage")

BATCH_ROWS = 20_000  # a transaction's own cost is a fifth of the whole with half as many
BATCH_SECONDS = 0.1
ROOM = 20_000  # messages that wait in memory; as many are decoded, and as many written
RETRY_SECONDS = 1.0


class Feed:
    """Keeps the store up with the stream until cancelled."""

    def __init__(
        self, client: Client, settings: Settings, store: Store, consumer: str | None = None
    ) -> None:
        self._client, self._settings, self._store = client, settings, store
        self._durable_name = consumer or settings.STORAGE_NAME
        self._consumer = OrderedConsumer(client, subjects.HISTORY_STREAM, self._deliver, self._room)
        self.catch_up = CatchUp()
        self.wait_log = WaitLog()
        self._arrived = asyncio.Event()
        self._buffer: list[tuple[Msg, int]] = []
        self._stream_us = 0

    async def run(self) -> None:
        """Never ends by itself: a bus that is away and a disk that is full are waited for."""
        while True:
            try:
                if self._store.waiting is not None:
                    self.catch_up.unknown()
                    await self._store.open(utc_now())
                await self._attach()
                if self.catch_up.complete:
                    self.wait_log.over()
                await self._follow()
            except (BusError, CannotWriteError, DamagedError) as error:
                self.wait_log.waits(str(error))
                if not isinstance(error, DamagedError):
                    await asyncio.sleep(RETRY_SECONDS)

    async def _attach(self) -> None:
        """A consumer that begins right after what the file holds."""
        await layout.ensure(self._client, self._settings)
        self._arrived.clear()
        self._buffer.clear()
        info = await jetstream_api.call(self._client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
        self._stream_us = microseconds(datetime.fromisoformat(info["created"]))
        start = await self._start(info)
        pending = await self._consumer.create(self._consumer_config(), start)
        self.catch_up.begins(pending)

    async def _start(self, info: dict[str, Any]) -> dict[str, Any]:
        """Where to begin, as the consumer must be told."""
        assert self._store.ingest  # noqa: S101  # open
        held, newest_us = self._store.ingest.position, self._store.ingest.newest_us
        there = await self._fingerprint_at(held.sequence) if held else None
        stream = Stream(self._stream_us, info["state"]["first_seq"], there)
        start = beginning(held, stream, newest_us, utc_now())
        _say_start(start, info["state"]["messages"])
        return start.consumer

    async def _fingerprint_at(self, sequence: int) -> str | None:
        try:
            answer = await jetstream_api.call(
                self._client, f"STREAM.MSG.GET.{subjects.HISTORY_STREAM}", {"seq": sequence}
            )
        except JetStreamApiError:
            return None
        message = answer["message"]
        return fingerprint(base64.b64decode(message.get("data", "")), _agent_id(message["subject"]))

    def _consumer_config(self) -> dict[str, Any]:
        return {
            "durable_name": self._durable_name,
            "ack_policy": "all",
            "ack_wait": 3600 * 1_000_000_000,  # redelivery is not what we rely on
            "max_ack_pending": 4 * ROOM,
        }

    async def _follow(self) -> None:
        """Pulls and writes until the consumer or a delivery is lost."""
        pulling = asyncio.create_task(self._consumer.run())
        pulling.add_done_callback(lambda _: self._arrived.set())
        failing = asyncio.create_task(self._store.failed.wait())
        failing.add_done_callback(self._on_failed)
        writing: asyncio.Task[None] | None = None
        try:
            while not self._consumer.is_lost:
                if batch := await self._batch():
                    prepared = await self._store.prepare(_arrivals(batch))
                    if writing is not None:
                        await writing
                    writing = asyncio.create_task(self._write(prepared, batch[-1][0]))
        finally:
            await end([pulling, failing])
            if writing is not None:
                await writing  # begun: the next position follows from it

    async def _batch(self) -> list[tuple[Msg, int]]:
        """What has arrived: at once when much has, else a moment after the first."""
        await self._arrived.wait()
        deadline = boottime() + BATCH_SECONDS
        while (
            len(self._buffer) < BATCH_ROWS
            and not self._consumer.is_lost
            and (left := deadline - boottime()) > 0
        ):
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                break
        batch, self._buffer[:BATCH_ROWS] = self._buffer[:BATCH_ROWS], []
        if self._buffer or self._consumer.is_lost:
            self._arrived.set()
        else:
            self._arrived.clear()
        return batch

    async def _write(self, prepared: Prepared, last: Msg) -> None:
        where = delivery_of(last)
        try:
            await self._store.write(self._stream_us, prepared)
        except StorageError:
            self.wait_log.stuck(where.sequence)
            raise
        self.catch_up.reached(where.number, where.pending)
        self._say_written(where.sequence)
        self._consumer.room_freed()
        if self._client.is_connected:
            try:
                await self._client.publish(last.reply, b"+ACK")
            except nats.errors.Error as error:
                log.debug("ack_lost", detail=str(error))  # for people to look at only

    def _say_written(self, sequence: int) -> None:
        if self.catch_up.complete:
            self.wait_log.over()
        else:
            self.wait_log.written(sequence)

    def _room(self) -> int:
        return ROOM - len(self._buffer)

    def _deliver(self, message: Msg, where: Delivery) -> None:
        self._buffer.append((message, where.sequence))
        self._arrived.set()

    def _on_failed(self, failing: asyncio.Task[bool]) -> None:
        if not failing.cancelled():
            self.catch_up.unknown()
        self._consumer.stop()


def _say_start(start: Start, messages: int) -> None:
    """What is as usual is not worth a line."""
    match start.reason:
        case "ingest_from_the_beginning":
            log.info(start.reason, messages=messages)
        case "history_expired_before_it_was_read":
            log.warning(start.reason, messages=start.unread)
        case "stream_numbered_anew":
            log.warning(start.reason, reading=start.consumer.get("opt_start_time", "all of it"))


def _arrivals(batch: list[tuple[Msg, int]]) -> list[Arrival]:
    return [_arrival(message, sequence) for message, sequence in batch]


def _arrival(message: Msg, sequence: int) -> Arrival:
    headers = message.headers or {}
    tombstone = TOMBSTONE_HEADER in headers
    return Arrival(
        sequence=sequence,
        agent_id=_agent_id(message.subject),
        data=b"" if tombstone else message.data,
        signature=headers.get(SIGNATURE_HEADER),
        tombstone=tombstone,
    )


def _agent_id(subject: str) -> str:
    return subject.removeprefix(subjects.HISTORY_PREFIX)
