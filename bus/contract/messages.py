"""The ping, its answer and every value in the bucket, as typed Structs encoded as JSON.

Unknown fields are ignored, so that services of different versions work together. Timestamps are
aware datetimes in UTC (RFC 3339 in JSON), durations are seconds, percents are from 0 to 100 or None
where nothing was observed. The questions of services to each other are in
`bus/contract/questions.py`.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from bus.contract.subjects import AGENT_ID_PATTERN
from bus.errors import BadMessageError

SCHEMA_VERSION = 1

AgentId = Annotated[str, Meta(pattern=AGENT_ID_PATTERN)]
Percent = Annotated[float, Meta(ge=0.0, le=100.0)]
# up to 136 years: a BIGINT holds the sum of millions of them in milliseconds
DurationSeconds = Annotated[float, Meta(ge=0.0, le=2.0**32)]
Timestamp = Annotated[datetime, Meta(tz=True)]  # in [EARLIEST, LATEST): `check_timestamps`
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)  # a year below datetime's limit: any offset fits
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
GpuState = Literal["up", "degraded", "down", "unknown"]
OutcomeWord = Literal["answered", "missed", "excused"]
Verdict = Literal["first", "good", "poor", "excused"]
Status = Literal["maintenance", "pending", "missing", "poor", "recovering", "healthy"]


def _always(default: Any) -> Any:
    """A default that is written, too, where others are omitted."""
    return msgspec.field(default_factory=lambda: default)


class Message(Struct, kw_only=True, frozen=True, gc=False):
    """The base of all messages, with the version of the schema.

    A message is made from JSON or written as such, so it cannot refer to itself. The garbage
    collector therefore need not look at messages (`gc=False`), of which a scheduler keeps millions.
    """

    schema_version: int = SCHEMA_VERSION


def check_timestamps(*timestamps: datetime | None) -> None:
    """Raises ValueError for a timestamp outside of 1970 to 9998 (UTC); decoding then fails.

    Outside of that range some reader of the message (Python, DuckDB, NumPy) cannot represent the
    time.
    """
    for timestamp in timestamps:
        if timestamp is not None and not EARLIEST <= timestamp < LATEST:
            raise ValueError(f"expected a moment from 1970 to 9998, UTC: {timestamp}")


# ---- the ping and its answer ----


class Span(Struct, frozen=True, gc=False):
    """The half-open interval `[since, until)` of wall time."""

    since: datetime
    until: datetime


class ExcusedSpan(Struct, kw_only=True, frozen=True, gc=False):
    """An interval that a ping excuses, in seconds before the ping was first sent.

    Ages do not depend on two clocks that agree. An older scheduler sends wall times instead, which
    are used where there are no ages.
    """

    since_seconds_ago: float | None = None
    until_seconds_ago: float | None = None
    since: datetime | None = None
    until: datetime | None = None


class ExpectedChange(Struct, kw_only=True, frozen=True, gc=False):
    """From so many seconds before the ping on, a GPU is expected, or is no longer."""

    uuid: str
    expected: bool
    seconds_ago: float


class Enrolment(Struct, frozen=True, gc=False):
    """The interval `[since, until)` in which an agent was registered; no `until` while it is.

    How a host gets its credentials, which is called enrolment too, is in `bus.contract.enrolment`.
    """

    since: Timestamp
    until: Timestamp | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class PingRequest(Message, kw_only=True, frozen=True):
    """The scheduler's ping. Every field is optional; an empty request is a look.

    The report begins at `since_mark`, the ledger position at which the last answered report ended.
    Where the ledger does not know that mark, it covers the last `window_seconds`. Time in `excused`
    does not count. `expected_gpus` are the UUIDs that the host is judged by; None where the
    scheduler does not know them. `expected_changes` has the changes to them within the window.
    The answer is of no use later than `timeout_seconds`. `previous` is the hash of the agent's last
    recorded report, which a signed report names; None for the first one under a key. `ledger_heads`
    are where the host's ledger was in the last reports, newest first: `bus.identity.ledger_heads`.
    """

    ping_id: str | None = None
    seq: int | None = None
    since_mark: str | None = None
    # unlimited: the ledger answers for as much of it as it has kept
    window_seconds: Annotated[float, Meta(ge=0.0)] | None = None
    excused: tuple[ExcusedSpan, ...] = ()
    nonce: str | None = None
    timeout_seconds: Annotated[float, Meta(gt=0.0)] | None = None
    expected_gpus: tuple[str, ...] | None = None
    expected_changes: tuple[ExpectedChange, ...] = ()
    previous: str | None = None
    ledger_heads: tuple[str, ...] = ()


class SummedSeconds(Struct, kw_only=True, frozen=True, gc=False):
    """Seconds by state, of one window or of many."""

    up: Annotated[float, Meta(ge=0.0)] = 0.0
    degraded: Annotated[float, Meta(ge=0.0)] = 0.0
    down: Annotated[float, Meta(ge=0.0)] = 0.0
    unknown: Annotated[float, Meta(ge=0.0)] = 0.0
    excused: Annotated[float, Meta(ge=0.0)] = 0.0


class Seconds(SummedSeconds, kw_only=True, frozen=True, gc=False):
    """The seconds of a window by state. The five add up to the window to the millisecond."""

    up: DurationSeconds = 0.0
    degraded: DurationSeconds = 0.0
    down: DurationSeconds = 0.0
    unknown: DurationSeconds = 0.0
    excused: DurationSeconds = 0.0


class Window(Struct, kw_only=True, frozen=True, gc=False):
    """The time that a report covers. `mark` is the ledger position of its end, an opaque text."""

    since: Timestamp
    until: Timestamp
    seconds: DurationSeconds
    mark: str | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class GpuReport(Struct, kw_only=True, frozen=True, gc=False):
    """One GPU in a report: its present state, and its seconds and uptime over the window."""

    uuid: str
    index: Index | None = None
    name: str = ""
    state: GpuState = "unknown"
    reasons: tuple[str, ...] = ()
    uptime_percent: Percent | None = None
    seconds: Seconds = Seconds()


class Incident(Struct, kw_only=True, frozen=True, gc=False):
    """An interval in which a GPU was not up and healthy, or an event. No `gpu`: the whole host."""

    gpu: str | None = None
    state: str
    reason: str
    since: Timestamp
    until: Timestamp | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class UnopenedGpu(Struct, kw_only=True, frozen=True, gc=False):
    """A GPU that the driver counts and cannot open, so that its UUID is not known.

    `pci` is its address as sysfs spells it, where that is certain; `reason` is as of a GPU.
    """

    index: Index
    reason: str
    pci: str | None = None


class UptimeReport(Message, kw_only=True, frozen=True):
    """An agent's answer to a ping. State and history keep its exact bytes.

    `failure` says why no GPU can be looked at now, such as `driver-mismatch`, `library-absent` or
    `permission`. Without it, an empty `gpus` means that the host has none. `unopened` are GPUs that
    the driver cannot open; one whose UUID is known is in `gpus`, as down.
    """

    agent_id: AgentId
    window: Window
    uptime_percent: Percent | None
    gpu_available: bool
    seconds: Seconds = Seconds()
    boot_id: str = ""
    session_id: str = ""
    reported_at: Timestamp | None = None
    gpus: tuple[GpuReport, ...] = ()
    incidents: tuple[Incident, ...] = ()
    checks: int = 0
    agent_version: str = ""
    ping_id: str | None = None
    nonce: str | None = None
    simulated: bool = False
    failure: str | None = None
    unopened: tuple[UnopenedGpu, ...] = ()

    def __post_init__(self) -> None:
        check_timestamps(self.reported_at)


# ---- the bucket ----


class MaintenanceWindow(Struct, kw_only=True, frozen=True, gc=False):
    """Booked time `[since, until)`, in which the host is pinged and not judged.

    `booking_id` is shared by the agents that were booked together. `author` booked it at
    `booked_at`.
    """

    since: Timestamp
    until: Timestamp
    booking_id: str = ""
    reason: str = ""
    author: str = ""
    booked_at: Timestamp | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until, self.booked_at)


class GpuChange(Struct, kw_only=True, frozen=True, gc=False):
    """One change of the GPUs that are expected of a host.

    From `since` on the GPU `uuid` is expected, or is no longer. `author` made the change at the
    time `at`; it is the name of a token or identity, or `first report`.
    """

    uuid: str
    expected: bool
    since: Timestamp
    author: str
    at: Timestamp

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.at)


class AnsweredPing(Struct, kw_only=True, frozen=True, gc=False):
    """What the next window needs to know of the last answered ping, or of the enrolment.

    `boot_id` and `boottime` (CLOCK_BOOTTIME, seconds) are the scheduler's when the ping was first
    sent, `bus_time` is the server's clock at that moment, and the answer took `answer_ms`.
    """

    boot_id: str
    boottime: float
    bus_time: Timestamp | None = None
    answer_ms: float = 0.0

    def __post_init__(self) -> None:
        check_timestamps(self.bus_time)


class AgentEntry(Message, kw_only=True, frozen=True):
    """`agent.<id>`: the registry entry. A removed agent keeps it, so that it stays known.

    `enrolled_at` is the start of the latest enrolment, which a registration after a removal moves;
    `removed_at` is its end. `earlier` has the enrolments before it, oldest first; statements count
    all of them. `mark` is the host's ledger position at the latest enrolment, where it told one.

    `expected_gpus` are the UUIDs of the first report; only an operator changes them. `gpu_changes`
    has every such change, oldest first. A GPU without one is expected for all time.

    `metadata` is what the host said when it registered, `labels` what an operator says of it.

    `by_http`: a gateway asks the host at its `agent_url` and answers its pings for it, unsigned.
    That is never so of a host that has a signing key, or of one whose agentd registered itself in
    this enrolment: then there is a `mark`, or `on_bus` where the operator had enrolled it before.
    """

    agent_id: AgentId
    registered_at: Timestamp
    enrolled_at: Timestamp
    agent_url: str | None = None
    capabilities: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    expected_gpus: tuple[str, ...] = ()
    maintenance: tuple[MaintenanceWindow, ...] = ()
    removed_at: Timestamp | None = None
    earlier: tuple[Enrolment, ...] = ()
    mark: str | None = None
    enrolled_clocks: AnsweredPing | None = None
    gpu_changes: tuple[GpuChange, ...] = ()
    expects_simulated: bool = False  # the first report was of simulated GPUs
    signing_key: str | None = None  # public; reports must be signed with it
    labels: dict[str, str] = {}
    by_http: bool = False
    on_bus: bool = False

    def __post_init__(self) -> None:
        check_timestamps(self.registered_at, self.enrolled_at, self.removed_at)

    @property
    def answers_on_bus(self) -> bool:
        """Whether the host has a key, or an agentd of its own has registered itself."""
        return self.on_bus or self.mark is not None or self.signing_key is not None

    @property
    def described(self) -> dict[str, Any]:
        """What is known of the host: its metadata, with the operator's labels over it."""
        return self.metadata | self.labels


