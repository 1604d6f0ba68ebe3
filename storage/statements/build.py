"""Builds the uptime statement of one agent's month. The arithmetic is in pure modules."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from bus.contract.durations import Durations, Interval
from bus.contract.messages import Span
from bus.contract.questions import SIMULATED
from bus.contract.remarks import TWO_UNDER_ONE_ID
from bus.contract.statements import (
    BookedMaintenance,
    LeftOut,
    Replay,
    Statement,
    StatementRequest,
)
from bus.errors import RefusedError
from storage.archive import day_folders
from storage.engine.rows import from_microseconds, microseconds
from storage.statements import payment
from storage.statements.account import (
    MonthTotals,
    accountable_ms,
    durations_within,
    gpu_accounts,
    month_interval,
    month_totals,
    to_account,
)
from storage.statements.enrolments import AgentHistory, Asked, ended_us, enrolled_intervals
from storage.statements.gaps import without_overtaken
from storage.statements.left_out import left_out
from storage.statements.outcomes import (
    AFTER_US,
    AWAITED_US,
    BEFORE_US,
    AgentOutcomes,
    OutcomeRow,
    first_ping_us,
    is_measured,
    read_outcomes,
)
from storage.statements.payment import PayableWindow
from storage.statements.policy_files import asked_terms
from storage.statements.windows import PingKey, ReportWindow
from storage.store.missing import missing, numbering_began_us
from storage.store.store import Reader

# A ping that was in flight when its agent was removed is recorded within this time.
IN_FLIGHT_US = 60_000_000


class MonthHistory(Struct, frozen=True):
    """The month that is asked for, and what history has of the agent around it.

    `retained`: the part of the month that retention keeps. `agent`: its number in history, None for
    an agent without outcomes. `measured`: the scheduler measured every window of `outcomes`.
    """

    calendar: Interval
    retained: Interval
    agent: int | None
    outcomes: AgentOutcomes
    first_us: int | None
    measured: bool = False


class _PingCounts(Struct, frozen=True):
    pings: int
    answered: int
    missed: int
    excused: int
    missing_seqs: int


def statement(
    reader: Reader,
    agent_id: str,
    request: StatementRequest,
    now: datetime,
    threshold: float,
) -> Statement:
    """Returns the statement. `threshold`: the uptime in percent from which a ping is good.

    Raises RefusedError: 404 for an unknown agent or a month that is no longer kept, 400 for a month
    in the future. Raises BadMessageError for a policy that cannot be read.
    """
    month = read_month(reader, agent_id, request, microseconds(now))
    return statement_of(reader, month, agent_id, request, now, threshold)


def statement_of(
    reader: Reader,
    month: MonthHistory,
    agent_id: str,
    request: StatementRequest,
    now: datetime,
    threshold: float,
) -> Statement:
    """Returns the statement of a month that was read."""
    now_us = microseconds(now)
    outcomes = month.outcomes
    windows = outcomes.aligned_windows()
    history = AgentHistory(list(_asked(outcomes)), windows, month.first_us, month.measured)
    enrolled = enrolled_intervals(request.enrolments, history, month.retained, now_us)
    totals = month_totals(windows, enrolled, outcomes.gaps(), request.gpu_changes)
    remarks = _count_remarks(month)
    host_ms = accountable_ms(totals.host, enrolled, measured=month.measured)
    counts = _count_pings(reader, month)
    since_us = until_us = month.retained.begin
    if enrolled:
        since_us = enrolled[0].begin
        until_us = enrolled[-1].end
    forgotten_until = None
    if month.retained.begin > month.calendar.begin:
        forgotten_until = from_microseconds(month.retained.begin)
    return Statement(
        agent_id=agent_id,
        month=request.month,
        generated_at=now,
        since=from_microseconds(since_us),
        until=from_microseconds(until_us),
        final=_is_final(reader, request, windows, month.calendar, now_us),
        enrolled_seconds=host_ms / 1000,
        host=to_account(totals.host, host_ms),
        gpus=gpu_accounts(totals, enrolled, outcomes.gpu_names),
        incidents=tuple(totals.incidents),
        splits=tuple(totals.splits),
        pings=counts.pings,
        answered=counts.answered,
        missed=counts.missed,
        excused=counts.excused,
        missing_seqs=counts.missing_seqs,
        enrolled=tuple(_span(interval) for interval in enrolled),
        forgotten_until=forgotten_until,
        replay=_replay(request, _payable_windows(month, enrolled, totals), host_ms, threshold),
        history_lost=tuple(_span(interval) for interval in totals.history_lost),
        remarks=dict(sorted(remarks.items())),
        simulated=SIMULATED in remarks,
        left_out=_left_out(reader, month),
        conflicts=tuple(_span(interval) for interval in _conflicts(month, enrolled)),
        maintenance=tuple(_booked_within(request, month.calendar)),
    )


def _booked_within(request: StatementRequest, calendar: Interval) -> Iterator[BookedMaintenance]:
    """Yields the bookings of which some lies in the month."""
    for one in sorted(request.maintenance, key=lambda booked: booked.since):
        booked = Interval(microseconds(one.since), microseconds(one.until))
        if booked.intersection(calendar).length > 0:
            yield one


def _asked(outcomes: AgentOutcomes) -> Iterator[Asked]:
    """Yields the moments at which the host was asked and the ping was not excused.

    An excused ping proves one as well: its window began when the host was last answered, also where
    that answer never reached history.
    """
    for one in without_overtaken(outcomes.measured()):
        window = outcomes.windows.get(PingKey(one.pinged_us, one.ping_seq))
        if window is not None:
            yield Asked(one.pinged_us, window.interval.end)
        elif one.outcome != "excused":
            yield Asked(one.pinged_us, one.pinged_us)
        elif one.since_us is not None:
            yield Asked(one.since_us, one.since_us)


def _span(interval: Interval) -> Span:
    return Span(from_microseconds(interval.begin), from_microseconds(interval.end))


def read_month(
    reader: Reader,
    agent_id: str,
    request: StatementRequest,
    now_us: int,
) -> MonthHistory:
    """Reads the month. Raises RefusedError as `statement` does."""
    calendar = month_interval(request.month)
    if calendar.begin > now_us:
        raise RefusedError(400, f"{request.month} has not begun")
    kept_since_us = day_folders.retention_cutoff_us(reader.cursor)
    if kept_since_us >= calendar.end:
        begin = f"{from_microseconds(kept_since_us):%Y-%m-%d}"
        raise RefusedError(404, f"{request.month} is no longer kept: history begins {begin}")
    retained = Interval(max(calendar.begin, kept_since_us), calendar.end)
    agent = reader.names.agents.find(agent_id)
    if agent is None:
        if not request.enrolments:
            raise RefusedError(404, f"no history of agent {agent_id}")
        nothing = AgentOutcomes([], {}, {})
        return MonthHistory(calendar, retained, None, nothing, None)
    outcomes = _read_around(reader, agent, calendar, now_us)
    first_us = first_ping_us(reader, agent)
    measured = all(row.measured_since_us is not None for row in outcomes.rows)
    if not outcomes.rows:
        measured = is_measured(reader, agent, first_us)
    return MonthHistory(calendar, retained, agent, outcomes, first_us, measured)


def _read_around(
    reader: Reader,
    agent: int,
    month: Interval,
    now_us: int,
) -> AgentOutcomes:
    """Reads the outcomes whose reports can account for the month."""
    since_us = month.begin - BEFORE_US
    soon_us = month.end + AFTER_US
    outcomes = read_outcomes(reader, agent, Interval(since_us, soon_us))
    if now_us <= soon_us or _reach_end(outcomes.aligned_windows(), month):
        return outcomes
    late_us = month.end + AWAITED_US
    return read_outcomes(reader, agent, Interval(since_us, late_us))


def _count_pings(reader: Reader, month: MonthHistory) -> _PingCounts:
    """Counts the month's pings by outcome, and those that never reached history."""
    rows = [row for row in month.outcomes.rows if row.pinged_us in month.calendar]
    by_outcome = Counter(row.outcome for row in rows)
    missing_seqs = 0
    if month.agent is not None:
        missing_seqs = _count_missing(reader, month.agent, rows, month.calendar)
    return _PingCounts(
        pings=len(rows),
        answered=by_outcome["answered"],
        missed=by_outcome["missed"],
        excused=by_outcome["excused"],
        missing_seqs=missing_seqs,
    )


