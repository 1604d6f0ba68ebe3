"""Files over the bus: offered once, fetched piece by piece, each below the server's largest message.

The receiver asks for each piece, a few ahead, so that it sets the pace; nothing is pushed at
anybody. The offer names a subject of the one process that holds the file, because replicas share
all other subjects.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator
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
AHEAD = 4  # pieces asked for at once
IDLE_SECONDS = 60.0
MOST_FILES = 16
LARGEST_FILE_BYTES = 2**50


class FileOffer(Message, kw_only=True, frozen=True):
    """A file that waits to be fetched for IDLE_SECONDS. `name` is one to save it under."""

    subject: str
    name: str
    media_type: str
    total_bytes: int
    piece_bytes: int


class PieceRequest(Message, kw_only=True, frozen=True):
    """Bytes from `offset` on; an offset at the end says that all has arrived, and lets the file go."""

    offset: Annotated[int, Meta(ge=0, le=LARGEST_FILE_BYTES)]


class _Subscription(Protocol):
    async def unsubscribe(self) -> None: ...


class Files:
    """The side that offers. Files are deleted when they were fetched, or when nobody asks any more."""

    def __init__(self, client: Client, idle_seconds: float = IDLE_SECONDS) -> None:
        self._client = client
        self._idle_seconds = idle_seconds
        self._instance = secrets.token_hex(8)
        self._held: dict[str, tuple[Path, asyncio.TimerHandle]] = {}
        self._subscription: _Subscription | None = None

    async def start(self) -> None:
        """Answers from now on."""
        self._subscription = await self._client.subscribe(
            subjects.file(self._instance, "*"), cb=self._answer
        )

    async def stop(self) -> None:
        """Lets go of everything."""
        if self._subscription is not None and not self._client.is_closed:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
        for token in list(self._held):
            self._drop(token)

    def check_room(self) -> None:
        """Raises RefusedError (429) while too many files wait to be fetched."""
        if len(self._held) >= MOST_FILES:
            raise RefusedError(
                429, f"{MOST_FILES} files wait to be fetched already; ask again in a minute"
            )

    def offer(self, path: Path, name: str, media_type: str) -> FileOffer:
        """The file is ours from here on."""
        token = secrets.token_hex(16)
        self._held[token] = (path, self._alarm(token))
        return FileOffer(
            subject=subjects.file(self._instance, token),
            name=name,
            media_type=media_type,
            total_bytes=path.stat().st_size,
            piece_bytes=min(PIECE_BYTES, self._client.max_payload // 2),
        )

    async def _answer(self, message: Msg) -> None:
        token = message.subject.rpartition(".")[2]
        held = self._held.get(token)
        if held is None or not message.reply:
            return
        path, alarm = held
        try:
            offset = decode(message.data, PieceRequest).offset
        except BadMessageError as error:
            log.warning("bad_piece_request", detail=str(error))
            return  # the file's alarm goes on
        alarm.cancel()
        try:
            piece = await asyncio.to_thread(
                _read, path, offset, min(PIECE_BYTES, self._client.max_payload // 2)
            )
            await message.respond(piece)
        finally:
            if token in self._held:
                self._held[token] = (path, self._alarm(token))
        if not piece:
            self._drop(token)

    def _alarm(self, token: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._idle_seconds, self._drop, token)

    def _drop(self, token: str) -> None:
        if held := self._held.pop(token, None):
            held[1].cancel()
            held[0].unlink(missing_ok=True)


async def receive(
    client: Client, offer: FileOffer, *, timeout: float = 10.0
) -> AsyncIterator[bytes]:
    """The file's pieces in order. Raises UnavailableError when it ends early."""
    offsets = iter(range(0, offer.total_bytes, offer.piece_bytes))
    asked: deque[asyncio.Task[bytes]] = deque()
    received = 0
    try:
        while received < offer.total_bytes:
            while len(asked) < AHEAD and (offset := next(offsets, None)) is not None:
                asked.append(asyncio.create_task(_piece(client, offer, offset, timeout)))
            piece = await asked.popleft()
            received += len(piece)
            yield piece
        await _piece(client, offer, offer.total_bytes, timeout)
    finally:
        for task in asked:
            task.cancel()


async def _piece(client: Client, offer: FileOffer, offset: int, timeout: float) -> bytes:
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


def _read(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)
