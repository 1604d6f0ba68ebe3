"""Copies whole streams out of the server and into it: the snapshots of JetStream.

A snapshot is the server's own format (a compressed tar of its store). It keeps sequences, headers
and timestamps. Every chunk is acknowledged, which sets the pace.
"""

import asyncio
from collections.abc import Callable, Iterable

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.errors import BusError, UnavailableError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.jetstream_api import JsonObject

log = structlog.get_logger("bus.transport.stream_snapshot")

CHUNK_BYTES = 128 * 1024
NO_MORE = "204"  # the status at the end of a snapshot of several chunks
START_SECONDS = 60.0  # the server checks its files first
SILENT_SECONDS = 60.0  # between two chunks
FINISH_SECONDS = 600.0  # the server unpacks and indexes what it was sent


class _Receiver:
    """Receives the chunks of one snapshot."""

    def __init__(self, client: Client, write: Callable[[bytes], None]) -> None:
        self._client = client
        self._write = write
        self._arrived = asyncio.Event()
        self._is_complete = False
        self._failure: str | None = None
        self._write_error: Exception | None = None

    async def receive(self, message: Msg) -> None:
        if message.data:
            try:
                self._write(message.data)
            except Exception as error:  # noqa: BLE001  # raised by `wait`: nobody awaits this
                self._write_error = error
                self._arrived.set()
                return
        else:
            self._is_complete = True
            status = (message.headers or {}).get("Status")
            if status not in (None, NO_MORE):
                self._failure = (message.headers or {}).get("Description", status)
        if message.reply:
            await self._client.publish(message.reply, b"")
        self._arrived.set()

    async def wait(self) -> None:
        """Returns after the last chunk.

        Raises BusError when it does not come, and whatever writing a chunk raised.
        """
        while not self._is_complete and self._write_error is None:
            self._arrived.clear()
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                raise UnavailableError("the server stopped sending the snapshot") from None
        if self._write_error is not None:
            raise self._write_error
        if self._failure is not None:
            raise BusError(f"the server gave up the snapshot: {self._failure}")


async def take(
    client: Client,
    stream: str,
    write: Callable[[bytes], None],
) -> JsonObject:
    """Takes a snapshot while the stream is in use; calls `write` with each chunk.

    Returns `config` and `state` of the stream as they were at the beginning. Raises BusError.
    """
    receiver = _Receiver(client, write)
    inbox = client.new_inbox()
    subscription = await client.subscribe(
        inbox, cb=receiver.receive, pending_bytes_limit=512 * 1024 * 1024
    )
    body = {
        "deliver_subject": inbox,
        "no_consumers": True,
        "chunk_size": CHUNK_BYTES,
        "jsck": True,
    }
    try:
        answer = await jetstream_api.call(client, f"STREAM.SNAPSHOT.{stream}", body, START_SECONDS)
        await receiver.wait()
    finally:
        await subscription.unsubscribe()
    return {"config": answer["config"], "state": answer["state"]}


async def put(
    client: Client,
    config: JsonObject,
    state: JsonObject,
    chunks: Iterable[bytes],
) -> JsonObject:
    """Makes the stream of a snapshot, which must not exist. Returns its information.

    `config` may differ from that of the snapshot where the server allows it. Raises BusError.
    """
    stream = config["name"]
    body = {"config": config, "state": state}
    answer = await jetstream_api.call(client, f"STREAM.RESTORE.{stream}", body, START_SECONDS)
    subject = answer["deliver_subject"]
    try:
        for chunk in chunks:
            reply = await client.request(subject, chunk, timeout=SILENT_SECONDS)
            if reply.data:
                jetstream_api.answer_of(reply.data)
        reply = await client.request(subject, b"", timeout=FINISH_SECONDS)
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError(
            f"the server stopped taking the snapshot of {stream}: {type(error).__name__}"
        ) from None
    return jetstream_api.answer_of(reply.data)
