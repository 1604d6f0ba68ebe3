"""What the owner of a host sees of it: its month, its pings, and what it is held to. Pure.

Nothing of other hosts is in it: a booking names the agents that share it, and those are left out.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from msgspec import Struct

from bus.contract.explanations import Cause, Explanation, IntervalStep
from bus.contract.maintenance import Booking
from bus.contract.messages import GpuState, OutcomeWord, Percent, Seconds, Verdict
from bus.contract.publishing import Conditions, HostDay
from bus.contract.questions import Agent, HistoryReply, Ping
from gateway.public import words
from gateway.public.status_page import ShownDay
from gateway.public.words import HostState

PINGS = 60
PING_HOURS = 24.0 * 31


class OwnGpu(Struct, kw_only=True, frozen=True):
    """A GPU as the last ping found it."""

    uuid: str
    name: str
    state: GpuState
    expected: bool


class OwnPing(Struct, kw_only=True, frozen=True):
    """A ping and its window, `[pinged_at - window_seconds, pinged_at)`."""

    ping_seq: int
    pinged_at: datetime
    outcome: OutcomeWord
    verdict: Verdict
    reason: str | None
    uptime_percent: Percent | None
    window_seconds: float | None
    seconds: Seconds | None
    response_ms: float | None
    interval_minutes: float


class OwnBooking(Struct, kw_only=True, frozen=True):
    """Maintenance that was booked for the host."""

    since: datetime
    until: datetime
    reason: str


class OwnMonth(Struct, kw_only=True, frozen=True):
    """The figures of the month's statement, and what was lost to which cause."""

    month: str
    final: bool
    uptime_percent: Percent | None
    coverage_percent: Percent | None
    enrolled_seconds: float
    judged_seconds: float
    excused_seconds: float
    lost_seconds: float
    pings: int
    missed: int
    excused: int
    days: tuple[ShownDay, ...]
    causes: tuple[Cause, ...]
    steps: tuple[IntervalStep, ...]


class HostView(Struct, kw_only=True, frozen=True):
    """A whole view. `problem` says why the month is not there; `pings_known` whether pings are."""

    agent_id: str
    state: HostState
    status: str
    as_of: datetime
    expires_at: datetime | None
    registered_at: datetime
    removed_at: datetime | None
    last_answered_at: datetime | None
    next_ping_at: datetime | None
    interval_minutes: float
    consecutive_poor_uptime: int
    conditions: Conditions
    simulated: bool  # its GPUs do not exist
    expected_gpus: tuple[str, ...]
    gpus: tuple[OwnGpu, ...]
    month: str
    own_month: OwnMonth | None
    problem: str | None
    pings: tuple[OwnPing, ...]
    pings_known: bool
    maintenance: tuple[OwnBooking, ...]


def compute(  # noqa: PLR0913, PLR0917  # the answers that it is made of
    agent: Agent,
    conditions: Conditions,
    bookings: Iterable[Booking],
    explanation: Explanation | None,
    problem: str | None,
    history: HistoryReply | None,
    month: str,
    now: datetime,
    expires_at: datetime | None,
) -> HostView:
    """Returns the view of a month. `explanation` and `history` are None where they are missing."""
    removed_at = None
    if agent.enrolments:
        removed_at = agent.enrolments[-1].until
    own_month = None
    if explanation is not None:
        own_month = _month(explanation, now)
    return HostView(
        agent_id=agent.agent_id,
        state=words.host_state(agent),
        status=agent.status,
        as_of=now,
        expires_at=expires_at,
        registered_at=agent.registered_at,
        removed_at=removed_at,
        last_answered_at=agent.last_answered_at,
        next_ping_at=agent.next_ping_at,
        interval_minutes=agent.current_interval_minutes,
        consecutive_poor_uptime=agent.consecutive_poor_uptime,
        conditions=conditions,
        simulated=agent.simulated,
        expected_gpus=agent.expected_gpus,
        gpus=tuple(
            OwnGpu(uuid=gpu.uuid, name=gpu.name, state=gpu.state, expected=gpu.expected)
            for gpu in agent.gpus
        ),
        month=month,
        own_month=own_month,
        problem=problem,
        pings=tuple(_ping(ping) for ping in history.pings) if history is not None else (),
        pings_known=history is not None,
        maintenance=tuple(_bookings(bookings, month, now)),
    )


def month_beside(month: str, step: int) -> str:
    """The month before (-1) or after (1)."""
    first = date.fromisoformat(f"{month}-01")
    beside = first + timedelta(days=31)
    if step < 0:
        beside = first - timedelta(days=1)
    return f"{beside:%Y-%m}"


def _month(explanation: Explanation, now: datetime) -> OwnMonth:
    host = explanation.host
    days: list[ShownDay] = []
    for account in explanation.days:
        day = date.fromisoformat(account.day)
        if day > now.date():
            continue
        seconds = account.seconds
        lost = seconds.down + seconds.unknown + account.unreported_seconds
        own = HostDay(
            day=account.day,
            up_seconds=seconds.up + seconds.degraded,
            lost_seconds=lost,
            excused_seconds=seconds.excused,
        )
        days.append(
            ShownDay(
                day=day,
                uptime_percent=own.uptime_percent,
                lost_seconds=lost,
                excused_seconds=seconds.excused,
            )
        )
    return OwnMonth(
        month=explanation.month,
        final=explanation.final,
        uptime_percent=host.uptime_percent,
        coverage_percent=host.coverage_percent,
        enrolled_seconds=explanation.enrolled_seconds,
        judged_seconds=explanation.judged_seconds,
        excused_seconds=host.seconds.excused,
        lost_seconds=host.seconds.down + host.seconds.unknown + host.unreported_seconds,
        pings=explanation.pings,
        missed=explanation.missed,
        excused=explanation.excused,
        days=tuple(days),
        causes=explanation.causes,
        steps=explanation.steps,
    )


def _ping(ping: Ping) -> OwnPing:
    return OwnPing(
        ping_seq=ping.ping_seq,
        pinged_at=ping.pinged_at,
        outcome=ping.outcome,
        verdict=ping.verdict,
        reason=ping.reason,
        uptime_percent=ping.uptime_percent,
        window_seconds=ping.window_seconds,
        seconds=ping.seconds,
        response_ms=ping.response_ms,
        interval_minutes=ping.interval_minutes,
    )


def _bookings(bookings: Iterable[Booking], month: str, now: datetime) -> list[OwnBooking]:
    """The bookings of the month, and those that are to come."""
    shown: list[OwnBooking] = []
    for one in bookings:
        months = {f"{one.since:%Y-%m}", f"{one.until:%Y-%m}"}
        if one.until > now or month in months:
            shown.append(OwnBooking(since=one.since, until=one.until, reason=one.reason))
    shown.sort(key=lambda one: one.since, reverse=True)
    return shown
