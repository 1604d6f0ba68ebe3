"""What services ask each other, and the agents and pings that the REST interface shows.

The gateway hands most of these on unchanged: their field names are the REST contract.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from bus.contract.messages import (
    AgentState,
    Duration,
    Enrolment,
    GpuReport,
    GpuState,
    Message,
    Percent,
    Result,
    Seconds,
    Status,
    UptimeReport,
    Verdict,
    report_of,
)
from bus.contract.subjects import END


class GpuSummary(Struct, kw_only=True, frozen=True):
    """One GPU as lists show it."""

    uuid: str
    index: int | None
    name: str
    state: GpuState
    reasons: tuple[str, ...] = ()


class Ping(Message, kw_only=True, frozen=True):
    """One outcome, as history shows it; counters and interval as they are after it."""

    agent_id: str
    ping_seq: int
    pinged_at: datetime
    outcome: Result
    reason: str | None
    verdict: Verdict
    uptime_percent: Percent | None
    seconds: Seconds | None
    window_seconds: Duration | None
    consecutive_poor_uptime: int
    interval_minutes: float
    next_ping_at: datetime
    response_ms: float | None
    late_ms: float | None
    gpus: tuple[GpuReport, ...] = ()


class Agent(Message, kw_only=True, frozen=True):
    """One agent as lists show it. `uptime_24h_percent` is filled in from history by who asks for it."""

    agent_id: str
    agent_url: str | None
    capabilities: tuple[str, ...]
    metadata: dict[str, Any]
    status: Status
    registered_at: datetime
    uptime_percent: Percent | None
    uptime_24h_percent: Percent | None
    consecutive_poor_uptime: int
    good_streak: int
    current_interval_minutes: float
    next_ping_at: datetime | None
    last_ping_at: datetime | None
    last_answered_at: datetime | None
    total_pings: int
    missed_pings: int
    last_response_ms: float | None
    connected: bool | None
    gpus: tuple[GpuSummary, ...] = ()
    expected_gpus: tuple[str, ...] = ()
    enrolled_at: datetime | None = (
        None  # start of the present enrolment: later than registered_at after a removal
    )
    enrolments: tuple[
        Enrolment, ...
    ] = ()  # all there were, the oldest first: what statements are made over
    conflicting_boot_ids: tuple[
        str, ...
    ] = ()  # two hosts answer under this id, an operator has to look


# ---- questions to the scheduler ----------------------------------------------------------------------------

Capability = Annotated[str, Meta(min_length=1, max_length=100)]


class RegisterRequest(Message, kw_only=True, frozen=True):
    """Fields left out (None) keep what is registered already."""

    agent_url: Annotated[str, Meta(max_length=2048)] | None = None
    capabilities: Annotated[tuple[Capability, ...], Meta(max_length=100)] | None = None
    metadata: dict[str, Any] | None = None


class RegisterReply(Message, kw_only=True, frozen=True):
    """`created` is false for an agent that was known."""

    agent: Agent
    created: bool


class ListRequest(Message, kw_only=True, frozen=True):
    """A page of agents.

    `order` id: by id, after `cursor`; due: only those due, most overdue first; worst: worst standing first.
    """

    status: Status | None = None
    capability: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    cursor: str | None = None
    order: Literal["id", "due", "worst"] = "id"


class GetRequest(Message, kw_only=True, frozen=True):
    """One agent; an empty request is one as well. `removed_too`: also one that was removed, which keeps its history."""

    removed_too: bool = False


class AgentPage(Message, kw_only=True, frozen=True):
    """`total` counts every agent that fits the filters, on all pages."""

    agents: tuple[Agent, ...]
    total: int
    next_cursor: str | None = None


class Fleet(Message, kw_only=True, frozen=True):
    """The fleet in numbers, from the scheduler's memory."""

    agents: int
    pings: int
    missed: int
    due: int
    in_flight: int
    by_status: dict[str, int]
    next_ping_at: datetime | None = None


class LiveEvent(Message, kw_only=True, frozen=True):
    """`gpuping.event.<id>`: something happened, for live views."""

    kind: Literal["ping", "registered", "removed"]
    agent_id: str
    at: datetime
    agent: Agent | None = None
    ping: Ping | None = None
    previous_status: Status | None = None


# ---- questions to storage ----------------------------------------------------------------------------------


CURSOR_PATTERN = (
    r"^[0-9]{1,18}-[0-9]{1,19}" + END
)  # a place in time (storage/answers/cursor.py), opaque to everybody else
Cursor = Annotated[str, Meta(pattern=CURSOR_PATTERN)]


class HistoryRequest(Message, kw_only=True, frozen=True):
    """Outcomes of the last `hours`, newest first, from `cursor` on: `next_cursor` of the page before."""

    hours: Annotated[float, Meta(gt=0.0, le=87_600.0)] = 24.0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    cursor: Cursor | None = None


