"""The outermost ASGI layer: access checks, security headers, HEAD requests, request metrics.

Litestar runs its own middleware only after routing, so that a request for an unknown path would get
past it. This layer wraps the whole Litestar application instead.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import structlog

from bus.contract.subjects import check_agent_id
from bus.errors import BadMessageError
from gateway.web import openapi
from gateway.web.access.auth import CALLER_SCOPE_KEY, Guard, RequestHead
from gateway.web.compression import Compressor, accepts_gzip
from gateway.web.problems import ProblemError, as_asgi, problem_of

log = structlog.get_logger("gateway")

AsgiScope = dict[str, Any]
AsgiMessage = dict[str, Any]
AsgiHeaders = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
ObserveRequest = Callable[[str, str, int, float], None]

UNMATCHED_ROUTE = "(no route)"
_RESERVED_NAMES = frozenset({"register", "due-for-ping"})  # paths below /agents that are no agent
# Parameters of which "null" is no value: the framework would take it for one that was left out.
_NUMBERS_AND_TIMES = frozenset(
    {
        "before",
        "count",
        "cursor",
        "hours",
        "limit",
        "month",
        "points",
        "seconds",
        "since",
        "threshold",
        "until",
    }
)
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class OuterMiddleware:
    """The ASGI application that the server runs.

    After each request it calls `observe` with method, route template, status and seconds.
    """

    def __init__(
        self,
        application: Application,
        guard: Guard,
        observe: ObserveRequest,
    ) -> None:
        self._application = application
        self._guard = guard
        self._observe = observe

    async def __call__(
        self,
        scope: AsgiScope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answers one request. A HEAD request runs as a GET whose body is left out."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        method = scope["method"]
        is_accepted = method != "HEAD" and accepts_gzip(scope)
        response = _ResponseSender(
            Compressor(send, is_accepted=is_accepted), is_head=method == "HEAD"
        )
        inner_scope = dict(scope)
        if response.is_head:
            inner_scope["method"] = "GET"
        try:
            await self._handle(inner_scope, response.wrap_receive(receive), response)
        except Exception as error:  # noqa: BLE001  # the last place that can still answer
            await _send_problem(response, error)
        finally:
            route = inner_scope.get("path_template") or UNMATCHED_ROUTE
            seconds = time.perf_counter() - started
            self._observe(method, route, response.status, seconds)

    async def _handle(
        self,
        scope: AsgiScope,
        receive: Receive,
        response: "_ResponseSender",
    ) -> None:
        request = self._request_head(scope)
        check_slashes(request.path)
        scope[CALLER_SCOPE_KEY] = self._guard.admit(request)
        check_path(scope.get("raw_path", b"").decode("latin-1"))
        if request.path.startswith("/ping-system/"):
            check_query(scope.get("query_string", b"").decode("latin-1"))
        accept = request.headers.get("accept", "").lower()
        scope["path"] = openapi.resolve_path(scope["path"], accept)
        await self._application(scope, receive, response)

    def _request_head(self, scope: AsgiScope) -> RequestHead:
        """The head of a request. Sets the scope's client to whose address counts."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        client = "?"
        if scope.get("client"):
            peer, port = scope["client"]
            client = self._guard.client_of(peer, headers.get("x-forwarded-for", ""))
            scope["client"] = (client, port)
        return RequestHead(scope["method"], scope["path"], headers, client)


async def _send_problem(response: "_ResponseSender", error: Exception) -> None:
    problem = problem_of(error)
    if response.status:
        # The response has begun, so it can no longer become a problem document. The server closes
        # the connection, and the client sees that the response is incomplete.
        log.error("response_aborted", detail=problem.detail)
        return
    status, headers, body = as_asgi(problem)
    await response({"type": "http.response.start", "status": status, "headers": headers})
    await response({"type": "http.response.body", "body": body})


def check_slashes(path: str) -> None:
    """Raises a 404 problem for a path with `//`.

    The router takes several slashes for one. The guard, which decides by the path, would then have
    decided about another path than the one that is answered.
    """
    if "//" in path:
        raise ProblemError(404, "nothing is at this address")


def check_path(raw_path: str) -> None:
    """Raises a 400 problem for a path whose agent id is malformed.

    This looks at the path before it is decoded: `a%2Fb` would become the path of another route.
    """
    parts = raw_path.partition("?")[0].split("/")
    if parts[:3] != ["", "ping-system", "agents"] or len(parts) < 4:
        return
    agent_id = parts[3]
    if not agent_id:
        return
    if len(parts) == 4 and agent_id in _RESERVED_NAMES:
        return
    try:
        check_agent_id(unquote(agent_id))
    except BadMessageError as error:
        raise ProblemError(400, str(error)) from None


def check_query(query: str) -> None:
    """Raises a 400 problem for a parameter that is given twice, or as "null" where that means none.

    The framework would take the last one, and leave the other out without a word.
    """
    seen: set[str] = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in seen:
            raise ProblemError(400, f"the parameter {name!r:.80} is given more than once")
        seen.add(name)
        if name in _NUMBERS_AND_TIMES and value == "null":
            raise ProblemError(400, f"{name}=null: leave the parameter out instead")


class _ResponseSender:
    """ASGI's `send` that adds the security headers, records the status and drops a HEAD's body.

    `status` is 0 until the response begins.
    """

    def __init__(self, send: Send, *, is_head: bool) -> None:
        self._send = send
        self.is_head = is_head
        self.status = 0
        self._head_answered = False

    async def __call__(self, message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = add_security_headers(list(message.get("headers", ())), self.status)
            message = {**message, "headers": headers}
        elif self.is_head:
            if self._head_answered:
                return
            self._head_answered = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def wrap_receive(self, receive: Receive) -> Receive:
        """`receive` for the application.

        Once a HEAD request is answered it reports a disconnect, so that an event stream ends.
        """

        async def receive_or_disconnect() -> AsgiMessage:
            if self._head_answered:
                return {"type": "http.disconnect"}
            return await receive()

        return receive_or_disconnect


def add_security_headers(headers: AsgiHeaders, status: int = 200) -> AsgiHeaders:
    """The headers of a response and the security headers that it does not set itself."""
    if status == 304:
        # the browser would overwrite the headers it stored with the page (RFC 9111, section 3.2)
        return headers
    present = {name.lower(): value for name, value in headers}
    is_page = present.get(b"content-type", b"").startswith(b"text/html")
    policy = _PAGE_POLICY if is_page else _DATA_POLICY
    wanted = {**_SECURITY_HEADERS, b"content-security-policy": policy.encode()}
    added = list(headers)
    for name, value in wanted.items():
        if name not in present:
            added.append((name, value))
    return added
