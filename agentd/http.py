"""The three `/agent/*` endpoints of agent mode, over plain asyncio: a GPU host installs no web framework.

Small on purpose: GET only, one request a connection, bounded heads, bounded time, bounded connections.
Errors are problem documents (RFC 9457), as everywhere.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import structlog

from agentd.messaging.responder import Responder
from bus.contract.messages import PingRequest, encode
from bus.errors import GpupingError
from bus.settings import Settings

log = structlog.get_logger("agentd.http")

LONGEST_HEAD = 8 * 1024
MOST_CONNECTIONS = 32  # beyond it: 503; beyond twice as many: not even that
LINGER_SECONDS = 0.5
REQUEST_SECONDS = 5.0

Answer = Callable[[], Awaitable[bytes]]


class HttpPortError(GpupingError):
    """AGENT_HTTP_PORT cannot be listened on."""


class Reply(NamedTuple):
    """What goes back."""

    status: HTTPStatus
    body: bytes
    headers: tuple[str, ...] = ()


@asynccontextmanager
async def serving(responder: Responder, settings: Settings) -> AsyncIterator[int]:
    """Listens on AGENT_HTTP_HOST and AGENT_HTTP_PORT; yields the port. Raises HttpPortError."""
    endpoints = _Endpoints(responder)
    host, port = settings.AGENT_HTTP_HOST, settings.AGENT_HTTP_PORT
    try:
        server = await asyncio.start_server(endpoints.connection, host, port, limit=LONGEST_HEAD)
    except OSError as error:
        raise HttpPortError(
            f"AGENT_HTTP_PORT={port}: cannot listen on {host}: {error.strerror or error}"
        ) from None
    chosen: int = server.sockets[0].getsockname()[1]
    log.info("agent_http", host=host, port=chosen)
    try:
        yield chosen
    finally:
        server.close()
        endpoints.end()
        await server.wait_closed()


class _Endpoints:
    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes: dict[str, Answer] = {
            "/agent/uptime-since-last-ping": self._uptime,
            "/agent/gpu-status": self._gpu_status,
            "/agent/health": self._health,
        }

    async def _uptime(self) -> bytes:
        return self._responder.answer(PingRequest())

    async def _gpu_status(self) -> bytes:
        return encode(await self._responder.gpu_status())

    async def _health(self) -> bytes:
        return encode(self._responder.health())

    def end(self) -> None:
        """Cuts off whoever is still connected."""
        for task in self._tasks:
            task.cancel()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, closed."""
        task = asyncio.current_task()
        assert task  # noqa: S101  # asyncio runs this as a task
        self._tasks.add(task)
        try:
            if len(self._tasks) <= 2 * MOST_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(_wire(*await self._reply(reader)))
                    await writer.drain()
                await _linger(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            log.debug("http_gave_up")
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> tuple[Reply, bool]:
        """The reply, and whether its body is to be left out (HEAD)."""
        if len(self._tasks) > MOST_CONNECTIONS:
            return _problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "Retry-After: 1"
            ), False
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            detail = f"a request's head ends within {LONGEST_HEAD} bytes"
            return _problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail), False
        method, target = _request_line(head)
        return await self._answered(method, target), method == "HEAD"

    async def _answered(self, method: str, target: str) -> Reply:
        answer = self._routes.get(target.partition("?")[0])
        if not method:
            return _problem(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1 request")
        if answer is None:
            return _problem(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._routes)}")
        if method not in ("GET", "HEAD"):
            return _problem(
                HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered here", "Allow: GET, HEAD"
            )
        try:
            return Reply(HTTPStatus.OK, await answer())
        except Exception as error:  # one bad request never stops the agent
            log.error("http_request_crashed", target=target, exc_info=error)
            return _problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "an error of ours; the agent's log has the details",
            )


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads what is left of a request for a moment: closing over unread bytes would reset our answer away."""
    writer.write_eof()
    async with asyncio.timeout(LINGER_SECONDS):
        while await reader.read(LONGEST_HEAD):
            pass


def _request_line(head: bytes) -> tuple[str, str]:
    """Method and target; two empty strings for what is no request."""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    match words:
        case [method, target, version] if version.startswith("HTTP/1.") and target.startswith("/"):
            return method, target
        case _:
            return "", ""


def _problem(status: HTTPStatus, detail: str, *headers: str) -> Reply:
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return Reply(
        status, msgspec.json.encode(body), ("Content-Type: application/problem+json", *headers)
    )


def _wire(reply: Reply, without_body: bool) -> bytes:
    headers = reply.headers or ("Content-Type: application/json",)
    head = (
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        *headers,
        f"Content-Length: {len(reply.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + (b"" if without_body else reply.body)
