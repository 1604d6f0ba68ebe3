"""The questions of services to each other, and the agents and pings that the REST interface shows.

The gateway passes most of these through unchanged, so their field names are the REST contract.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from bus.contract.labels import LABEL_PATTERN
from bus.contract.messages import (
    AgentState,
    DurationSeconds,
    Enrolment,
    GpuChange,
    GpuReport,
    GpuState,
    Message,
    Outcome,
    OutcomeWord,
    Percent,
    Seconds,
    Status,
    SummedSeconds,
    Timestamp,
    UptimeReport,
    Verdict,
    check_timestamps,
    report_of,
)
from bus.contract.subjects import END

MOST_CHOSEN = 5_000  # agents of one list by their ids, which are then 330 kB at most
PastHours = Annotated[float, Meta(gt=0.0, le=87_600.0)]  # up to ten years back from now
PageLimit = Annotated[int, Meta(ge=1, le=1000)]

SIMULATED = "simulated"  # the remark about a report whose GPUs do not exist


class GpuSummary(Struct, kw_only=True, frozen=True):
    """One GPU as lists show it. One that is expected and not in the report is `unreported`.

    `reported` is false where the last ping brought no report at all: name and index are then those
    of the last report, and the state is `unknown`.
    """

    uuid: str
    index: int | None
    name: str
    state: GpuState
    reasons: tuple[str, ...] = ()
    expected: bool = True
    reported: bool = True


class Evidence(Struct, kw_only=True, frozen=True):
    """A report byte for byte: one that was signed, or one that was refused.

    What is no UTF-8 begins with `base64:`.
    """

    report: str
    signature: str | None
    refused: bool


class Ping(Message, kw_only=True, frozen=True):
    """One outcome, as history shows it. Counters and interval are those after the outcome.

    `remarks` say what was found when the report was checked, such as `unheard` or `simulated`.
    `evidence` is filled in where the question asks for it.
    """

    agent_id: str
    ping_seq: int
    pinged_at: datetime
    outcome: OutcomeWord
    reason: str | None
    verdict: Verdict
    uptime_percent: Percent | None
    seconds: Seconds | None
    window_seconds: DurationSeconds | None
    consecutive_poor_uptime: int
    interval_minutes: float
    next_ping_at: datetime
    response_ms: float | None
    late_ms: float | None
    gpus: tuple[GpuReport, ...] = ()
    remarks: tuple[str, ...] = ()
    evidence: Evidence | None = None


class Agent(Message, kw_only=True, frozen=True):
    """One agent as lists show it.

    The asker fills in `uptime_24h_percent` from history, and the seconds that it rests on.
    `last_reason` and `remarks` are those of the last outcome.
    """

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
    # start of the present enrolment: later than registered_at after a removal
    enrolled_at: datetime | None = None
    # all of them, oldest first, for statements
    enrolments: tuple[Enrolment, ...] = ()
    # not empty: two hosts answer under this id, and an operator has to decide
    conflicting_boot_ids: tuple[str, ...] = ()
    # the same for two agents, which may be on one host: their sessions, and a GPU of each
    conflicting_sessions: tuple[str, ...] = ()
    conflicting_gpus: tuple[str, ...] = ()
    # addresses of two hosts that are connected under one identity now
    conflicting_connections: tuple[str, ...] = ()
    uptime_24h_seconds: DurationSeconds | None = None
    last_reason: str | None = None
    remarks: tuple[str, ...] = ()
    # its GPUs do not exist: so its last report says, or the first that it was judged by
    simulated: bool = False
    # what an operator says of the host; `metadata` has them too, over what the host said itself
    labels: dict[str, str] = field(default_factory=dict)
    # a gateway asks it at its agent_url: its reports are not signed, and nothing is known of its
    # connection
    by_http: bool = False


# ---- questions to the scheduler ----

Capability = Annotated[str, Meta(min_length=1, max_length=100)]


REMOVED_BY_OPERATOR = 410  # HTTP's Gone

# of a registration as JSON, over REST and on the bus alike
MAX_REGISTRATION_BYTES = 64 * 1024
MAX_REGISTRATION_DEPTH = 32


class RegisterRequest(Message, kw_only=True, frozen=True):
    """Registers an agent. Fields left out (None) keep their registered values.

    `mark` is the ledger position at this moment; an agent's own registration carries it, so that
    the first window of an enrolment begins there. The registry refuses with the code
    REMOVED_BY_OPERATOR while the operator's removal holds. `audited`: as in ChangeRequest.
    """

    agent_url: Annotated[str, Meta(max_length=2048)] | None = None
    capabilities: Annotated[tuple[Capability, ...], Meta(max_length=100)] | None = None
    metadata: dict[str, Any] | None = None
    mark: Annotated[str, Meta(max_length=100)] | None = None
    audited: bool = False


class BridgeRequest(Message, kw_only=True, frozen=True):
    """Notes that a registered agent is asked by HTTP from now on, or no longer.

    `agent_url` is the one that the asker has checked: where another is registered by now, nothing
    changes. Refused with 409 for a host whose reports are signed.
    """

    agent_url: str
    by_http: bool


class ChangeRequest(Message, kw_only=True, frozen=True):
    """Asks for a removal or a ping by hand. An empty request counts as one with the defaults.

    `audited` tells that the asker records the change in the audit log itself, because it knows in
    whose name it asks. Otherwise the scheduler records it.
    """

    audited: bool = False


class RegisterReply(Message, kw_only=True, frozen=True):
    """The registered agent. `created` is false for one that was registered already."""

    agent: Agent
    created: bool


# of NVML; a MIG device is named by its GPU and its instances
GpuUuid = Annotated[str, Meta(pattern=r"^[!-~]{1,200}" + END)]
MAX_EXPECTED_GPUS = 256


class ExpectGpusRequest(Message, kw_only=True, frozen=True):
    """Says which GPUs are expected of a host from `since` on; None for from now on.

    `since` lies neither in the future nor before the window that is open: what is recorded is never
    accounted anew. `replaces` is the list that the asker has seen; the change is refused with 409
    when it is another one by now. `author` is who asks, for the log; `audited` is as in
    ChangeRequest.
    """

    expected_gpus: Annotated[tuple[GpuUuid, ...], Meta(min_length=1, max_length=MAX_EXPECTED_GPUS)]
    since: Timestamp | None = None
    replaces: tuple[str, ...] | None = None
    author: Annotated[str, Meta(max_length=200)] = ""
    audited: bool = False

    def __post_init__(self) -> None:
        check_timestamps(self.since)


class ExpectedGpus(Message, kw_only=True, frozen=True):
    """The GPUs that are expected of a host, and every change that an operator made, oldest first.

    A GPU without a change is expected since the host's first report. A change may take effect from
    `open_since` on, where the window that is not recorded yet begins.
    """

    agent_id: str
    expected_gpus: tuple[str, ...]
    changes: tuple[GpuChange, ...]
    open_since: datetime | None = None


AgentOrder = Literal["id", "due", "worst", "uptime", "interval", "next", "response"]


class ListRequest(Message, kw_only=True, frozen=True):
    """Asks for a page of agents in some order.

    `due`: only agents that are due, most overdue first, on one page. `worst`: worst status first.
    `uptime`: lowest uptime of the last judged ping first. `interval`: longest first. `next`: next
    ping first. `response`: slowest first. Equal ones are ordered by id; `reverse` turns the order
    round. `cursor` is `next_cursor` of the page before; `offset` skips so many agents, and reaches
    any page at once. An agent that changed its place between two pages may come twice or not at
    all.

    `search` finds agents in which each of its words occurs, in any case: in the id, URL,
    capabilities, metadata (as `name:value`), names and UUIDs of GPUs, and reasons (as
    `reason:...`). With `agent_ids`, only these agents are looked at. `label` finds those that have
    exactly this label or metadata, such as `site=FRA`.
    """

    status: Status | None = None
    capability: str | None = None
    search: Annotated[str, Meta(max_length=200)] | None = None
    limit: PageLimit = 1000
    cursor: str | None = None
    offset: Annotated[int, Meta(ge=0)] = 0
    order: AgentOrder = "id"
    reverse: bool = False
    agent_ids: Annotated[tuple[str, ...], Meta(max_length=MOST_CHOSEN)] = ()
    has_url: bool = False  # only agents with an agent_url
    label: Annotated[str, Meta(pattern=LABEL_PATTERN)] | None = None


class GetRequest(Message, kw_only=True, frozen=True):
    """Asks for one agent. `removed_too` includes a removed one, which keeps its history.

    An empty request counts as one with the defaults.
    """

    removed_too: bool = False


class AgentPage(Message, kw_only=True, frozen=True):
    """A page of agents. `total` counts the agents of all pages that match the filters."""

    agents: tuple[Agent, ...]
    total: int
    next_cursor: str | None = None


class GpuCounts(Struct, kw_only=True, frozen=True):
    """The GPUs of all registered hosts by their state at the last ping.

    `hosts_lost_all` counts the hosts whose GPUs are all down or unknown.
    """

    total: int = 0
    up: int = 0
    degraded: int = 0
    down: int = 0
    unknown: int = 0
    hosts_lost_all: int = 0


class Fleet(Message, kw_only=True, frozen=True):
    """Numbers of the fleet, from the scheduler's memory."""

    agents: int
    pings: int
    missed: int
    due: int
    in_flight: int
    by_status: dict[str, int]
    next_ping_at: datetime | None = None
    duplicate_ids: int = 0  # agents under whose id two answer
    # why the scheduler that answered cannot ping or keep outcomes; None while it can
    trouble: str | None = None
    remarks: tuple[str, ...] = ()  # what an operator should put right, while pings go on
    gpus: GpuCounts | None = None
    base_interval_minutes: float | None = None


