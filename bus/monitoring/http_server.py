"""A small HTTP server over plain asyncio, without a web framework: a few paths, and GET only.

It answers one request a connection, and bounds heads, time and connections. Errors are problem
documents (RFC 9457), as in the gateway.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NamedTuple

import msgspec
import structlog

from bus.addresses import is_loopback
from bus.errors import GpupingError

log = structlog.get_logger("bus.monitoring.http_server")

LONGEST_HEAD = 8 * 1024
MOST_CONNECTIONS = 32  # beyond this the answer is 503; beyond twice as many there is none
LINGER_SECONDS = 0.5
REQUEST_SECONDS = 5.0

Headers = Mapping[str, str]


class PortError(GpupingError):
    """The port cannot be listened on."""


class Response(NamedTuple):
    """A response, still without the headers that every response has."""

    status: HTTPStatus
    body: bytes
    headers: tuple[str, ...] = ("Content-Type: application/json",)


# Makes the response from the request's header fields, by their names in lower case.
Handler = Callable[[Headers], Awaitable[Response]]
# The answer to a caller who may not ask; None for one who may.
Guard = Callable[[Headers], Response | None]


class RequestLine(NamedTuple):
    """The method and target of a request."""

    method: str
    target: str


class Address(NamedTuple):
    """Where to listen. `setting` is the name of the setting that gives the port, for errors."""

    host: str
    port: int
    setting: str


@asynccontextmanager
async def serving(
    address: Address,
    routes: Mapping[str, Handler],
    guard: Guard,
    unguarded: Collection[str] = (),
) -> AsyncIterator[int]:
    """Answers at the address for the length of a block; yields the port. Raises PortError.

    `guard` is not asked about the paths in `unguarded`, which must tell nothing.
    """
    connections = _Connections(routes, guard, unguarded)
    try:
        server = await asyncio.start_server(
            connections.on_connection,
            address.host,
            address.port,
            limit=LONGEST_HEAD,
        )
    except OSError as error:
        reason = error.strerror or error
        message = f"{address.setting}={address.port}: cannot listen on {address.host}: {reason}"
        raise PortError(message) from None
    port: int = server.sockets[0].getsockname()[1]
    log.info(
        "http_started",
        host=address.host,
        port=port,
        paths=tuple(routes),
    )
    try:
        yield port
    finally:
        server.close()
        connections.close()
        await server.wait_closed()


def loopback_guard(headers: Headers) -> Response | None:
    """Refuses a caller that has another name for this machine than a loopback one.

    Without a token only this machine can ask, and the threat is a page in its browser whose host
    name resolves to 127.0.0.1 (DNS rebinding). Its Host header gives it away.
    """
    host = headers.get("host")
    if host is None or is_loopback(_without_port(host)):
        return None
    return problem(HTTPStatus.FORBIDDEN, "only loopback names are answered, such as localhost")


def bearer_guard(
    is_valid: Callable[[str], bool],
    detail: str,
) -> Guard:
    """Refuses a caller without a valid bearer token; `detail` says which token is meant."""
    challenge = 'WWW-Authenticate: Bearer realm="gpuping"'

    def guard(headers: Headers) -> Response | None:
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and is_valid(presented):
            return None
        return problem(HTTPStatus.UNAUTHORIZED, detail, challenge)

    return guard


def is_token(token: str) -> Callable[[str], bool]:
    """Whether a presented text is this token, compared in constant time."""
    expected = token.encode()
    return lambda presented: hmac.compare_digest(presented.encode(), expected)


class _Connections:
    def __init__(
        self,
        routes: Mapping[str, Handler],
        guard: Guard,
        unguarded: Collection[str],
    ) -> None:
        self._routes = routes
        self._guard = guard
        self._unguarded = unguarded
        self._open: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Cuts off every client that is still connected."""
        for task in self._open:
            task.cancel()

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answers one request and closes the connection."""
        task = asyncio.current_task()
        assert task  # noqa: S101  # asyncio runs this as a task
        self._open.add(task)
        try:
            if len(self._open) <= 2 * MOST_CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(await self._response_bytes(reader))
                    await writer.drain()
                await _linger(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            log.debug("http_connection_dropped")
        finally:
            self._open.discard(task)
            writer.close()

    async def _response_bytes(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._open) > MOST_CONNECTIONS:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return _wire(problem(status, "too many connections", "Retry-After: 1"))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            detail = f"a request's head ends within {LONGEST_HEAD} bytes"
            return _wire(problem(status, detail))
        request = _request_line(head)
        if request is None:
            detail = "this is not an HTTP/1 request"
            return _wire(problem(HTTPStatus.BAD_REQUEST, detail))
        headers = _headers(head)
        path = request.target.partition("?")[0]
        response = None
        if path not in self._unguarded:
            response = self._guard(headers)
        if response is None:
            response = await self._respond(request, path, headers)
        return _wire(response, without_body=request.method == "HEAD")

    async def _respond(self, request: RequestLine, path: str, headers: Headers) -> Response:
        handler = self._routes.get(path)
        if handler is None:
            return problem(HTTPStatus.NOT_FOUND, f"there is {', '.join(self._routes)}")
        if request.method not in ("GET", "HEAD"):
            status = HTTPStatus.METHOD_NOT_ALLOWED
            return problem(status, "only GET is answered here", "Allow: GET, HEAD")
        try:
            return await handler(headers)
        except Exception as error:  # one bad request never stops the service
            log.error(
                "http_request_failed",
                target=request.target,
                exc_info=error,
            )
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return problem(status, "an error of ours; the service's log has the details")


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


def problem(status: HTTPStatus, detail: str, *headers: str) -> Response:
    """A problem document as a response."""
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
