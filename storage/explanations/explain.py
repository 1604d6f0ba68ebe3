"""Explains a month: the statement's figures, what was lost to which cause, the days, the intervals.

The statement itself is built first, so that no figure here can differ from it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from bus.contract.durations import Interval
from bus.contract.explanations import (
    MOST_LOSSES,
    MOST_STEPS,
    Cause,
    Explanation,
    ExplanationRequest,
    IntervalStep,
    Loss,
)
from bus.contract.messages import Span
from bus.contract.remarks import BY_HTTP
from bus.contract.statements import Statement, StatementRequest
from storage.engine.rows import from_microseconds, microseconds, milliseconds
from storage.explanations.days import day_accounts
from storage.explanations.losses import (
    Charge,
    ChargedLoss,
    charged_losses,
    total_by_charge,
    unreported_losses,
)
from storage.explanations.outcome_rows import ExplainedOutcome, read_explained
from storage.statements import build
from storage.statements.account import UNNAMED, GpuName
from storage.statements.build import MonthHistory
from storage.store.store import Reader


def explanation(
    reader: Reader,
    agent_id: str,
    request: ExplanationRequest,
    now: datetime,
    threshold: float,
) -> Explanation:
    """Returns the explanation. Raises RefusedError as the statement does."""
    question = StatementRequest(month=request.month, enrolments=request.enrolments)
    month = build.read_month(reader, agent_id, question, microseconds(now))
    stated = build.statement_of(reader, month, agent_id, question, now, threshold)
    enrolled = _intervals(stated.enrolled)
    explained = _explained_outcomes(reader, month, enrolled)
    unreported = unreported_losses(
        month.outcomes.gaps(),
        enrolled,
        milliseconds(stated.host.unreported_seconds),
        _misses(explained),
    )
    windows = month.outcomes.aligned_windows()
    losses = charged_losses(windows, _remarks(month), enrolled) + unreported
    losses.sort(key=_begin)
    lost = _intervals(stated.history_lost)
    judged_ms = _judged_ms(stated)
    names = month.outcomes.gpu_names
    return Explanation(
        agent_id=agent_id,
        month=request.month,
        generated_at=now,
        since=stated.since,
        until=stated.until,
        final=stated.final,
        enrolled_seconds=stated.enrolled_seconds,
        judged_seconds=judged_ms / 1000,
        host=stated.host,
        gpus=stated.gpus,
        causes=_causes(losses, judged_ms, names),
        losses=_costliest(losses, judged_ms, names),
        losses_total=len(losses),
        days=day_accounts(month.calendar, enrolled, windows, lost, unreported, explained),
        steps=_steps(explained, month.calendar),
        pings=stated.pings,
        missed=stated.missed,
        excused=stated.excused,
        simulated=stated.simulated,
        by_http=BY_HTTP in stated.remarks,
        conflicts=stated.conflicts,
    )


def _explained_outcomes(
    reader: Reader,
    month: MonthHistory,
    enrolled: Sequence[Interval],
) -> list[ExplainedOutcome]:
    """Returns the month's outcomes, and those after it that can tell why time of it is missing."""
    if month.agent is None:
        return []
    end_us = month.calendar.end
    if enrolled:
        end_us = max(end_us, enrolled[-1].end)
    return read_explained(reader, month.agent, Interval(month.calendar.begin, end_us))


def _intervals(spans: Iterable[Span]) -> list[Interval]:
    intervals = []
    for span in spans:
        intervals.append(Interval(microseconds(span.since), microseconds(span.until)))
    return intervals


def _misses(outcomes: Iterable[ExplainedOutcome]) -> list[tuple[int, str]]:
    """Returns when each missed ping was sent, and why it was missed."""
    misses = []
    for one in outcomes:
        if one.outcome == "missed" and one.reason:
            misses.append((one.pinged_us, one.reason))
    return misses


def _remarks(month: MonthHistory) -> dict[int, list[str]]:
    """Returns the remarks of every outcome that has some, by ping_seq."""
    remarks = {}
    for row in month.outcomes.rows:
        words = row.remark_words()
        if words:
            remarks[row.ping_seq] = words
    return remarks


def _judged_ms(stated: Statement) -> int:
    seconds = stated.host.seconds
    judged = (seconds.up, seconds.degraded, seconds.down, seconds.unknown)
    return sum(map(milliseconds, judged)) + milliseconds(stated.host.unreported_seconds)


def _points(lost_ms: int, judged_ms: int) -> float:
    if judged_ms == 0:
        return 0.0
    return 100 * lost_ms / judged_ms


def _causes(
    losses: Sequence[ChargedLoss],
    judged_ms: int,
    names: dict[str, GpuName],
) -> tuple[Cause, ...]:
    causes = []
    for charge, of in total_by_charge(losses).items():
        lost_ms = sum(loss.lost_ms for loss in of)
        cause = Cause(
            gpu=charge.gpu,
            index=_index(charge, names),
            state=charge.state,
            reason=charge.reason,
            losses=len(of),
            since=from_microseconds(min(loss.interval.begin for loss in of)),
            until=from_microseconds(max(loss.interval.end for loss in of)),
            seconds=lost_ms / 1000,
            points=_points(lost_ms, judged_ms),
        )
        causes.append(cause)
    return tuple(causes)


def _costliest(
    losses: Sequence[ChargedLoss],
    judged_ms: int,
    names: dict[str, GpuName],
) -> tuple[Loss, ...]:
    """Returns the MOST_LOSSES costliest, by time."""
    costliest = sorted(losses, key=_cost, reverse=True)[:MOST_LOSSES]
    costliest.sort(key=_begin)
    listed = []
    for loss in costliest:
        one = Loss(
            gpu=loss.charge.gpu,
            index=_index(loss.charge, names),
            state=loss.charge.state,
            reason=loss.charge.reason,
            since=from_microseconds(loss.interval.begin),
            until=from_microseconds(loss.interval.end),
            seconds=loss.lost_ms / 1000,
            points=_points(loss.lost_ms, judged_ms),
        )
        listed.append(one)
    return tuple(listed)


def _index(charge: Charge, names: dict[str, GpuName]) -> int | None:
    if charge.gpu is None:
        return None
    return names.get(charge.gpu, UNNAMED).index


def _begin(loss: ChargedLoss) -> int:
    return loss.interval.begin


def _cost(loss: ChargedLoss) -> int:
    return loss.lost_ms


def _steps(explained: Sequence[ExplainedOutcome], month: Interval) -> tuple[IntervalStep, ...]:
    """Returns where the interval changed.

    Where it changed more often than MOST_STEPS times, each part of the month has its longest.
    """
    steps = []
    before: tuple[float, int] | None = None
    for one in explained:
        now = (one.interval_seconds, one.consecutive_poor)
        if one.pinged_us in month and now != before:
            steps.append(one)
            before = now
    if len(steps) > MOST_STEPS:
        steps = _longest_of_each(steps, month.length // MOST_STEPS)
    return tuple(map(_step, steps))


def _longest_of_each(steps: list[ExplainedOutcome], grain_us: int) -> list[ExplainedOutcome]:
    kept = [steps[0]]
    for before, one in pairwise(steps):
        is_same_part = one.pinged_us // grain_us == before.pinged_us // grain_us
        if not is_same_part:
            kept.append(one)
        elif one.interval_seconds > kept[-1].interval_seconds:
            kept[-1] = one
    return kept


def _step(one: ExplainedOutcome) -> IntervalStep:
    return IntervalStep(
        at=from_microseconds(one.pinged_us),
        interval_minutes=one.interval_seconds / 60,
        consecutive_poor_uptime=one.consecutive_poor,
    )