class LiveEvent(Message, kw_only=True, frozen=True):
    """A message on `gpuping.event.<id>`: what happened to an agent, for live views."""

    kind: Literal["ping", "registered", "removed", "connected", "disconnected", "conflict"]
    agent_id: str
    at: datetime
    agent: Agent | None = None
    ping: Ping | None = None
    previous_status: Status | None = None


# ---- questions to storage ----


# a position in time (storage/answers/cursor.py), opaque to all other code
CURSOR_PATTERN = r"^[0-9]{1,18}-[0-9]{1,19}" + END
Cursor = Annotated[str, Meta(pattern=CURSOR_PATTERN)]


class HistoryRequest(Message, kw_only=True, frozen=True):
    """Asks for outcomes, newest first. `cursor` is `next_cursor` of the page before.

    The first page begins with the newest outcome, or with the newest one `before` a moment. With
    `evidence`, each outcome has the report that was signed or refused.
    """

    hours: PastHours = 24.0
    limit: PageLimit = 1000
    cursor: Cursor | None = None
    before: Timestamp | None = None
    evidence: bool = False

    def __post_init__(self) -> None:
        check_timestamps(self.before)


class HistorySummary(Struct, kw_only=True, frozen=True):
    """The whole period, over all pages. Uptime is a ratio of summed seconds.

    `unreported_seconds` is time in which the agent was asked and never answered. It is in none of
    the seconds, counts as judged and not as up. Time whose outcome was lost is excused.
    """

    pings: int
    answered: int
    missed: int
    excused: int
    first: int
    good: int
    poor: int
    missing_seqs: int  # ping_seq numbers that never reached history
    uptime_percent: Percent | None
    seconds: SummedSeconds
    response_ms_p50: float | None = None
    response_ms_p95: float | None = None
    unreported_seconds: float = 0.0