class HistorySummary(Struct, kw_only=True, frozen=True):
    """The whole period, over all pages. Uptime is a ratio of summed seconds, never a mean of percentages."""

    pings: int
    answered: int
    missed: int
    excused: int
    first: int
    good: int
    poor: int
    missing_seqs: int  # ping_seq numbers that never reached history
    uptime_percent: Percent | None
    seconds: Seconds
    response_ms_p50: float | None = None
    response_ms_p95: float | None = None


class HistoryReply(Message, kw_only=True, frozen=True):
    """One page of an agent's history: `limit` outcomes, or as many as a message of the bus carries."""

    agent_id: str
    hours: float
    pings: tuple[Ping, ...]
    summary: HistorySummary
    next_cursor: Cursor | None = None


class StoredHistory(HistoryReply, kw_only=True, frozen=True):
    """What storage replies to a history question: a page, and whether it ever recorded the agent.

    `agent_known` is true once history has held an outcome of the agent, however long ago. A registered agent
    that has not been pinged yet is known to the registry only.
    """

    agent_known: bool = False

    def page(self) -> HistoryReply:
        """The page alone, as the REST interface shows it."""
        return HistoryReply(
            agent_id=self.agent_id,
            hours=self.hours,
            pings=self.pings,
            summary=self.summary,
            next_cursor=self.next_cursor,
        )


class UptimesRequest(Message, kw_only=True, frozen=True):
    """Time-weighted uptime of several agents over the last `hours`."""

    agent_ids: Annotated[tuple[str, ...], Meta(max_length=1000)]
    hours: Annotated[float, Meta(gt=0.0, le=87_600.0)] = 24.0


class UptimesReply(Message, kw_only=True, frozen=True):
    """Percent, and the seconds it is of; agents without an accounted second are left out."""

    uptimes: dict[str, float]
    judged_seconds: dict[str, float] = msgspec.field(default_factory=dict)


class OverviewRequest(Message, kw_only=True, frozen=True):
    """The fleet's last `hours`, and its `recent` newest outcomes."""

    hours: Annotated[float, Meta(gt=0.0, le=87_600.0)] = 24.0
    recent: Annotated[int, Meta(ge=0, le=1000)] = 50


class OverviewReply(Message, kw_only=True, frozen=True):
    """`uptime`, `response_ms` and `late_ms` are keyed by name (`percent`, `p50`, ...)."""

    pings: int
    verdicts: dict[str, int]
    uptime_percent: Percent | None
    seconds: Seconds
    response_ms: dict[str, float | None]
    late_ms: dict[str, float | None]
    recent: tuple[Ping, ...]


class StorageStats(Message, kw_only=True, frozen=True):
    """How far ingest has come. `lag` is messages in the stream that are not yet rows."""

    rows: int
    last_sequence: int
    lag: int
    missing_seqs: int
    poisoned: int = 0  # messages that were no outcome and were set aside
    ingest_waiting: str | None = None


def ping_of(state: AgentState, report: UptimeReport | None = None) -> Ping:
    """The last outcome of a state in the shape that history and the REST interface show.

    `report` spares reading it from the state once more.
    """
    last = state.last
    report = report or report_of(last)
    return Ping(
        agent_id=state.agent_id,
        ping_seq=last.ping_seq,
        pinged_at=last.pinged_at,
        outcome=last.outcome,
        reason=last.reason,
        verdict=last.verdict,
        uptime_percent=last.uptime_percent,
        seconds=last.seconds,
        window_seconds=last.window_seconds,
        consecutive_poor_uptime=state.consecutive_poor,
        interval_minutes=state.interval_seconds / 60.0,
        next_ping_at=state.next_ping_at,
        response_ms=last.response_ms,
        late_ms=last.late_ms,
        gpus=report.gpus if report else (),
    )


class SchedulerStats(Message, kw_only=True, frozen=True):
    """What one scheduler has done since its start. Histograms: count of values up to each bound (seconds)."""

    instance: str
    started_at: datetime
    verdicts: dict[str, int]
    in_flight: int
    in_flight_limit: int
    waiting: int  # due pings that wait for a place below the limit
    held_back_seconds: float  # time in which that limit was what held pings back
    commits: int  # atomic batches
    lost_races: int  # outcomes that another scheduler had recorded already
    bad_messages: int
    events_dropped: int  # for want of time: pings come first, live views second
    timers_put_off: int  # timers of overdue agents that were moved so as not to fire all at once
    ping_seconds: dict[str, int]
    late_seconds: dict[str, int]
    ping_seconds_sum: float = 0.0
    late_seconds_sum: float = 0.0