def _count_missing(
    reader: Reader,
    agent: int,
    rows: list[OutcomeRow],
    month: Interval,
) -> int:
    """Returns how many of the month's outcomes never reached history."""
    began = numbering_began_us(reader, agent)
    numbers = [row.ping_seq for row in rows if row.pinged_us >= began]
    span = (min(numbers, default=None), max(numbers, default=None))
    return missing(reader, agent, began, span, month.begin, month.end)


def _is_final(
    reader: Reader,
    request: StatementRequest,
    windows: Iterable[ReportWindow],
    month: Interval,
    now_us: int,
) -> bool:
    """Returns whether no later outcome can change the statement.

    This is true only once ingest has read far enough to know it.
    """
    if now_us < month.end:
        return False
    if reader.newest_us >= month.end and _reach_end(windows, month):
        return True
    last_us = ended_us(request.enrolments, month, now_us)
    if last_us is None:
        return reader.newest_us >= month.end + AWAITED_US
    if reader.newest_us >= last_us + IN_FLIGHT_US:
        return True
    # The agent may have been the last of the fleet: then no newer outcome comes.
    return now_us >= month.end + AWAITED_US


def _reach_end(
    windows: Iterable[ReportWindow],
    month: Interval,
) -> bool:
    """Returns whether a report covers the month's end; no later one can tell of the month."""
    return any(window.interval.end >= month.end for window in windows)


