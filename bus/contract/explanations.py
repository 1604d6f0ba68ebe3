"""Why a month's uptime is what it is: what it lost, to which cause, and when.

The figures are those of the statement. The lost milliseconds of all causes add up to the time that
was judged and was not up, so that 100 % less their points is the statement's uptime.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from bus.contract.messages import (
    Enrolment,
    Message,
    OutcomeWord,
    Percent,
    Span,
    SummedSeconds,
    Timestamp,
    Verdict,
    check_timestamps,
)
from bus.contract.statements import Account, GpuAccount, Month, TotalSeconds

MAX_POINTS = 2000
DEFAULT_POINTS = 400
MOST_LOSSES = 500  # a month has as many incidents as it likes; the costliest are listed
MOST_STEPS = 1000

LostState = Literal["down", "unknown", "unreported"]


class ExplanationRequest(Message, kw_only=True, frozen=True):
    """Asks why an agent's month is what it is. Enrolments are as in StatementRequest."""

    month: Month
    enrolments: Annotated[tuple[Enrolment, ...], Meta(max_length=1_001)] = ()


class Loss(Struct, kw_only=True, frozen=True):
    """An interval in which the host was not up, and what that cost.

    `gpu` is the GPU that was charged, None where it was the whole host. Of several GPUs that were
    down at once the one that went down first is charged, so that no second is charged twice.
    `reason` is None where the report gave none. `seconds` is what counts of it, `points` what that
    is of the month's judged time, in percent.
    """

    gpu: str | None
    index: int | None
    state: LostState
    reason: str | None
    since: datetime
    until: datetime
    seconds: TotalSeconds
    points: float


class Cause(Struct, kw_only=True, frozen=True):
    """All losses of one GPU, state and reason."""

    gpu: str | None
    index: int | None
    state: LostState
    reason: str | None
    losses: int
    since: datetime
    until: datetime
    seconds: TotalSeconds
    points: float


class DayAccount(Struct, kw_only=True, frozen=True):
    """A day of the month (UTC). The days' seconds add up to those of the month."""

    day: str
    seconds: SummedSeconds
    unreported_seconds: TotalSeconds
    uptime_percent: Percent | None
    pings: int
    missed: int
    excused: int


class IntervalStep(Struct, kw_only=True, frozen=True):
    """From `at` on the host was pinged at this interval, after so many poor pings in a row."""

    at: datetime
    interval_minutes: float
    consecutive_poor_uptime: int


class Explanation(Message, kw_only=True, frozen=True):
    """An agent's month. `losses` has the MOST_LOSSES costliest, by time; `causes` has them all.

    `judged_seconds` is the time that the uptime is a share of: `uptime = 100 - sum of points`.
    """

    agent_id: str
    month: str
    generated_at: datetime
    since: datetime
    until: datetime
    final: bool
    enrolled_seconds: TotalSeconds
    judged_seconds: TotalSeconds
    host: Account
    gpus: tuple[GpuAccount, ...]
    causes: tuple[Cause, ...]
    losses: tuple[Loss, ...]
    losses_total: int
    days: tuple[DayAccount, ...]
    steps: tuple[IntervalStep, ...]
    pings: int
    missed: int
    excused: int
    simulated: bool = False
    by_http: bool = False  # some of its reports were asked for by HTTP: they are not signed
    conflicts: tuple[Span, ...] = ()


class TimelineRequest(Message, kw_only=True, frozen=True):
    """Asks when each GPU was in which state within `[since, until)`.

    What is shorter than a `points`-th of the period is summed with its neighbours.
    """

    since: Timestamp
    until: Timestamp
    points: Annotated[int, Meta(ge=1, le=MAX_POINTS)] = DEFAULT_POINTS

    def __post_init__(self) -> None:
        check_timestamps(self.since, self.until)


class Stretch(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A part of a timeline, in seconds after the beginning of the period, and its time by state.

    It has one state throughout, or is a sum of shorter ones. `reasons` are those of the time that
    was not up. `history_lost` is part of `excused`.
    """

    begin_seconds: float
    end_seconds: float
    up: float = 0.0
    degraded: float = 0.0
    down: float = 0.0
    unknown: float = 0.0
    excused: float = 0.0
    unreported: float = 0.0
    reasons: tuple[str, ...] = ()


class TimelineRow(Struct, kw_only=True, frozen=True):
    """The timeline of one GPU; without `gpu` it is the host's.

    Where there is no stretch, nothing is known or nothing was enrolled.
    """

    gpu: str | None
    index: int | None
    name: str
    stretches: tuple[Stretch, ...]


class PingMark(Struct, kw_only=True, frozen=True):
    """A ping of the period."""

    at: datetime
    ping_seq: int
    outcome: OutcomeWord
    verdict: Verdict
    reason: str | None
    uptime_percent: Percent | None


class Timeline(Message, kw_only=True, frozen=True):
    """The host's row first, then one for each GPU, by index.

    `pings` has those of the period, where they are no more than the points that were asked for.
    """

    agent_id: str
    since: datetime
    until: datetime
    rows: tuple[TimelineRow, ...]
    pings_total: int
    pings: tuple[PingMark, ...] = ()
    agent_known: bool = True