class HistoryReply(Message, kw_only=True, frozen=True):
    """One page of an agent's history: `limit` outcomes, or as many as one message can carry."""

    agent_id: str
    hours: float
    pings: tuple[Ping, ...]
    summary: HistorySummary
    next_cursor: Cursor | None = None


class StoredHistory(HistoryReply, kw_only=True, frozen=True):
    """What storage replies to a history question: a page, and whether it ever recorded the agent.

    `agent_known` is true once history has held an outcome of the agent, however long ago. A
    registered agent that has not been pinged yet is known to the registry only.
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
    """Asks for the time-weighted uptime of several agents over the last `hours`."""

    agent_ids: Annotated[tuple[str, ...], Meta(max_length=1000)]
    hours: PastHours = 24.0


class UptimesReply(Message, kw_only=True, frozen=True):
    """Uptimes in percent, and the seconds that were judged. Agents without any are left out."""

    uptimes: dict[str, float]
    judged_seconds: dict[str, float] = msgspec.field(default_factory=dict)


class OverviewRequest(Message, kw_only=True, frozen=True):
    """Asks for the fleet's last `hours` in numbers, and for its `recent` newest outcomes.

    `changes` is the number of newest outcomes that differ in kind from the one before, `troubles`
    that of the newest troubles of GPUs and hosts.
    `longer_hours` are more periods of which only the sums are wanted.
    """

    hours: PastHours = 24.0
    recent: Annotated[int, Meta(ge=0, le=1000)] = 50
    changes: Annotated[int, Meta(ge=0, le=1000)] = 0
    troubles: Annotated[int, Meta(ge=0, le=1000)] = 0
    longer_hours: Annotated[tuple[PastHours, ...], Meta(max_length=10)] = ()


OutcomeKind = Literal["first", "good", "poor", "missed"]


class Change(Struct, kw_only=True, frozen=True):
    """An outcome that differs in kind from the agent's one before, or its first (None)."""

    previous: OutcomeKind | None
    ping: Ping


