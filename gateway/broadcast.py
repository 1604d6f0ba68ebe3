"""Fan-out of live events: one bus subscription, any number of open event streams.

The last events are kept in memory, up to a number and a size. A client that reconnects sends the id
of the last event that it saw, and gets those after it. A client that reads too slowly is dropped;
it reconnects in the same way and never delays the others.
"""

import asyncio
import secrets
from collections import deque
from typing import Any, NamedTuple

import msgspec
import structlog

from bus.background import wait_at_most
from bus.contract.messages import decode
from bus.contract.questions import LiveEvent
from bus.errors import BadMessageError
from gateway.live_view import FULL, Digest, FleetTotals, LiveView, MapUpdates
from gateway.web.problems import ProblemError

log = structlog.get_logger("gateway.broadcast")

MIB = 1024 * 1024
# Frames take 2 to 6 kB as a rule, and their number is what limits them. The limits in bytes are for
# agents with much metadata, whose frames may take a megabyte.
HISTORY_FRAMES = 2_000
HISTORY_BYTES = 16 * MIB
MAX_QUEUED_FRAMES = 1_000  # of one subscriber
MAX_QUEUED_BYTES = 8 * MIB  # of one subscriber
MAX_SUBSCRIBERS = 1_000
MAX_STREAMS_OF_CALLER = 100  # one token may be that of a whole team
_RESET_FRAME = b'event: reset\ndata: {"detail": "events were missed; read the dashboard again"}\n\n'


class Frame(NamedTuple):
    """One encoded server-sent event."""

    number: int
    data: bytes
    name: str
    agent_id: str


class Subscriber:
    """One open event stream and the frames queued for it. `dropped` is set once it has to end."""

    def __init__(self, queued: list[bytes], view: LiveView = FULL) -> None:
        self.view = view
        self._queued = queued
        self._queued_bytes = sum(map(len, queued))
        self._wake = asyncio.Event()
        self.dropped = asyncio.Event()
        if queued:
            self._wake.set()

    def offer(self, frame: bytes) -> None:
        """Queues a frame. Drops the subscriber instead if its queue has no room for the frame."""
        size = self._queued_bytes + len(frame)
        if len(self._queued) >= MAX_QUEUED_FRAMES or size > MAX_QUEUED_BYTES:
            self.drop()
            return
        self._queued.append(frame)
        self._queued_bytes = size
        self._wake.set()

    def drop(self) -> None:
        """Discards what is queued and ends the stream."""
        self._queued = []
        self._queued_bytes = 0
        self.dropped.set()
        self._wake.set()

    async def next(self, timeout: float) -> bytes:
        """All queued frames, joined. Waits up to `timeout` seconds for the first.

        Empty when none came in time, and after a drop.
        """
        if not self._queued and not self.dropped.is_set():
            self._wake.clear()
            if not await wait_at_most(self._wake, timeout):
                return b""
        frames = self._queued
        self._queued = []
        self._queued_bytes = 0
        return b"".join(frames)


