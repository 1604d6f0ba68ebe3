"""The live stream: server-sent events of every ping outcome and status change."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import HeaderParameter
from litestar.types import Receive, Scope, Send

from gateway.broadcast import EventBroadcast, Subscriber
from gateway.request_metrics import EVENT_STREAM_ROUTE
from gateway.web.access.auth import CALLER_SCOPE_KEY, Guard, caller_of
from gateway.web.file_response import wait_for_disconnect
from gateway.web.problems import error_responses

HEARTBEAT_SECONDS = 15.0
PERMISSION_CHECK_SECONDS = 0.5  # the tokens file itself is looked at once a second
DROP_GRACE_SECONDS = 0.5
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would buffer the stream
]


class EventStream(Response[bytes]):
    """A response that ends when the client leaves or is dropped, as it is when the server stops.

    The subscriber is dropped once `is_permitted` returns False.
    """

    def __init__(
        self,
        broadcast: EventBroadcast,
        subscriber: Subscriber,
        is_permitted: Callable[[], bool],
    ) -> None:
        super().__init__(b"", media_type="text/event-stream")
        self._broadcast = broadcast
        self._subscriber = subscriber
        self._is_permitted = is_permitted

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """Litestar's hook: the ASGI application that writes the response."""
        return self._run

    async def _run(
        self,
        _scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Ends when the first of its tasks ends.

        A client that stops reading blocks `_write` only; the others still end the stream.
        """
        ends: list[Coroutine[Any, Any, None]] = [
            self._write(send),
            wait_for_disconnect(receive),
            self._wait_for_drop(),
            self._drop_when_forbidden(),
        ]
        tasks = [asyncio.create_task(end) for end in ends]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._broadcast.unsubscribe(self._subscriber)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _send_piece(send, b": gpuping\nretry: 2000\n\n")
        while not self._subscriber.dropped.is_set():
            frames = await self._subscriber.next(HEARTBEAT_SECONDS)
            await _send_piece(send, frames or b": still here\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait_for_drop(self) -> None:
        """Returns DROP_GRACE_SECONDS after a drop, so that `_write` can end the response first."""
        await self._subscriber.dropped.wait()
        await asyncio.sleep(DROP_GRACE_SECONDS)

    async def _drop_when_forbidden(self) -> None:
        while self._is_permitted():  # noqa: ASYNC110  # no event tells that a token expired
            await asyncio.sleep(PERMISSION_CHECK_SECONDS)
        self._subscriber.drop()
        await self._wait_for_drop()


async def _send_piece(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


@get(
    EVENT_STREAM_ROUTE,
    media_type="text/event-stream",
    tags=["fleet"],
    summary="What happens, live",
    responses=error_responses(401, 403, 429),
)
async def events(
    request: Request[Any, Any, Any],
    broadcast: NamedDependency[EventBroadcast],
    guard: NamedDependency[Guard],
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> EventStream:
    """Server-sent events about agents, `status`, `health`, and `reset`.

    The data of `ping`, `registered`, `removed`, `connected`, `disconnected` and `conflict` (two
    hosts are connected with one identity) is
    `{kind, agent_id, at, agent, ping, previous_status}`, that of `status`
    `{agent_id, at, status, previous_status, agent}`. `health` comes at once and every 5 seconds:
    `{bus, scheduler, storage, as_of, reasons}` tells which parts can work. `Last-Event-ID` resumes
    an interrupted stream; `reset` says that some of the missed events are no longer kept. The
    stream ends within 2 seconds after its token was removed or has expired, or its session was
    signed out at any gateway.
    """
    scope: Mapping[str, Any] = request.scope
    token = scope[CALLER_SCOPE_KEY]
    subscriber = broadcast.subscribe(caller_of(scope), last_event_id)
    headers = dict(request.headers.items())
    return EventStream(broadcast, subscriber, partial(guard.may_go_on, token, headers))