class Trouble(Struct, kw_only=True, frozen=True):
    """What was wrong with a GPU, or with a host (no `gpu`), for one reason, within a period.

    `since` and `until` are those of the last time, `until` None where it lasted at `told_at`, when
    the host reported it last. `times` is how many such troubles the period had. What happened at
    one moment, such as an XID that has no effect, has the state `event`.
    """

    agent_id: str
    gpu: str | None
    index: int | None
    state: str
    reason: str
    since: datetime
    until: datetime | None
    times: int
    told_at: datetime


class FleetSums(Struct, kw_only=True, frozen=True):
    """The whole fleet over a longer period, from the summed seconds of windows.

    `unreported_seconds` is as in HistorySummary, of all agents together.
    """

    hours: float
    uptime_percent: Percent | None
    seconds: SummedSeconds
    unreported_seconds: float = 0.0


class OverviewReply(Message, kw_only=True, frozen=True):
    """The fleet in numbers. `response_ms` and `late_ms` have percentiles by name (`p50`, ...).

    `unreported_seconds` is as in HistorySummary, of all agents together.
    """

    pings: int
    verdicts: dict[str, int]
    uptime_percent: Percent | None
    seconds: SummedSeconds
    response_ms: dict[str, float | None]
    late_ms: dict[str, float | None]
    recent: tuple[Ping, ...]
    changes: tuple[Change, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    longer: tuple[FleetSums, ...] = ()
    unreported_seconds: float = 0.0


class StorageStats(Message, kw_only=True, frozen=True):
    """How far ingest has come. `lag` counts messages in the stream that are not yet rows."""

    rows: int
    last_sequence: int
    lag: int
    missing_seqs: int
    poisoned: int = 0  # messages that could not be decoded as outcomes and were set aside
    stream_begins: datetime | None = None  # the oldest outcome that the bus holds
    stream_days_left: float | None = None  # until the bus drops that one, at the rate so far
    days_in_file_only: int = 0  # neither on the bus nor in the archive any more
    # Why nothing is taken in, for operators: it may name files. None while all is taken in.
    ingest_waiting: str | None = None
    stream_bytes: int = 0  # of the history stream on the bus
    stream_limit_bytes: int | None = None  # beyond which the bus drops the oldest outcomes
    disk_free_bytes: int | None = None  # where storage keeps its file; None where it is unknown
    disk_bytes: int | None = None
    waiting_reason: str | None = None  # the same for everybody
    refused_replies: int = 0  # questions that were dropped: their reply subject is no inbox
    engine_bytes: int | None = None  # memory in use by DuckDB, when it last took outcomes in


def ping_of(state: AgentState, report: UptimeReport | None = None) -> Ping:
    """The last outcome of a state as history and the REST interface show it.

    A caller who has decoded the state's report already can pass it, which saves decoding it again.
    """
    last = state.last
    if report is None:
        report = report_of(last)
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
        remarks=_remarks(last, report),
    )


