"""What every request passes before a route is found, and every answer on its way out.

Litestar runs middleware only after routing, so that an unknown path would slip past it. This wraps the whole
application instead: who may come in, which ids are ids, the headers that keep a browser safe, HEAD, metrics.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import structlog

from bus.contract.subjects import check_agent_id
from bus.errors import BadMessageError
from gateway.web import openapi
from gateway.web.auth import Call, Guard
from gateway.web.problems import ProblemError, as_asgi, problem_of

log = structlog.get_logger("gateway")

AsgiScope = dict[str, Any]
AsgiMessage = dict[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
Observe = Callable[[str, str, int, float], None]

UNMATCHED = "(no route)"
_FIXED_NAMES = frozenset({"register", "due-for-ping"})
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_EVERYWHERE = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class OuterMiddleware:
    """The ASGI application that the server runs. `observe` hears method, route template, status and seconds."""

    def __init__(self, application: Application, guard: Guard, observe: Observe) -> None:
        self._application = application
        self._guard = guard
        self._observe = observe

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """One request, from its door to its last byte."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        answer = _Answer(send, is_head=scope["method"] == "HEAD")
        inner = {**scope, "method": "GET"} if answer.is_head else scope
        try:
            await self._pass(inner, answer.receiving(receive), answer)
        except Exception as error:  # noqa: BLE001  # the last place that can still answer
            await _fail(answer, error)
        finally:
            template = inner.get("path_template") or UNMATCHED
            self._observe(scope["method"], template, answer.status, time.perf_counter() - began)

    async def _pass(self, scope: AsgiScope, receive: Receive, answer: "_Answer") -> None:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        client = scope["client"][0] if scope.get("client") else "?"
        self._guard.admit(Call(scope["method"], scope["path"], headers, client))
        check_path(scope.get("raw_path", b"").decode("latin-1"))
        scope["path"] = openapi.address(scope["path"], headers.get("accept", "").lower())
        await self._application(scope, receive, answer)


async def _fail(answer: "_Answer", error: Exception) -> None:
    problem = problem_of(error)
    if answer.status:
        log.error("answer_broken_off", detail=problem.detail)
        return  # half an answer is on its way: the server closes the connection, so that it cannot pass for a whole
    status, headers, body = as_asgi(problem)
    await answer({"type": "http.response.start", "status": status, "headers": headers})
    await answer({"type": "http.response.body", "body": body})


def check_path(raw_path: str) -> None:
    """Refuses an agent id that is none before the routes see it: decoded, `a%2Fb` would be another address."""
    parts = raw_path.partition("?")[0].split("/")
    if parts[:3] != ["", "ping-system", "agents"] or len(parts) < 4 or not parts[3]:
        return
    if len(parts) == 4 and parts[3] in _FIXED_NAMES:
        return
    try:
        check_agent_id(unquote(parts[3]))
    except BadMessageError as error:
        raise ProblemError(400, str(error)) from None


class _Answer:
    """ASGI's `send` with our headers added; remembers the status, and leaves out the body of a HEAD."""

    def __init__(self, send: Send, *, is_head: bool) -> None:
        self._send = send
        self.is_head = is_head
        self.status = 0
        self._is_over = False

    async def __call__(self, message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": guarded(list(message.get("headers", ())), self.status)}
        elif self.is_head:
            if self._is_over:
                return
            self._is_over = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def receiving(self, receive: Receive) -> Receive:
        """`receive` for the application: after a HEAD's answer the client counts as gone, so that streams end."""

        async def receive_or_leave() -> AsgiMessage:
            return {"type": "http.disconnect"} if self._is_over else await receive()

        return receive_or_leave


def guarded(headers: list[tuple[bytes, bytes]], status: int = 200) -> list[tuple[bytes, bytes]]:
    """The headers with those that keep a browser safe; what a route set itself stands."""
    if status == 304:
        return headers  # they would replace those of the page that the browser kept (RFC 9111, 3.2)
    present = {name.lower(): value for name, value in headers}
    is_page = present.get(b"content-type", b"").startswith(b"text/html")
    policy = _PAGE_POLICY if is_page else _DATA_POLICY
    wanted = {**_EVERYWHERE, b"content-security-policy": policy.encode()}
    return headers + [(name, value) for name, value in wanted.items() if name not in present]