class EventBroadcast:
    """Sends every event to every subscriber, of whom there are at most `max_subscribers`.

    `epoch` begins the ids of this process's events; ids of an earlier process cannot be resumed.
    """

    def __init__(self, max_subscribers: int = MAX_SUBSCRIBERS) -> None:
        self._max_subscribers = max_subscribers
        self.epoch = secrets.token_hex(4)
        self._last_number = 0
        self._history: deque[Frame] = deque()
        self._history_bytes = 0
        self._subscribers: dict[Subscriber, str] = {}  # and the caller that each belongs to
        self.subscribed = asyncio.Event()  # set by each new subscriber
        self.slim_subscribed = asyncio.Event()  # set while a subscriber has a slim view
        self._digest = Digest()

    @property
    def subscriber_count(self) -> int:
        """Streams that are open now."""
        return len(self._subscribers)

    def receive(self, data: bytes) -> None:
        """Sends on one message of the bus. One that is not an event is logged and skipped.

        An event that changed an agent's status is followed by a `status` event.
        """
        try:
            event = decode(data, LiveEvent)
        except BadMessageError as error:
            log.warning("event_decode_failed", detail=str(error))
            return
        if self.has_slim_subscriber:
            self._digest.add(event)
        self._publish(event.kind, event, event.agent_id)
        agent = event.agent
        if agent is None or event.previous_status is None:
            return
        if event.previous_status == agent.status:
            return
        change = {
            "agent_id": event.agent_id,
            "at": event.at,
            "status": agent.status,
            "previous_status": event.previous_status,
            "agent": agent,
        }
        self._publish("status", change, event.agent_id)

    @property
    def has_slim_subscriber(self) -> bool:
        """Whether anybody wants the totals."""
        return self.slim_subscribed.is_set()

    @property
    def last_event_id(self) -> str:
        """The id of the newest event: a stream that resumes after it misses nothing from now on."""
        return f"{self.epoch}-{self._last_number}"

    def take_digest(self) -> Digest:
        """Returns what happened since it was last taken."""
        digest = self._digest
        self._digest = Digest()
        return digest

    def publish_totals(self, totals: FleetTotals) -> None:
        """Sends the totals to slim views. Their id lets a stream resume after them."""
        head = f"id: {self.last_event_id}\nevent: totals\ndata: ".encode()
        data = head + msgspec.json.encode(totals) + b"\n\n"
        for subscriber in list(self._subscribers):
            if subscriber.view.is_slim:
                subscriber.offer(data)

    def publish_map(self, updates: MapUpdates) -> None:
        """Sends the updates of the map to the views that have it."""
        data = b"event: map\ndata: " + msgspec.json.encode(updates) + b"\n\n"
        for subscriber in list(self._subscribers):
            if subscriber.view.has_map:
                subscriber.offer(data)

    def subscribe(
        self,
        caller: str,
        last_event_id: str | None = None,
        view: LiveView = FULL,
    ) -> Subscriber:
        """A new subscriber, whose first frames are those after `last_event_id`.

        Raises a 429 problem when MAX_STREAMS_OF_CALLER streams of one caller are open, and a 503
        problem when too many streams of all callers are.
        """
        of_caller = list(self._subscribers.values()).count(caller)
        if of_caller >= MAX_STREAMS_OF_CALLER:
            raise ProblemError(
                429,
                f"{of_caller} live streams of this token or address are open already",
                headers={"Retry-After": "5"},
            )
        if len(self._subscribers) >= self._max_subscribers:
            raise ProblemError(
                503,
                f"{self._max_subscribers} live streams are open already",
                headers={"Retry-After": "5"},
            )
        queued: list[bytes] = []
        if last_event_id:
            queued = self._frames_after(last_event_id, view)
        subscriber = Subscriber(queued, view)
        self._subscribers[subscriber] = caller
        if view.is_slim:
            self.slim_subscribed.set()
        self.subscribed.set()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forgets a subscriber whose stream is closed."""
        self._subscribers.pop(subscriber, None)
        if not any(one.view.is_slim for one in self._subscribers):
            self.slim_subscribed.clear()

    def publish_passing(self, name: str, content: Any) -> None:
        """Sends an event that holds for a moment only: it has no id and is not kept."""
        data = f"event: {name}\ndata: ".encode() + msgspec.json.encode(content) + b"\n\n"
        for subscriber in list(self._subscribers):
            subscriber.offer(data)

    def close(self) -> None:
        """Ends every stream, so that the server can stop without waiting for clients to leave."""
        for subscriber in list(self._subscribers):
            subscriber.drop()

    def _publish(self, name: str, content: Any, agent_id: str) -> None:
        self._last_number += 1
        head = f"id: {self.epoch}-{self._last_number}\nevent: {name}\ndata: ".encode()
        data = head + msgspec.json.encode(content) + b"\n\n"
        self._remember(Frame(self._last_number, data, name, agent_id))
        for subscriber in list(self._subscribers):
            if subscriber.view.wants(name, agent_id):
                subscriber.offer(data)

    def _remember(self, frame: Frame) -> None:
        """Adds a frame to the history and removes the oldest ones that no longer fit."""
        self._history.append(frame)
        self._history_bytes += len(frame.data)
        while len(self._history) > HISTORY_FRAMES or self._history_bytes > HISTORY_BYTES:
            oldest = self._history.popleft()
            self._history_bytes -= len(oldest.data)

    def _frames_after(self, last_event_id: str, view: LiveView) -> list[bytes]:
        """The frames after an id, or a `reset` frame where some of them are no longer kept."""
        last_seen = self._number_of(last_event_id)
        if last_seen is None:
            return [_RESET_FRAME]
        missed = self._last_number - last_seen
        available = min(len(self._history), MAX_QUEUED_FRAMES)
        if missed < 0 or missed > available:
            return [_RESET_FRAME]
        frames: list[bytes] = []
        for frame in self._history:
            if frame.number > last_seen and view.wants(frame.name, frame.agent_id):
                frames.append(frame.data)
        if sum(map(len, frames)) > MAX_QUEUED_BYTES:
            return [_RESET_FRAME]
        return frames

    def _number_of(self, event_id: str) -> int | None:
        """The number in an event id; None for an id that this process did not give."""
        epoch, _, number = event_id.partition("-")
        is_number = number.isascii() and number.isdecimal() and len(number) < 19
        if epoch != self.epoch or not is_number:
            return None
        return int(number)