def _remarks(last: Outcome, report: UptimeReport | None) -> tuple[str, ...]:
    if report is not None and report.simulated:
        return (*last.remarks, SIMULATED)
    return last.remarks


class BusServer(Struct, kw_only=True, frozen=True):
    """What JetStream holds on one nats-server, and how much that server lets it hold."""

    name: str
    stored_bytes: int
    limit_bytes: int
    syncs_always: bool = True  # a write is on disk before it is acknowledged


class LostGateway(Struct, kw_only=True, frozen=True):
    """A gateway whose connection a server closed because it answered no more, at `since`."""

    host: str
    since: datetime


class LostScheduler(Struct, kw_only=True, frozen=True):
    """A scheduler that worked and fell silent at `since` without a farewell."""

    instance: str
    since: datetime


class SchedulerStats(Message, kw_only=True, frozen=True):
    """What one scheduler has done since its start. Histograms count values up to each bound (s)."""

    instance: str
    started_at: datetime
    verdicts: dict[str, int]
    in_flight: int
    in_flight_limit: int
    waiting: int  # due pings that wait because the limit is reached
    held_back_seconds: float  # how long pings have waited because of that limit
    commits: int  # atomic batches
    lost_races: int  # outcomes that another scheduler had recorded already
    bad_messages: int
    events_dropped: int  # live events not sent, because pings had precedence
    timers_put_off: int  # timers of overdue agents that were moved, so that not all fire at once
    ping_seconds: dict[str, int]
    late_seconds: dict[str, int]
    ping_seconds_sum: float = 0.0
    late_seconds_sum: float = 0.0
    # pings held until the history stream has their agent's last state
    held: int = 0
    holding_seconds: float = 0.0  # for how long now without a break
    held_seconds: float = 0.0  # in total
    differing_policies: tuple[str, ...] = ()  # schedulers that judge by other rules
    bucket_problem: str | None = None  # why nobody is pinged
    lost_enrolments: int = 0  # agents that were registered and are gone from the bucket
    layout_problems: tuple[str, ...] = ()  # streams that are not as the settings want them
    layout_unfinished: str | None = None  # a command that makes streams and has not finished
    # the server's clock less this scheduler's; None before it was measured
    bus_clock_offset_seconds: float | None = None
    peer_clock_difference_seconds: float = 0.0  # of another scheduler's clock from its, at most
    schedulers: int = 1  # that announce themselves, with this one
    # frozen, ended by force or cut off, and neither back nor replaced
    lost_schedulers: tuple[LostScheduler, ...] = ()
    bucket_bytes: int = 0  # of the bucket's stream on the bus
    bus_servers: tuple[BusServer, ...] = ()  # empty without NATS_SYSTEM_CREDS
    gateways: int | None = None  # that are connected; None without NATS_SYSTEM_CREDS
    lost_gateways: tuple[LostGateway, ...] = ()  # frozen or cut off, and not back
    unsigned_hosts: int = 0  # whose reports count although no key of theirs is known
    unsigned_until: datetime | None = None  # from then on they do not
    refused_replies: int = 0  # questions that were dropped: their reply subject is no inbox
