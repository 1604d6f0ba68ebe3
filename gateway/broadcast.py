"""Live events, fanned out: one bus subscription, a bounded memory of what passed, any number of viewers.

A viewer who was away tells the last id that it saw and gets what it missed, as far as memory goes. A viewer
who reads too slowly is dropped and comes back the same way; it never slows the others down.
"""

import asyncio
import secrets
from collections import deque
from typing import Any, NamedTuple

import msgspec
import structlog

from bus.contract.messages import decode
from bus.contract.questions import Event
from bus.errors import BadMessageError
from gateway.web.problems import ProblemError

log = structlog.get_logger("gateway.broadcast")

REMEMBERED = 2_000
BACKLOG = 1_000  # frames that may wait for one viewer
MOST_VIEWERS = 1_000
_GONE = b'event: reset\ndata: {"detail": "events were missed; read the dashboard again"}\n\n'


class Frame(NamedTuple):
    """One server-sent event, ready to be written."""

    number: int
    data: bytes


class Viewer:
    """One open stream: what waits to be written, and whether it was dropped."""

    def __init__(self, waiting: list[bytes]) -> None:
        self._waiting = waiting
        self._wake = asyncio.Event()
        self.dropped = asyncio.Event()
        if waiting:
            self._wake.set()

    def offer(self, frame: bytes) -> None:
        """Adds a frame; a viewer with too many unread ones is dropped instead."""
        if len(self._waiting) >= BACKLOG:
            self.drop()
            return
        self._waiting.append(frame)
        self._wake.set()

    def drop(self) -> None:
        """Ends the stream."""
        self._waiting = []
        self.dropped.set()
        self._wake.set()

    async def next(self, patience: float) -> bytes:
        """All that waits, in one piece; empty when nothing came within `patience` seconds, or when dropped."""
        if not self._waiting and not self.dropped.is_set():
            self._wake.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        pieces, self._waiting = self._waiting, []
        return b"".join(pieces)


class Hub:
    """Everything that happens, to everybody who looks. `epoch` sets this run's ids apart from those of others."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self._number = 0
        self._memory: deque[Frame] = deque(maxlen=REMEMBERED)
        self._viewers: set[Viewer] = set()

    @property
    def viewers(self) -> int:
        """Streams that are open now."""
        return len(self._viewers)

    def receive(self, data: bytes) -> None:
        """One message of the bus. What is no event is logged and passed over."""
        try:
            event = decode(data, Event)
        except BadMessageError as error:
            log.warning("bad_event", detail=str(error))
            return
        self._publish(event.kind, event)
        agent = event.agent
        if agent and event.previous_status and event.previous_status != agent.status:
            change = {
                "status": agent.status,
                "previous_status": event.previous_status,
                "agent": agent,
            }
            self._publish("status", {"agent_id": event.agent_id, "at": event.at} | change)

    def join(self, last_event_id: str | None = None) -> Viewer:
        """A new viewer, who first gets what it missed since `last_event_id`. Raises a 503 when there are too many."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise ProblemError(503, f"{MOST_VIEWERS} live streams are open already")
        viewer = Viewer(self._missed(last_event_id) if last_event_id else [])
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """The stream is closed."""
        self._viewers.discard(viewer)

    def close(self) -> None:
        """Ends every stream, so that a server that stops need not wait for them."""
        for viewer in list(self._viewers):
            viewer.drop()

    def _publish(self, name: str, content: Any) -> None:
        self._number += 1
        head = f"id: {self.epoch}-{self._number}\nevent: {name}\ndata: ".encode()
        frame = Frame(self._number, head + msgspec.json.encode(content) + b"\n\n")
        self._memory.append(frame)
        for viewer in list(self._viewers):
            viewer.offer(frame.data)

    def _missed(self, last_event_id: str) -> list[bytes]:
        epoch, _, number = last_event_id.partition("-")
        known = epoch == self.epoch and number.isascii() and number.isdecimal() and len(number) < 19
        missed = self._number - int(number) if known else -1
        if not 0 <= missed <= min(len(self._memory), BACKLOG):
            return [_GONE]
        return [frame.data for frame in self._memory if frame.number > int(number)]
