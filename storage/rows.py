"""The rows that history keeps of an outcome, and what they are made from. Pure: no clock, no database."""

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from bus.messages import GpuReport, Incident

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MILLISECOND = timedelta(milliseconds=1)


class Arrival(Struct, frozen=True, gc=False):
    """One message as it came: where in the stream, on which subject, and its bytes."""

    sequence: int
    agent_id: str
    data: bytes
    signature: str | None = None


class HealthyRow(Struct, array_like=True, gc=False):
    """A row of `pings` as nearly all are: what differs from one healthy ping to the next.

    All whole numbers, and written as a list: `insert_healthy.sql` knows the places, and the other columns. (gc=False:
    ten thousand rows at once hold no cycles.)
    """

    agent: int
    ping_seq: int
    pinged_us: int
    next_us: int
    interval_seconds: int
    up_ms: int
    until_ms: int
    since_ms: int
    response_us: int | None
    late_us: int | None
    gpu_set: int | None


class PingRow(Struct, gc=False):
    """A row of `pings`, whole: every column by name."""

    agent: int
    ping_seq: int
    pinged_us: int
    next_us: int
    interval_seconds: float
    outcome: str
    verdict: str
    reason: str | None = None
    uptime_percent: float | None = None
    up_ms: int | None = None
    degraded_ms: int | None = 0
    down_ms: int | None = 0
    unknown_ms: int | None = 0
    excused_ms: int | None = 0
    window_ms: int | None = None
    until_ms: int | None = None
    since_ms: int | None = None
    consecutive_poor: int = 0
    response_us: int | None = None
    late_us: int | None = None
    gpu_set: int | None = None


class FullRow(PingRow, gc=False):
    """A whole row, and what is kept beside it where there is more to say."""

    gpus: tuple[GpuReport, ...] = ()  # empty where the host's row says it all
    incidents: tuple[Incident, ...] = ()
    evidence: tuple[str, str] | None = None  # signature, payload


Row = HealthyRow | FullRow


class Poisoned(Struct, frozen=True):
    """A message that is no outcome, and why."""

    arrival: Arrival
    detail: str


def microseconds(moment: datetime) -> int:
    """Since 1970, exact."""
    return (moment - EPOCH) // MICROSECOND  # not timestamp(): a double loses microseconds in a hundred years


def moment(since_1970_us: int) -> datetime:
    """The inverse of `microseconds`."""
    return datetime.fromtimestamp(since_1970_us // 1_000_000, UTC).replace(microsecond=since_1970_us % 1_000_000)


def milliseconds(seconds: float) -> int:
    """The ledger's grain."""
    return round(seconds * 1000)