NO_REPORT = Raw(b"null")


class GpuTime(Struct, frozen=True, gc=False):
    """The time of one expected GPU within a window, as it was admitted."""

    uuid: str
    seconds: Seconds


class Outcome(Struct, kw_only=True, frozen=True, gc=False, omit_defaults=True):
    """The outcome of one ping, as the state keeps it. What is as usual is not written.

    `since` and `pinged_at` are the window that the scheduler measured; `seconds`, `uptime_percent`
    and `gpus` are the time in it as it was admitted. The window of a ping that was not answered
    stays open: the next one has the same `since`. `gpus` is empty where the report has exactly the
    expected GPUs and all have the host's own seconds. `remarks` says what admission changed.
    `excused` says when the excused time of an answer was: maintenance within the window.
    `enrolled_at` is the start of the enrolment, which `since` is until the first answer: with it,
    history tells time whose outcome was lost from time in which nobody was enrolled.
    `report` is the answer's exact bytes; `refused_report` is an answer that was refused, as text.
    Outcomes of versions before have no `since`: their window is where the report says.
    """

    ping_id: str
    ping_seq: int
    pinged_at: Timestamp
    outcome: OutcomeWord
    verdict: Verdict
    reason: str | None = None
    uptime_percent: Percent | None = None
    seconds: Seconds | None = None
    window_seconds: DurationSeconds | None = None
    response_ms: float | None = None
    late_ms: float | None = None
    since: Timestamp | None = None
    gpus: tuple[GpuTime, ...] = ()
    remarks: tuple[str, ...] = ()
    refused_report: str | None = None
    excused: tuple[Span, ...] = ()
    enrolled_at: Timestamp | None = None
    report: Raw = NO_REPORT  # not None, because msgspec has no union with Raw; see `report_of`

    def __post_init__(self) -> None:
        check_timestamps(self.pinged_at, self.since, self.enrolled_at)


