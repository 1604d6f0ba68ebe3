"""Compresses answers that are one piece of text, where the client accepts it.

Streams and files are not touched: an event stream encodes itself (`gateway/routes/events.py`), the
page's files are compressed once (`gateway/web/assets.py`), and files of tables are large already.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

MIN_BYTES = 1_000  # gzip gains nothing below
LARGE_BYTES = 200_000  # compressed in a thread: it takes a few milliseconds
LEVEL = 5
_TYPES = (
    b"application/json",
    b"application/problem+json",
    b"application/openmetrics-text",
    b"application/vnd.oai.openapi+json",
    b"text/plain",
)
AsgiMessage = dict[str, Any]
Send = Callable[[AsgiMessage], Awaitable[None]]


class Compressor:
    """ASGI's `send` that compresses a whole answer. The response's head waits for its body."""

    def __init__(self, send: Send, *, is_accepted: bool) -> None:
        self._send = send
        self._is_accepted = is_accepted
        self._head: AsgiMessage | None = None

    async def __call__(self, message: AsgiMessage) -> None:
        """Sends a message of the application on."""
        if message["type"] == "http.response.start" and self._is_accepted and _is_text(message):
            self._head = message
            return
        head = self._head
        self._head = None
        if head is None:
            await self._send(message)
            return
        body = message.get("body", b"")
        is_whole = not message.get("more_body", False)
        if is_whole and len(body) >= MIN_BYTES:
            packed = await _packed(body)
            await self._send(_with_encoding(head, len(packed)))
            await self._send({"type": "http.response.body", "body": packed})
            return
        await self._send(head)
        await self._send(message)


def accepts_gzip(scope: AsgiMessage) -> bool:
    """Whether a request's head allows gzip."""
    for name, value in scope["headers"]:
        if name.lower() == b"accept-encoding":
            return b"gzip" in value
    return False


async def _packed(body: bytes) -> bytes:
    if len(body) < LARGE_BYTES:
        return gzip.compress(body, LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)


def _is_text(head: AsgiMessage) -> bool:
    """Whether the answer is text that is not encoded yet."""
    is_text = False
    for name, value in head.get("headers", ()):
        lowered = name.lower()
        if lowered == b"content-encoding":
            return False
        if lowered == b"content-type":
            is_text = value.startswith(_TYPES)
    return is_text


def _with_encoding(head: AsgiMessage, length: int) -> AsgiMessage:
    headers = [
        (name, value) for name, value in head["headers"] if name.lower() != b"content-length"
    ]
    headers.append((b"content-length", str(length).encode()))
    headers.append((b"content-encoding", b"gzip"))
    headers.append((b"vary", b"accept-encoding"))
    return {**head, "headers": headers}
