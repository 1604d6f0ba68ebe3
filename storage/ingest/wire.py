"""What history keeps of a scheduler's state: a message is decoded once, into no more than this.

Narrower than the messages' own types where a value could not be a row: no number and no latency too long for its
column. (gc=False: ten thousand at once hold no cycles, and looking for some costs 1.6 us a message.)
"""

from typing import Annotated

from msgspec import Meta, Struct

from bus.contract.messages import (
    Duration,
    GpuReport,
    Incident,
    Percent,
    Result,
    Seconds,
    Timestamp,
    Verdict,
    check_timestamps,
)

LONGEST = 2.0**52  # of latencies and intervals: a thousand times as much is still a BIGINT

Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Milliseconds = Annotated[float, Meta(ge=-LONGEST, le=LONGEST)]


class Period(Struct, frozen=True, gc=False):
    """The window of a report."""

    since: Timestamp
    until: Timestamp

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class Report(Struct, frozen=True, gc=False):
    """The part of an UptimeReport that history keeps in columns."""

    window: Period
    gpus: tuple[GpuReport, ...] = ()
    incidents: tuple[Incident, ...] = ()


class Outcome(Struct, frozen=True, gc=False):
    """bus.messages.Outcome, its report decoded at once."""

    ping_seq: Number
    pinged_at: Timestamp
    outcome: Result
    verdict: Verdict
    reason: str | None = None
    uptime_percent: Percent | None = None
    seconds: Seconds | None = None
    window_seconds: Duration | None = None
    response_ms: Milliseconds | None = None
    late_ms: Milliseconds | None = None
    report: Report | None = None

    def __post_init__(self) -> None:
        check_timestamps(self.pinged_at)


class State(Struct, frozen=True, gc=False):
    """The part of an AgentState that history keeps; its id is checked against the subject, which is checked."""

    agent_id: str
    interval_seconds: float
    next_ping_at: Timestamp
    last: Outcome
    consecutive_poor: int = 0

    def __post_init__(self) -> None:
        check_timestamps(self.next_ping_at)
