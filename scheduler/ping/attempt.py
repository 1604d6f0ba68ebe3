"""One ping under way: from the moment it is due (or asked for) until its outcome is written."""

import asyncio
from datetime import datetime

from bus.contract.messages import AgentState, PingRequest, Span, Status, UptimeReport, encode
from bus.contract.questions import Ping
from scheduler.fleet.directory import Tracked


class Flight:
    """Mutable, and owned by one scheduler. `acks` are the reply subjects of the due messages it settles."""

    __slots__ = (
        "acks",
        "agent_id",
        "answer",
        "base",
        "due_at",
        "due_seq",
        "no_responders",
        "ping_id",
        "pinged_at",
        "report",
        "request",
        "response_ms",
        "revision",
        "send_at",
        "seq",
        "started",
        "status_before",
        "tracked",
        "waiters",
    )

    def __init__(
        self, agent_id: str, tracked: Tracked, ping_id: str, due_at: datetime | None
    ) -> None:
        self.agent_id = agent_id
        self.tracked = tracked
        self.ping_id = ping_id
        self.due_at = due_at  # None: asked for by hand
        self.due_seq = 0  # the ping_seq that its due messages ask for
        self.base: AgentState | None = (
            None  # the state that the window starts from, and its revision
        )
        self.revision = 0
        self.seq = 0  # the ping_seq of its outcome
        self.acks: list[str] = []
        self.status_before: Status | None = None
        self.waiters: list[asyncio.Future[Ping]] = []
        self.request = b""
        self.pinged_at: datetime | None = None
        self.started = 0.0  # CLOCK_BOOTTIME, seconds, of the first sending
        self.send_at = 0.0  # when to send next
        self.no_responders = False
        self.response_ms: float | None = None
        self.report: bytes | None = None  # the answer as it came, and as it was read
        self.answer: UptimeReport | None = None

    def depart(self, now: datetime, nonce: str) -> None:
        """Fixes when the ping was made, what it asks, and the state that it builds upon.

        Should that state change, the answer's window would no longer tile. The same bytes are sent again until the
        time-out.
        """
        self.base, self.revision, self.seq = (
            self.tracked.state,
            self.tracked.state_revision,
            self.tracked.next_seq,
        )
        self.pinged_at = now
        self.status_before = self.tracked.status
        self.report = self.answer = self.response_ms = None
        self.no_responders = False
        self.request = encode(_request(self.tracked, self.ping_id, now, nonce))

    def is_settled_by(self, state: AgentState) -> bool:
        """Whether an outcome in the bucket is one that this flight was to bring about: its own, or another's."""
        return state.ping_seq >= max(self.seq, self.due_seq)

    def late_ms(self) -> float | None:
        """How long after its due time the ping was made; ours, never billed to the agent."""
        if self.due_at is None or self.pinged_at is None:
            return None
        return max(0.0, (self.pinged_at - self.due_at).total_seconds() * 1000.0)


def _request(tracked: Tracked, ping_id: str, now: datetime, nonce: str) -> PingRequest:
    """The window runs from the last answered report; across a new enrolment, or without one, from the enrolment."""
    state, entry = tracked.state, tracked.entry
    from_mark = tracked.window_from_mark()
    since = (
        state.last_answered_at if from_mark and state else (entry.enrolled_at if entry else None)
    )
    return PingRequest(
        ping_id=ping_id,
        seq=tracked.next_seq,
        since_mark=state.since_mark if from_mark and state else None,
        window_seconds=max(0.0, (now - since).total_seconds()) if since else None,
        excused=_excused(tracked, since, now),
        nonce=nonce,
    )


def _excused(tracked: Tracked, since: datetime | None, now: datetime) -> tuple[Span, ...]:
    spans = tracked.entry.maintenance if tracked.entry else ()
    return tuple(
        span for span in spans if span.since < now and (since is None or span.until > since)
    )
