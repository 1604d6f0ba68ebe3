"""The rows that history keeps of an outcome, and what they are made from. Pure: no clock, no database."""

from datetime import UTC, datetime, timedelta

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from bus.contract.messages import GpuReport, Incident

NO_GPUS = -1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Arrival(Struct, frozen=True, gc=False):
    """One message as it came: where in the stream, on which subject, and its bytes.

    A tombstone (its key was deleted by hand) is empty and no outcome, yet it has its place in the stream.
    """

    sequence: int
    agent_id: str
    data: bytes
    signature: str | None = None
    tombstone: bool = False


class HealthyRows(Struct, frozen=True):
    """Rows of `pings` as nearly all are: what differs from one healthy ping to the next, a column each.

    All of one length. `insert_healthy.sql` knows the names, and the columns that are the same in all of them.
    """

    agent: NDArray[np.int64]
    ping_seq: NDArray[np.int64]
    pinged_us: NDArray[np.int64]
    next_us: NDArray[np.int64]
    interval_seconds: NDArray[np.int64]
    up_ms: NDArray[np.int64]
    until_ms: NDArray[np.int64]
    since_ms: NDArray[np.int64]
    response_us: NDArray[np.float64]  # whole numbers, or NaN: not known
    late_us: NDArray[np.float64]
    gpu_set: NDArray[np.int64]  # or NO_GPUS

    def __len__(self) -> int:
        return len(self.agent)

    @classmethod
    def joined(cls, parts: "list[HealthyRows]") -> "HealthyRows":
        """One after the other; there must be one at least."""
        return cls(*map(np.concatenate, zip(*map(structs.astuple, parts), strict=True)))

    def take(self, places: NDArray[np.int64]) -> "HealthyRows":
        """Those rows, in that order."""
        return HealthyRows(*(column[places] for column in structs.astuple(self)))


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


class Poisoned(Struct, frozen=True):
    """A message that is no outcome, and why."""

    arrival: Arrival
    detail: str


def microseconds(moment: datetime) -> int:
    """Since 1970, exact."""
    return (
        moment - EPOCH
    ) // MICROSECOND  # not timestamp(): a double loses microseconds in a hundred years


def from_microseconds(since_1970_us: int) -> datetime:
    """The inverse of `microseconds`."""
    return datetime.fromtimestamp(since_1970_us // 1_000_000, UTC).replace(
        microsecond=since_1970_us % 1_000_000
    )


def milliseconds(seconds: float) -> int:
    """The ledger's grain."""
    return round(seconds * 1000)