class Silence(Struct, kw_only=True, frozen=True, gc=False):
    """The billed misses since the last answered ping.

    `first` and `last` are the pings of the misses in a row that goes on, `misses` is their number.
    `before_last` is the miss before `last` in that row; None where there is none.
    `earlier_seconds` is the time between the first and the last miss of the rows before it, which
    an excused ping or a late answer ended. `nonce` is that of the ping `last`, to whose answer it
    is compared should one still come; None where an answer was refused in time.
    """

    first: Timestamp
    last: Timestamp
    misses: int
    earlier_seconds: float = 0.0
    before_last: Timestamp | None = None
    nonce: str | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.first, self.last, self.before_last)


class KnownGpu(Struct, frozen=True, gc=False):
    """What a report called a GPU."""

    uuid: str
    index: int | None = None
    name: str = ""


class Standing(Message, kw_only=True, frozen=True):
    """The policy's state of an agent. Only `scheduler/policy.py` decides on these fields."""

    answered: int = _always(0)
    consecutive_poor: int = _always(0)
    good_streak: int = _always(0)
    recovering: bool = _always(False)
    no_gpu: bool = False  # the last answer reported no GPU
    last_judged: Verdict | None = _always(None)  # the last verdict good or poor
    last_outcome: OutcomeWord | None = _always(None)
    # of the last judged ping; a miss observed nothing
    uptime_percent: Percent | None = _always(None)
    unjudged: int = 0  # answered pings in a row with nothing to judge