def _count_remarks(month: MonthHistory) -> Counter[str]:
    """Counts the outcomes of the month with each remark."""
    remarks: Counter[str] = Counter()
    for row in month.outcomes.rows:
        if row.pinged_us in month.calendar:
            remarks.update(set(row.remark_words()))
    return remarks


def _conflicts(month: MonthHistory, enrolled: list[Interval]) -> list[Interval]:
    """Returns the enrolled time of reports that came while two agents answered under this id."""
    joined: list[Interval] = []
    for row in month.outcomes.rows:
        window = month.outcomes.windows.get(row.key())
        if window is None or TWO_UNDER_ONE_ID not in row.remark_words():
            continue
        for interval in enrolled:
            part = window.interval.intersection(interval)
            if part.length == 0:
                continue
            if joined and joined[-1].end == part.begin:
                joined[-1] = Interval(joined[-1].begin, part.end)
            else:
                joined.append(part)
    return joined


def _left_out(reader: Reader, month: MonthHistory) -> tuple[LeftOut, ...]:
    if month.agent is None:
        return ()
    return left_out(reader, month.calendar, month.agent)


def _payable_windows(
    month: MonthHistory,
    enrolled: list[Interval],
    totals: MonthTotals,
) -> list[PayableWindow]:
    """Returns every outcome with the part of its window that is enrolled time.

    Time whose outcome was lost is excused, and cannot be paid for.
    """
    payable = []
    for interval in totals.history_lost:
        lost = PayableWindow(
            durations=Durations(excused=interval.length // 1000),
            judged=False,
            answered=True,
            uptime_percent=None,
        )
        payable.append(lost)
    for row in month.outcomes.rows:
        window = month.outcomes.windows.get(row.key())
        durations = Durations()
        whole = None
        counted = row.pinged_us in month.calendar
        if window is not None:
            durations = durations_within(window, None, enrolled)
            whole = window.host
        payable.append(
            PayableWindow(
                durations=durations,
                judged=counted and row.verdict in {"good", "poor"},
                answered=row.outcome == "answered",
                uptime_percent=row.uptime_percent,
                whole=whole,
            )
        )
    return payable


def _replay(
    request: StatementRequest,
    windows: list[PayableWindow],
    host_ms: int,
    threshold: float,
) -> Replay | None:
    """Returns the comparison with the terms that the request names; None where it names none."""
    if request.threshold is None and request.policy is None:
        return None
    then = asked_terms(request.threshold, request.policy, threshold)
    return payment.replay(windows, host_ms, payment.threshold_terms(threshold), then)
