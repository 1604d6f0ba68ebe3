"""One attempt to ping an agent: from when it is due, or requested, until its outcome is written."""

import asyncio
from datetime import datetime

from bus.contract.messages import (
    AgentState,
    AnsweredPing,
    ExcusedSpan,
    ExpectedChange,
    PingRequest,
    Span,
    Status,
    UptimeReport,
    encode,
)
from bus.contract.questions import Ping
from bus.identity.signatures import GENESIS
from bus.identity.signed_report import Checked
from scheduler.fleet.rules.expected_gpus import expected_now
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.admission import Admitted
from scheduler.ping.accounting.timestamps import next_whole_millisecond, whole_millisecond
from scheduler.ping.accounting.window import WindowStart, seconds_passed, window_start

NOT_SENT = AnsweredPing(boot_id="", boottime=0.0)


class PingAttempt:
    """The mutable data of one attempt. Only the scheduler that made it uses it."""

    __slots__ = (
        "acks",
        "admitted",
        "agent_id",
        "answers_in_check",
        "base_revision",
        "base_state",
        "clamped_ms",
        "due_at",
        "due_seq",
        "enrolled_at",
        "excused",
        "excused_spans",
        "first_sent_at",
        "is_abandoned",
        "ledger_heads",
        "ledger_remark",
        "may_be_answered_late",
        "next_send_at",
        "no_responders",
        "nonce",
        "ping_id",
        "pinged_at",
        "previous",
        "refused_report",
        "rejected",
        "rejected_as",
        "rejected_report",
        "report",
        "report_bytes",
        "request",
        "response_ms",
        "restored_through",
        "sent",
        "seq",
        "signature",
        "signing_key",
        "status_before",
        "tracked",
        "waiters",
        "window_start",
    )

    def __init__(
        self,
        agent_id: str,
        tracked: Tracked,
        ping_id: str,
        due_at: datetime | None,
    ) -> None:
        self.agent_id = agent_id
        self.tracked = tracked
        self.ping_id = ping_id
        self.due_at = due_at  # None: requested by hand
        self.due_seq = 0  # the highest ping_seq that its due messages ask for
        self.acks: list[str] = []  # reply subjects of the due messages that its outcome settles
        self.restored_through = 0  # the last sequence of the bucket that came from a backup
        self.is_abandoned = False  # its outcome is not written: the fleet was loaded anew
        self.waiters: list[asyncio.Future[Ping]] = []  # requests by hand that await the outcome

        # Set by `start`.
        self.base_state: AgentState | None = None  # the state that the outcome is computed from
        self.base_revision = 0
        self.seq = 0  # the ping_seq of the outcome
        self.status_before: Status | None = None
        self.request = b""
        self.nonce = ""
        self.pinged_at: datetime | None = None
        # Another enrolment may begin while the answer is awaited. The window is of the one asked.
        self.window_start: WindowStart | None = None
        self.enrolled_at: datetime | None = None
        self.excused: tuple[ExcusedSpan, ...] = ()
        self.sent = NOT_SENT
        self.clamped_ms = 0  # by how much our clock was ahead of the server's, whose time is used

        # Kept by the pinger; times are CLOCK_BOOTTIME in seconds.
        self.first_sent_at = 0.0
        self.next_send_at = 0.0
        self.no_responders = False
        self.may_be_answered_late = False  # it is past its time-out, and was missed
        self.answers_in_check = 0  # whose signature is being checked
        self.response_ms: float | None = None
        self.report_bytes: bytes | None = None  # as received
        self.report: UptimeReport | None = None  # the same, decoded
        self.admitted: Admitted | None = None  # the time in it that counts
        self.excused_spans: tuple[Span, ...] = ()  # when its excused time was
        self.refused_report: bytes | None = None  # an answer that does not count
        self.rejected = ""  # why the last answer was ignored; there may be a better one
        self.rejected_as = ""  # the same, in one word
        self.signature: Checked | None = None  # of the report that counts
        self.signing_key: str | None = None  # of the agent's host, where it has one
        self.previous = GENESIS  # the hash of the last recorded report under that key
        self.ledger_heads: tuple[str, ...] = ()  # of the ledger in the last reports under that key
        self.ledger_remark: str | None = None  # where the ledger does not simply go on
        self.rejected_report: bytes | None = None  # that answer

    def start(
        self,
        now: datetime,
        nonce: str,
        sent: AnsweredPing,
        timeout_seconds: float,
    ) -> None:
        """Fixes the ping's timestamp, its request, and the state that its outcome is computed from.

        The same bytes are sent again until the time-out. If the state changes before the outcome is
        written, the attempt is started anew: the window of the answer would no longer begin where
        the last counted window ended.

        The window ends now, on a whole millisecond, and never before it began: a clock that was set
        back makes an empty window and no negative one.
        """
        tracked = self.tracked
        self.base_state = tracked.state
        self.base_revision = tracked.state_revision
        self.seq = tracked.next_seq
        self.status_before = tracked.status
        pinged_at = whole_millisecond(now)
        start = window_start(tracked)
        if start is not None:
            # An enrolment may have begun within a millisecond.
            pinged_at = max(pinged_at, next_whole_millisecond(start.since))
        self.window_start = start
        self.enrolled_at = None
        if tracked.entry is not None:
            self.enrolled_at = tracked.entry.enrolled_at
        self.pinged_at = pinged_at
        self.nonce = nonce
        self.sent = sent
        self.excused = _maintenance(tracked, self.window_since, pinged_at)
        self.no_responders = False
        self.may_be_answered_late = False
        self.response_ms = None
        self.report_bytes = None
        self.report = None
        self.admitted = None
        self.excused_spans = ()
        self.refused_report = None
        self.rejected = ""
        self.rejected_as = ""
        self.signature = None
        self.ledger_remark = None
        self._continue_chain()
        self.rejected_report = None
        self.request = encode(self._request(start, pinged_at, timeout_seconds))

    def reject(
        self,
        reason: str,
        detail: str,
        data: bytes,
    ) -> None:
        """Notes an answer that does not count, while there may be a better one."""
        self.rejected_as = reason
        self.rejected = detail
        self.rejected_report = data

    def _continue_chain(self) -> None:
        """Fixes which key must sign the report, and which report it must follow.

        The chain begins anew with each key. It is part of the state that the outcome is written
        over, so that of several reports that follow one another's predecessor one is recorded.
        """
        entry = self.tracked.entry
        state = self.base_state
        self.signing_key = None
        if entry is not None:
            self.signing_key = entry.signing_key
        self.previous = previous_report(state, self.signing_key)
        self.ledger_heads = ()
        if state is not None and self.previous != GENESIS:
            self.ledger_heads = state.ledger_heads

    def _request(
        self,
        start: WindowStart | None,
        pinged_at: datetime,
        timeout_seconds: float,
    ) -> PingRequest:
        """Returns the request for the window since the last answered ping or the enrolment."""
        window_seconds = None
        since_mark = None
        if start is not None:
            window_seconds = seconds_passed(start, self.sent, pinged_at)
            since_mark = start.mark
        return PingRequest(
            ping_id=self.ping_id,
            seq=self.seq,
            since_mark=since_mark,
            window_seconds=window_seconds,
            excused=self.excused,
            nonce=self.nonce,
            timeout_seconds=timeout_seconds,
            expected_gpus=expected_now(self.tracked.entry),
            expected_changes=_expected_changes(self.tracked, self.window_since, pinged_at),
            previous=self.previous if self.signing_key is not None else None,
            ledger_heads=self.ledger_heads,
        )

    @property
    def window_since(self) -> datetime | None:
        """When the window begins; None for an agent that is not enrolled."""
        if self.window_start is None:
            return None
        return self.window_start.since

    @property
    def follows_restore(self) -> bool:
        """Whether the state before this outcome came from a backup: what followed it is lost."""
        return 0 < self.base_revision <= self.restored_through

    @property
    def host_joined_anew(self) -> bool:
        """Whether the host has another key than the one that its answer was to be signed with.

        It was enrolled again while it was asked, and the enrolment ended the earlier key.
        """
        entry = self.tracked.entry
        return entry is not None and entry.signing_key != self.signing_key

    @property
    def is_by_http(self) -> bool:
        """Whether the agent is asked by HTTP, as the operator allowed, and so signs nothing."""
        return self.tracked.entry is not None and self.tracked.entry.by_http

    def is_settled_by(self, state: AgentState) -> bool:
        """Returns whether `state` holds this attempt's outcome, or another's for the same ping.

        Its own outcome settles it even where a timer has fired for the next ping meanwhile: an
        attempt that is started anew has the same ping_id, which no two outcomes may have.
        """
        if state.last.ping_id == self.ping_id:
            return True
        return state.ping_seq >= max(self.seq, self.due_seq)

    def late_ms(self) -> float | None:
        """Returns how many milliseconds after its due time the ping was sent first.

        This delay is the scheduler's and never counts against the agent. None when the ping was
        requested by hand.
        """
        if self.due_at is None or self.pinged_at is None:
            return None
        late = self.pinged_at - self.due_at
        return max(0.0, late.total_seconds() * 1000.0)


