"""The live stream: server-sent events of every ping outcome and status change."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import HeaderParameter
from litestar.types import Receive, Scope, Send

from gateway.broadcast import Hub, Viewer
from gateway.web.problems import error_responses

HEARTBEAT_SECONDS = 15.0
LAST_WORDS_SECONDS = 0.5
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx holds a stream back otherwise
]


class EventStream(Response[bytes]):
    """A response that lasts until the client leaves, the viewer is dropped, or the server stops."""

    def __init__(self, hub: Hub, viewer: Viewer) -> None:
        super().__init__(b"", media_type="text/event-stream")
        self._hub = hub
        self._viewer = viewer

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """Litestar's hook: what writes the response."""
        return self._run

    async def _run(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever ends first ends it all: a client that stopped reading blocks only its own `_write`."""
        ends: tuple[Coroutine[Any, Any, None], ...] = (
            self._write(send),
            _left(receive),
            self._dropped(),
        )
        tasks = [asyncio.create_task(end) for end in ends]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(self._viewer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _piece(send, b": gpuping\nretry: 2000\n\n")
        while not self._viewer.dropped.is_set():
            await _piece(send, await self._viewer.next(HEARTBEAT_SECONDS) or b": still here\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _dropped(self) -> None:
        await self._viewer.dropped.wait()
        await asyncio.sleep(
            LAST_WORDS_SECONDS
        )  # for `_write` to end in good order, where the client still reads


async def _piece(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@get(
    "/ping-system/events",
    media_type="text/event-stream",
    tags=["fleet"],
    summary="What happens, live",
    responses=error_responses(401, 403),
)
async def events(
    hub: NamedDependency[Hub],
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> EventStream:
    """Server-sent events `ping`, `status`, `registered` and `removed`; `reset` when some were missed for good.

    The data of `ping`, `registered` and `removed` is `{kind, agent_id, at, agent, ping, previous_status}`, that
    of `status` `{agent_id, at, status, previous_status, agent}`. `Last-Event-ID` resumes where a stream broke off.
    """
    return EventStream(hub, hub.join(last_event_id))