class AgentState(Standing, kw_only=True, frozen=True, omit_defaults=True):
    """`state.<id>`: the policy's state and the last outcome. Its revisions are the history.

    Where one server keeps a million of them, and each ping writes one, what is as usual costs more
    than it says: it is not written. What a reader of the bucket looks for always is.
    """

    schema_version: int = _always(SCHEMA_VERSION)
    agent_id: AgentId
    ping_seq: int
    interval_seconds: float
    next_ping_at: Timestamp
    last: Outcome
    missed: int = _always(0)
    since_mark: str | None = None
    last_answered_at: Timestamp | None = None
    boot_ids: tuple[str, ...] = ()  # of the reports, newest first
    conflicting_boot_ids: tuple[str, ...] = ()  # two hosts answer under this id
    session_ids: tuple[str, ...] = ()  # of the reports, newest first
    conflicting_sessions: tuple[str, ...] = ()  # two agents answer under this id
    # of the reports, newest first; hex digits of each GPU that was present, joined by dots
    gpu_sets: tuple[str, ...] = ()
    conflicting_gpus: tuple[str, ...] = ()  # UUIDs of two agents' GPUs
    conflicting_connections: tuple[str, ...] = ()  # addresses of two hosts with one identity
    answered_ping: AnsweredPing | None = None
    silence: Silence | None = None
    # The GPUs of the last report, while outcomes without one follow it.
    gpus_before: tuple[KnownGpu, ...] = ()
    mark_refused: bool = False  # a report since `since_mark` was refused: ask without the mark
    report_hash: str | None = None  # of the last recorded report that was signed
    report_key: str | None = None  # the key that signed it
    ledger_heads: tuple[str, ...] = ()  # of the ledger in the last reports under it, newest first

    def __post_init__(self) -> None:
        check_timestamps(self.next_ping_at, self.last_answered_at)


class LateAnswer(Message, kw_only=True, frozen=True):
    """`late.<id>`: the ping `ping_id`, which was missed, was answered after its time-out."""

    ping_id: str
    heard_at: Timestamp

    def __post_init__(self) -> None:
        check_timestamps(self.heard_at)


class Timer(Message, kw_only=True, frozen=True):
    """`timer.<id>`, and the message that it fires: the next ping's sequence number and time."""

    seq: int
    due_at: Timestamp

    def __post_init__(self) -> None:
        check_timestamps(self.due_at)


# ---- encoding ----

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(message: Struct) -> bytes:
    """The message as compact JSON."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """The message. Raises BadMessageError, which names the field and what was expected there."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError(f"{kind.__name__}: {error}") from error


def report_of(outcome: Outcome) -> UptimeReport | None:
    """The decoded report of an outcome; None where the agent did not answer."""
    data = bytes(outcome.report)
    if data in {b"null", b""}:
        return None
    return decode(data, UptimeReport)
