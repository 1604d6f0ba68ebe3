"""The rows that history has of an outcome, and the messages that they are made from.

Pure: no clock, no database. The columns are declared in `schema.sql`; a test compares them with the
rows here.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from bus.contract.durations import UNBOUNDED
from bus.contract.messages import GpuReport, Incident

NO_GPUS = -1
NOT_TOLD = -1
MEASURED = -UNBOUNDED  # in `until_ms`: the scheduler measured the window, which ends at the ping
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


EXCUSED = "excused"  # the state of an incident that is maintenance


class Arrival(Struct, frozen=True, gc=False):
    """One message as it came. Sequence number and agent are those of the stream and the subject.

    A tombstone is written when a key is deleted by hand. It is empty and no outcome, but has a
    sequence number.
    """

    sequence: int
    agent_id: str
    data: bytes
    signature: str | None = None
    tombstone: bool = False


class HealthyRows(Struct, frozen=True):
    """Rows of `pings` from healthy pings, which nearly all are.

    Each field is a column; all have one length.

    Only the columns that differ between healthy pings are here. `insert_healthy.sql` has the values
    of the others.
    """

    agent: NDArray[np.int64]
    ping_seq: NDArray[np.int64]
    pinged_us: NDArray[np.int64]
    next_us: NDArray[np.int64]
    interval_seconds: NDArray[np.int64]
    up_ms: NDArray[np.int64]
    until_ms: NDArray[np.int64]  # MEASURED where it is not a label
    since_ms: NDArray[np.int64]
    response_us: NDArray[np.float64]  # whole numbers, NaN where it is not known
    late_us: NDArray[np.float64]
    gpu_set: NDArray[np.int64]  # NO_GPUS where none was reported
    enrolled_us: NDArray[np.int64]  # NOT_TOLD where the outcome does not say it

    def __len__(self) -> int:
        return len(self.agent)

    @classmethod
    def joined(cls, parts: "list[HealthyRows]") -> "HealthyRows":
        """Returns the rows of all parts, one part after the other.

        Raises TypeError for an empty list.
        """
        columns = zip(*map(structs.astuple, parts), strict=True)
        return cls(*map(np.concatenate, columns))

    def take(self, indices: NDArray[np.int64]) -> "HealthyRows":
        """Returns the rows at these indices, in that order."""
        columns = [column[indices] for column in structs.astuple(self)]
        return HealthyRows(*columns)


class PingRow(Struct, gc=False):
    """A row of `pings` with every column."""

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
    remarks: str | None = None  # a list in JSON
    enrolled_us: int | None = None


class Evidence(Struct, frozen=True, gc=False):
    """A report that was signed or refused: its text, and its signature or ""."""

    signature: str
    payload: str


class FullRow(PingRow, gc=False):
    """A row of `pings`, and what goes into the other tables with it.

    `gpus` is empty where every GPU has the host's own times, for then `gpu_set` says all. A
    report that was signed or refused is evidence.
    """

    gpus: tuple[GpuReport, ...] = ()
    incidents: tuple[Incident, ...] = ()
    evidence: Evidence | None = None


class Poisoned(Struct, frozen=True):
    """A message that is not an outcome, and the reason."""

    arrival: Arrival
    detail: str


def microseconds(time: datetime) -> int:
    """Returns a time as microseconds since 1970, exactly.

    `datetime.timestamp` would lose microseconds: a double has too few digits for them.
    """
    return (time - EPOCH) // MICROSECOND


def in_milliseconds(value_us: float | None) -> float | None:
    """Returns a duration of microseconds in milliseconds; None where there is none."""
    if value_us is None:
        return None
    return value_us / 1000


def from_microseconds(since_1970_us: int) -> datetime:
    """Returns the UTC time that `microseconds` was given.

    Raises ValueError outside of years 1 to 9999.
    """
    seconds, remainder_us = divmod(since_1970_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=remainder_us)


def milliseconds(seconds: float) -> int:
    """Returns seconds as whole milliseconds, the resolution of the agents' ledger."""
    return round(seconds * 1000)
