"""The three `/agent/*` endpoints of agent mode, over plain asyncio, without a web framework.

It does little: GET only, one request a connection, and heads, time and connections are bounded.
Errors are problem documents (RFC 9457), as in the gateway.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import structlog

from agentd.messaging.responder import Responder
from bus.addresses import is_loopback
from bus.contract.messages import PingRequest, encode
from bus.errors import GpupingError, SettingsError
from bus.settings import Settings

log = structlog.get_logger("agentd.http")

LONGEST_HEAD = 8 * 1024
MOST_CONNECTIONS = 32  # beyond this the answer is 503; beyond twice as many there is none
LINGER_SECONDS = 0.5
REQUEST_SECONDS = 5.0

Handler = Callable[[], Awaitable[bytes]]


class HttpPortError(GpupingError):
    """AGENT_HTTP_PORT cannot be listened on."""


class Response(NamedTuple):
    """A response, still without the headers that every response has."""

    status: HTTPStatus
    body: bytes
    headers: tuple[str, ...] = ("Content-Type: application/json",)


class RequestLine(NamedTuple):
    """The method and target of a request."""

    method: str
    target: str


@asynccontextmanager
async def serving(
    responder: Responder,
    settings: Settings,
) -> AsyncIterator[int]:
    """Listens on AGENT_HTTP_HOST and AGENT_HTTP_PORT; yields the port.

    Raises HttpPortError, and SettingsError where other machines could ask without a token.
    """
    check_protected(settings)
    endpoints = _Endpoints(responder, settings.AGENT_HTTP_TOKEN)
    host = settings.AGENT_HTTP_HOST
    port = settings.AGENT_HTTP_PORT
    try:
        server = await asyncio.start_server(
            endpoints.on_connection,
            host,
            port,
            limit=LONGEST_HEAD,
        )
    except OSError as error:
        reason = error.strerror or error
        message = f"AGENT_HTTP_PORT={port}: cannot listen on {host}: {reason}"
        raise HttpPortError(message) from None
    chosen: int = server.sockets[0].getsockname()[1]
    log.info(
        "http_started",
        host=host,
        port=chosen,
    )
    try:
        yield chosen
    finally:
        server.close()
        endpoints.close_connections()
        await server.wait_closed()


def check_protected(settings: Settings) -> None:
    """Raises SettingsError where other machines could ask without a token."""
    host = settings.AGENT_HTTP_HOST
    if not is_loopback(host) and settings.AGENT_HTTP_TOKEN is None:
        raise SettingsError(
            f"AGENT_HTTP_HOST={host!r}: outside loopback the agent needs AGENT_HTTP_TOKEN, "
            "which whoever asks sends as a bearer token"
        )


class _Endpoints:
    def __init__(self, responder: Responder, token: str | None) -> None:
        self._responder = responder
        self._token = token
        self._connections: set[asyncio.Task[None]] = set()
        self._routes: dict[str, Handler] = {
            "/agent/uptime-since-last-ping": self._uptime,
            "/agent/gpu-status": self._gpu_status,
            "/agent/health": self._health,
        }

    async def _uptime(self) -> bytes:
        return await self._responder.look(PingRequest())

    async def _gpu_status(self) -> bytes:
        return encode(await self._responder.gpu_status())

    async def _health(self) -> bytes:
        return encode(self._responder.health())

    def close_connections(self) -> None:
        """Cuts off every client that is still connected."""
        for task in self._connections:
            task.cancel()

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers one request and closes the connection."""
        task = asyncio.current_task()
        assert task  # noqa: S101  # asyncio runs this as a task
        self._connections.add(task)
        try:
            if len(self._connections) <= 2 * MOST_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(await self._response_bytes(reader))
                    await writer.drain()
                await _linger(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            log.debug("http_connection_dropped")
        finally:
            self._connections.discard(task)
            writer.close()

    async def _response_bytes(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._connections) > MOST_CONNECTIONS:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return _wire(_problem(status, "too many connections", "Retry-After: 1"))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            detail = f"a request's head ends within {LONGEST_HEAD} bytes"
            return _wire(_problem(status, detail))
        request = _request_line(head)
        if request is None:
            detail = "this is not an HTTP/1 request"
            return _wire(_problem(HTTPStatus.BAD_REQUEST, detail))
        response = self._refusal(_headers(head))
        if response is None:
            response = await self._respond(request)
        return _wire(response, without_body=request.method == "HEAD")

    def _refusal(self, headers: dict[str, str]) -> Response | None:
        """The answer to a caller who may not ask; None for one who may.

        Without a token only this machine can ask, and the threat is a page in its browser whose
        host name resolves to 127.0.0.1 (DNS rebinding). Its Host header gives it away.
        """
        if self._token is not None:
            presented = headers.get("authorization", "").encode()
            if hmac.compare_digest(presented, f"Bearer {self._token}".encode()):
                return None
            challenge = 'WWW-Authenticate: Bearer realm="gpuping agent"'
            detail = "this agent needs its AGENT_HTTP_TOKEN as a bearer token"
            return _problem(HTTPStatus.UNAUTHORIZED, detail, challenge)
        host = headers.get("host")
        if host is None or is_loopback(_without_port(host)):
            return None
        detail = "this agent answers only to loopback names, such as localhost"
        return _problem(HTTPStatus.FORBIDDEN, detail)

    async def _respond(self, request: RequestLine) -> Response:
        path = request.target.partition("?")[0]
        handler = self._routes.get(path)
        if handler is None:
            return _problem(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._routes)}")
        if request.method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED
            return _problem(status, "only GET is answered here", "Allow: GET, HEAD")
        try:
            return Response(HTTPStatus.OK, await handler())
        except Exception as error:  # one bad request never stops the agent
            log.error(
                "http_request_failed",
                target=request.target,
                exc_info=error,
            )
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return _problem(status, "an error of ours; the agent's log has the details")


async def _linger(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Reads the rest of a request: closing over unread bytes would reset the connection."""
    writer.write_eof()
    async with asyncio.timeout(LINGER_SECONDS):
        while await reader.read(LONGEST_HEAD):
            pass


def _request_line(head: bytes) -> RequestLine | None:
    """Returns None where the head does not begin with an HTTP/1 request line."""
    first_line = head.partition(b"\r\n")[0].decode("latin-1")
    words = first_line.split(" ")
    if len(words) != 3:
        return None
    method, target, version = words
    if not method or not target.startswith("/") or not version.startswith("HTTP/1."):
        return None
    return RequestLine(method, target)


def _headers(head: bytes) -> dict[str, str]:
    """The header fields by their names in lower case."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def _without_port(host: str) -> str:
    """The host of a Host header: `[::1]:8001` and `[::1]` are both `[::1]`."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _problem(status: HTTPStatus, detail: str, *headers: str) -> Response:
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    content_type = "Content-Type: application/problem+json"
    return Response(status, msgspec.json.encode(body), (content_type, *headers))


def _wire(response: Response, *, without_body: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        *response.headers,
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        "",
        "",
    )
    head_bytes = "\r\n".join(head).encode()
    if without_body:
        return head_bytes
    return head_bytes + response.body