def previous_report(state: AgentState | None, signing_key: str | None) -> str:
    """Returns the hash of the last recorded report under a key, which the next one must name."""
    if state is None or state.report_hash is None or state.report_key != signing_key:
        return GENESIS
    return state.report_hash


def _expected_changes(
    tracked: Tracked,
    since: datetime | None,
    pinged_at: datetime,
) -> tuple[ExpectedChange, ...]:
    """Returns what the operator changed about the expected GPUs since the window began."""
    if tracked.entry is None or not tracked.entry.gpu_changes:
        return ()
    changes = []
    for change in tracked.entry.gpu_changes:
        if since is None or change.since > since:
            told = ExpectedChange(
                uuid=change.uuid,
                expected=change.expected,
                seconds_ago=(pinged_at - change.since).total_seconds(),
            )
            changes.append(told)
    return tuple(changes)


def _maintenance(
    tracked: Tracked,
    since: datetime | None,
    now: datetime,
) -> tuple[ExcusedSpan, ...]:
    """Returns the maintenance windows that overlap the time from `since` to `now`.

    Agents use the ages. The wall times are for agents of before, which know nothing else.
    """
    if tracked.entry is None or not tracked.entry.maintenance:
        return ()
    overlapping = []
    for span in tracked.entry.maintenance:
        ended_before = since is not None and span.until <= since
        if span.since < now and not ended_before:
            excused = ExcusedSpan(
                since_seconds_ago=(now - span.since).total_seconds(),
                until_seconds_ago=(now - span.until).total_seconds(),
                since=span.since,
                until=span.until,
            )
            overlapping.append(excused)
    return tuple(overlapping)
