"""The ping, its answer and every value in the bucket, as typed Structs encoded as JSON.

Readable with the `nats` CLI; unknown fields are ignored on the wire, so old and new services mix.
Times are aware UTC datetimes (RFC 3339 in JSON), durations are seconds, percents are 0..100 or None
where nothing was observed. What services ask each other stands in `bus/contract/questions.py`.
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
Duration = Annotated[
    float, Meta(ge=0.0, le=2.0**32)
]  # 136 years: as milliseconds, millions of them have a sum
Timestamp = Annotated[
    datetime, Meta(tz=True)
]  # from EARLIEST on, before LATEST: `check_timestamps`
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(
    9999, 1, 1, tzinfo=UTC
)  # with an offset, the last hours before year 10000 are after it
Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
GpuState = Literal["up", "degraded", "down", "unknown"]
Result = Literal["answered", "missed", "excused"]
Verdict = Literal["first", "good", "poor", "excused"]
Status = Literal["maintenance", "pending", "missing", "poor", "recovering", "healthy"]


class Message(Struct, kw_only=True, frozen=True):
    """What every message carries."""

    schema_version: int = SCHEMA_VERSION


def check_timestamps(*moments: datetime | None) -> None:
    """Raises ValueError, by which a message is none, for a moment that not everybody can write down in UTC."""
    for moment in moments:
        if moment is not None and not EARLIEST <= moment < LATEST:
            raise ValueError(f"expected a moment from 1970 to 9998, UTC: {moment}")


# ---- the ping and its answer -------------------------------------------------------------------------------


class Span(Struct, frozen=True, gc=False):
    """A half-open stretch of wall time `[since, until)`."""

    since: datetime
    until: datetime


class Enrolment(Struct, frozen=True):
    """`[since, until)` in which an agent was registered; without `until` it still is."""

    since: Timestamp
    until: Timestamp | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class PingRequest(Message, kw_only=True, frozen=True):
    """What the scheduler asks. Every field is optional: an empty request is a look, answered from the ledger.

    `since_mark` is the ledger position of the last answered report; `window_seconds` stands in for it when
    the ledger does not know that mark. `excused` is time that shall not count.
    """

    ping_id: str | None = None
    seq: int | None = None
    since_mark: str | None = None
    window_seconds: Annotated[float, Meta(ge=0.0)] | None = (
        None  # however long: the ledger goes back as far as it can
    )
    excused: tuple[Span, ...] = ()
    nonce: str | None = None


class Seconds(Struct, kw_only=True, frozen=True, gc=False):
    """A window, accounted: the five add up to the window to the millisecond."""

    up: Duration = 0.0
    degraded: Duration = 0.0
    down: Duration = 0.0
    unknown: Duration = 0.0
    excused: Duration = 0.0


class Window(Struct, kw_only=True, frozen=True, gc=False):
    """The time a report covers. `mark` is the opaque ledger position of its end."""

    since: Timestamp
    until: Timestamp
    seconds: Duration
    mark: str | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class GpuReport(Struct, kw_only=True, frozen=True, gc=False):
    """One GPU in a report: its state now, and its share of the window."""

    uuid: str
    index: Index | None = None
    name: str = ""
    state: GpuState = "unknown"
    reasons: tuple[str, ...] = ()
    uptime_percent: Percent | None = None
    seconds: Seconds = Seconds()


class Incident(Struct, kw_only=True, frozen=True, gc=False):
    """A stretch in which a GPU (None: the host) was not plainly up, or an event worth keeping."""

    gpu: str | None = None
    state: str
    reason: str
    since: Timestamp
    until: Timestamp | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class UptimeReport(Message, kw_only=True, frozen=True):
    """An agent's answer to a ping. The scheduler keeps its exact bytes in the state and so in history."""

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

    def __post_init__(self) -> None:
        check_timestamps(self.reported_at)


# ---- the bucket --------------------------------------------------------------------------------------------


class AgentEntry(Message, kw_only=True, frozen=True):
    """`agent.<id>`: the registry entry. A removed agent keeps its entry, so that it can be told from an unknown one.

    `enrolled_at` is the start of the present enrolment (a re-registration after a removal moves it), or of the last
    one where `removed_at` ended it; `earlier` are those before, the oldest first: statements count all of them.
    `expected_gpus` are the UUIDs of the first report; only an operator changes them.
    """

    agent_id: AgentId
    registered_at: Timestamp
    enrolled_at: Timestamp
    agent_url: str | None = None
    capabilities: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    expected_gpus: tuple[str, ...] = ()
    maintenance: tuple[Span, ...] = ()
    removed_at: Timestamp | None = None
    earlier: tuple[Enrolment, ...] = ()

    def __post_init__(self) -> None:
        check_timestamps(self.registered_at, self.enrolled_at, self.removed_at)


NO_REPORT = Raw(b"null")


class Outcome(Struct, kw_only=True, frozen=True):
    """What came of one ping, as the state keeps it. `report` is the agent's answer, byte for byte."""

    ping_id: str
    ping_seq: int
    pinged_at: Timestamp
    outcome: Result
    verdict: Verdict
    reason: str | None = None
    uptime_percent: Percent | None = None
    seconds: Seconds | None = None
    window_seconds: Duration | None = None
    response_ms: float | None = None
    late_ms: float | None = None
    report: Raw = NO_REPORT  # never None: msgspec has no union with Raw; `report_of` tells

    def __post_init__(self) -> None:
        check_timestamps(self.pinged_at)


class Standing(Message, kw_only=True, frozen=True):
    """What the policy knows of an agent; `scheduler/policy.py` is the only writer of these fields."""

    answered: int = 0
    consecutive_poor: int = 0
    good_streak: int = 0
    recovering: bool = False
    no_gpu: bool = False  # the last answer said that there is none
    last_judged: Verdict | None = None  # the last verdict good or poor
    last_outcome: Result | None = None
    uptime_percent: Percent | None = None  # of the last judged ping; a miss observed nothing


class AgentState(Standing, kw_only=True, frozen=True):
    """`state.<id>`: the standing and the last outcome. Its revisions, in order, are the agent's history."""

    agent_id: AgentId
    ping_seq: int
    interval_seconds: float
    next_ping_at: Timestamp
    last: Outcome
    missed: int = 0
    since_mark: str | None = None
    last_answered_at: Timestamp | None = None
    boot_ids: tuple[str, ...] = ()  # of the reports, newest first
    conflicting_boot_ids: tuple[str, ...] = ()  # of two hosts that answer under this one id

    def __post_init__(self) -> None:
        check_timestamps(self.next_ping_at, self.last_answered_at)


class Timer(Message, kw_only=True, frozen=True):
    """`timer.<id>` and what it fires: the sequence number that the next ping will have."""

    seq: int
    due_at: Timestamp

    def __post_init__(self) -> None:
        check_timestamps(self.due_at)


# ---- encoding ----------------------------------------------------------------------------------------------

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(message: Struct) -> bytes:
    """Compact JSON."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """The message, or BadMessageError that names the field and what was expected there."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError(f"{kind.__name__}: {error}") from error


def report_of(outcome: Outcome) -> UptimeReport | None:
    """The report inside an outcome, decoded; None where there is none."""
    data = bytes(outcome.report)
    return None if data in {b"null", b""} else decode(data, UptimeReport)
