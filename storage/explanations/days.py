"""Divides a month into days of UTC, so that the days add up to the month. Pure."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from msgspec import Struct

from bus.contract.durations import Durations, Interval, uptime_percent
from bus.contract.explanations import DayAccount
from storage.engine.partitions import DAY_US
from storage.engine.rows import EPOCH
from storage.explanations.losses import ChargedLoss
from storage.explanations.outcome_rows import ExplainedOutcome
from storage.statements.windows import ReportWindow, share_within


class DayTotals(Struct):
    """What is added up for one day."""

    durations: Durations = Durations()
    unreported_ms: int = 0
    pings: int = 0
    missed: int = 0
    excused: int = 0


def day_accounts(
    month: Interval,
    enrolled: Sequence[Interval],
    windows: Iterable[ReportWindow],
    lost: Iterable[Interval],
    unreported: Iterable[ChargedLoss],
    outcomes: Iterable[ExplainedOutcome],
) -> tuple[DayAccount, ...]:
    """Returns an account of every day. `lost` is time whose outcome was lost, which is excused."""
    days = [DayTotals() for _ in range(month.length // DAY_US)]
    for window in windows:
        for interval in enrolled:
            for number, part in _by_day(window.interval.intersection(interval), month):
                days[number].durations += share_within(window, None, part).durations
    for interval in lost:
        for number, part in _by_day(interval, month):
            days[number].durations += Durations(excused=part.length // 1000)
    for loss in unreported:
        _divide(loss, month, days)
    for outcome in outcomes:
        if outcome.pinged_us in month:
            day = days[(outcome.pinged_us - month.begin) // DAY_US]
            day.pings += 1
            day.missed += outcome.outcome == "missed"
            day.excused += outcome.outcome == "excused"
    return tuple(_account(month, number, day) for number, day in enumerate(days))


def _by_day(interval: Interval, month: Interval) -> list[tuple[int, Interval]]:
    """Returns the parts of an interval by the number of their day in the month, from 0."""
    inside = interval.intersection(month)
    if inside.length == 0:
        return []
    parts = []
    first = (inside.begin - month.begin) // DAY_US
    last = (inside.end - 1 - month.begin) // DAY_US
    for day in range(first, last + 1):
        begin = month.begin + day * DAY_US
        parts.append((day, inside.intersection(Interval(begin, begin + DAY_US))))
    return parts


def _divide(loss: ChargedLoss, month: Interval, days: list[DayTotals]) -> None:
    """Divides a loss among its days, in proportion to its time in each."""
    parts = _by_day(loss.interval, month)
    whole_us = sum(part.length for _, part in parts)
    running_us = 0
    given_ms = 0
    for number, part in parts:
        running_us += part.length
        edge_ms = loss.lost_ms * running_us // whole_us
        days[number].unreported_ms += edge_ms - given_ms
        given_ms = edge_ms


def _account(month: Interval, number: int, day: DayTotals) -> DayAccount:
    begins = EPOCH + timedelta(microseconds=month.begin) + timedelta(days=number)
    durations = day.durations
    return DayAccount(
        day=f"{begins:%Y-%m-%d}",
        seconds=durations.to_seconds(),
        unreported_seconds=day.unreported_ms / 1000,
        uptime_percent=uptime_percent(durations.good, durations.judged + day.unreported_ms),
        pings=day.pings,
        missed=day.missed,
        excused=day.excused,
    )
