"""The live stream: server-sent events of every ping outcome and status change."""

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, QueryParameter
from litestar.types import Receive, Scope, Send

from bus.contract.subjects import check_agent_id
from gateway.broadcast import EventBroadcast, Subscriber
from gateway.live_view import FULL, LiveView
from gateway.request_metrics import EVENT_STREAM_ROUTE
from gateway.web.access.auth import CALLER_SCOPE_KEY, Guard, caller_of
from gateway.web.file_response import wait_for_disconnect
from gateway.web.problems import error_responses, field_problem

HEARTBEAT_SECONDS = 15.0
PERMISSION_CHECK_SECONDS = 0.5  # the tokens file itself is looked at once a second
DROP_GRACE_SECONDS = 0.5
GZIP_LEVEL = 4
GZIP_WINDOW = 16 + 14  # gzip's header, and a window of 16 kB
MOST_AGENTS = 500
LiveViewName = Literal["full", "slim"]
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
        *,
        is_compressed: bool = False,
    ) -> None:
        super().__init__(b"", media_type="text/event-stream")
        self._encoding = Encoding(is_compressed=is_compressed)
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
        headers = _HEADERS + self._encoding.headers
        encode = self._encoding.encode
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_piece(send, encode(b": gpuping\nretry: 2000\n\n"))
        while not self._subscriber.dropped.is_set():
            frames = await self._subscriber.next(HEARTBEAT_SECONDS)
            await _send_piece(send, encode(frames or b": still here\n\n"))
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


class Encoding:
    """The content encoding of one stream: none, or gzip, of which every piece can be read at once.

    The window is small, because each stream keeps its own: 100 kB a viewer with zlib's default.
    """

    def __init__(self, *, is_compressed: bool) -> None:
        self.headers: list[tuple[bytes, bytes]] = [(b"vary", b"accept-encoding")]
        self._compressor: Any = None
        if is_compressed:
            self.headers.append((b"content-encoding", b"gzip"))
            self._compressor = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW, memLevel=6)

    def encode(self, piece: bytes) -> bytes:
        """Returns the piece as it is sent."""
        if self._compressor is None:
            return piece
        compressed: bytes = self._compressor.compress(piece)
        rest: bytes = self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return compressed + rest


def _view(name: LiveViewName, agents: str, *, has_map: bool) -> LiveView:
    """The view that the parameters ask for."""
    if name == "full":
        return FULL
    agent_ids = [agent_id for agent_id in agents.split(",") if agent_id]
    if len(agent_ids) > MOST_AGENTS:
        raise field_problem(f"at most {MOST_AGENTS} agents", parameter="agents")
    checked = [check_agent_id(agent_id) for agent_id in agent_ids]
    return LiveView(is_slim=True, agents=frozenset(checked), has_map=has_map)


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
    view: Annotated[LiveViewName, QueryParameter(description="slim: see below")] = "full",
    agents: Annotated[
        str,
        QueryParameter(max_length=MOST_AGENTS * 64, description="ids, for view=slim: `a,b`"),
    ] = "",
    fleet_map: Annotated[
        bool, QueryParameter(name="map", description="with view=slim: also `map` events")
    ] = False,
    after: Annotated[
        str | None, QueryParameter(max_length=64, description="as Last-Event-ID, which wins")
    ] = None,
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

    With `view=slim` only the events of `agents` come, and `totals` once a second: the counts of the
    whole fleet and its status changes. `map=true` adds `map`: what the fleet map has to redraw.
    """
    scope: Mapping[str, Any] = request.scope
    token = scope[CALLER_SCOPE_KEY]
    wanted = _view(view, agents, has_map=fleet_map)
    subscriber = broadcast.subscribe(caller_of(scope), last_event_id or after, wanted)
    headers = dict(request.headers.items())
    is_compressed = "gzip" in headers.get("accept-encoding", "")
    permitted = partial(guard.may_go_on, token, headers)
    return EventStream(broadcast, subscriber, permitted, is_compressed=is_compressed)
