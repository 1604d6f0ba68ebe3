"""Files over the bus: offered once and fetched in pieces that fit into a message.

The receiver asks for each piece, several ahead, and so sets the pace. The offer names a subject of
the one process that holds the file, because replicas share all other subjects.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Protocol

import nats.errors
import structlog
from msgspec import Meta
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import Message, decode, encode
from bus.errors import BadMessageError, RefusedError, UnavailableError
from bus.transport.connection import Client

log = structlog.get_logger("bus.transport.file_transfer")

PIECE_BYTES = 256 * 1024
AHEAD = 4  # pieces asked for at a time
IDLE_SECONDS = 60.0
MOST_FILES = 16
LARGEST_FILE_BYTES = 2**50


class FileOffer(Message, kw_only=True, frozen=True):
    """An offered file, kept until nobody has asked for a piece for IDLE_SECONDS.

    `name` is a file name for saving it.
    """

    subject: str
    name: str
    media_type: str
    total_bytes: int
    piece_bytes: int


class PieceRequest(Message, kw_only=True, frozen=True):
    """Asks for the bytes from `offset` on. An offset at the file's end releases the file."""

    offset: Annotated[int, Meta(ge=0, le=LARGEST_FILE_BYTES)]


class _Subscription(Protocol):
    async def unsubscribe(self) -> None: ...


class Files:
    """The offering side. Files are deleted when they are released or not asked for any more."""

    def __init__(self, client: Client, idle_seconds: float = IDLE_SECONDS) -> None:
        self._client = client
        self._idle_seconds = idle_seconds
        self._instance = secrets.token_hex(8)
        self._held: dict[str, tuple[Path, asyncio.TimerHandle]] = {}
        self._subscription: _Subscription | None = None

    async def start(self) -> None:
        """Subscribes to the subject of this process."""
        self._subscription = await self._client.subscribe(
            subjects.file(self._instance, "*"), cb=self._answer
        )

    async def stop(self) -> None:
        """Unsubscribes and deletes all files."""
        if self._subscription is not None and not self._client.is_closed:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
        for token in list(self._held):
            self._drop(token)

    def check_room(self) -> None:
        """Raises RefusedError (429) while MOST_FILES files are kept."""
        if len(self._held) >= MOST_FILES:
            raise RefusedError(
                429, f"{MOST_FILES} files wait to be fetched already; ask again in a minute"
            )

    def offer(
        self,
        path: Path,
        name: str,
        media_type: str,
    ) -> FileOffer:
        """Offers a file, and owns it from now on: `Files` deletes it."""
        token = secrets.token_hex(16)
        self._held[token] = (path, self._expiry(token))
        return FileOffer(
            subject=subjects.file(self._instance, token),
            name=name,
            media_type=media_type,
            total_bytes=path.stat().st_size,
            piece_bytes=self._piece_bytes(),
        )

    async def _answer(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        held = self._held.get(token)
        if held is None or not message.reply:
            return
        path, expiry = held
        try:
            offset = decode(message.data, PieceRequest).offset
        except BadMessageError as error:
            log.warning("piece_request_refused", detail=str(error))
            return  # the expiry is not put off
        expiry.cancel()
        try:
            piece = await asyncio.to_thread(_read, path, offset, self._piece_bytes())
            await message.respond(piece)
        finally:
            if token in self._held:
                self._held[token] = (path, self._expiry(token))
        if not piece:
            self._drop(token)

    def _piece_bytes(self) -> int:
        return min(PIECE_BYTES, self._client.max_payload // 2)

    def _expiry(self, token: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._idle_seconds, self._drop, token)

    def _drop(self, token: str) -> None:
        held = self._held.pop(token, None)
        if held is None:
            return
        path, expiry = held
        expiry.cancel()
        path.unlink(missing_ok=True)


async def receive(
    client: Client,
    offer: FileOffer,
    *,
    timeout: float = 10.0,
) -> AsyncGenerator[bytes]:
    """The file's pieces in order. Raises UnavailableError when it ends early.

    However this ends, the offering side is told that the file is no longer needed.
    """
    offsets = iter(range(0, offer.total_bytes, offer.piece_bytes))
    asked: deque[asyncio.Task[bytes]] = deque()
    received = 0
    released = False
    try:
        while received < offer.total_bytes:
            for offset in itertools.islice(offsets, AHEAD - len(asked)):
                asked.append(asyncio.create_task(_piece(client, offer, offset, timeout)))
            piece = await asked.popleft()
            received += len(piece)
            yield piece
        await _piece(client, offer, offer.total_bytes, timeout)
        released = True
    finally:
        for task in asked:
            task.cancel()
        if not released:
            await _release(client, offer)


async def _release(client: Client, offer: FileOffer) -> None:
    """Asks for a piece at the file's end. The file expires by itself where this is lost."""
    if client.is_closed:
        return
    request = encode(PieceRequest(offset=offer.total_bytes))
    with contextlib.suppress(nats.errors.Error, OSError):
        await client.publish(offer.subject, request, reply=client.new_inbox())


async def _piece(
    client: Client,
    offer: FileOffer,
    offset: int,
    timeout: float,
) -> bytes:
    wanted = min(offer.piece_bytes, offer.total_bytes - offset)
    try:
        reply = await client.request(
            offer.subject, encode(PieceRequest(offset=offset)), timeout=timeout
        )
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError(
            f"{offer.name} ended at byte {offset}: {type(error).__name__}"
        ) from None
    if len(reply.data) != wanted:
        raise UnavailableError(
            f"{offer.name} ended at byte {offset}: {len(reply.data)} bytes came, not {wanted}"
        )
    return reply.data


def _read(
    path: Path,
    offset: int,
    count: int,
) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)
