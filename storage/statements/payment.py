"""Replays a month under payment rules. Pure arithmetic over windows.

Rules are data (`bus.contract.statements.PayRules`); `policy_files.py` reads them.
"""

from fractions import Fraction
from typing import Literal, NamedTuple

from msgspec import Struct

from bus.contract.durations import Durations, uptime_percent
from bus.contract.statements import Band, Pay, PayRules, Replay

_SAME_PERCENT = 1e-9  # changes below this are rounding


class PayableWindow(Struct, frozen=True):
    """One outcome as it counts for pay: the part of its window that is enrolled time of the month.

    `judged`: its ping counts as good or poor (a first ping and an excused one do not). `whole`: the
    durations of the whole window, whose uptime decides the rate; None where the part is the whole.
    """

    durations: Durations
    judged: bool
    answered: bool
    uptime_percent: float | None
    whole: Durations | None = None


class Terms(NamedTuple):
    """Payment rules, and the uptime in percent from which a ping counts as good."""

    rules: PayRules
    threshold: float


def threshold_terms(threshold: float) -> Terms:
    """Returns our own terms: full pay for a window at or above the threshold, else nothing."""
    rules = PayRules(
        name=f"threshold {threshold:.15g} %",
        source="PING_UPTIME_THRESHOLD",
        basis="window",
        bands=(Band(at_least=threshold, rate=1.0),),
    )
    return Terms(rules, threshold)


def replay(
    windows: list[PayableWindow],
    enrolled_ms: int,
    now: Terms,
    then: Terms,
) -> Replay:
    """Compares the month's pay under the terms in force and under others."""
    pay_now = pay(windows, enrolled_ms, now)
    pay_then = pay(windows, enrolled_ms, then)
    change = (pay_then.paid_percent or 0.0) - (pay_now.paid_percent or 0.0)
    return Replay(
        now=pay_now,
        then=pay_then,
        change_percent=change,
        change=_change_word(change),
    )


def pay(
    windows: list[PayableWindow],
    enrolled_ms: int,
    terms: Terms,
) -> Pay:
    """Returns what the enrolled time is worth. Time that no report covers counts as down."""
    rules = terms.rules
    durations = Durations.total(window.durations for window in windows)
    unreported_ms = max(0, enrolled_ms - durations.window)
    due_ms = _judged_ms(durations, rules) + unreported_ms
    good_ms = _good_ms(durations, rules) + rules.forgiven_seconds * 1000
    uptime = _uptime(good_ms, due_ms)
    in_pool = _stays_in_pool(uptime, rules)
    paid_ms = Fraction()
    if in_pool and rules.basis == "month":
        paid_ms = _rate(uptime, rules) * due_ms
    elif in_pool:
        paid_ms = _paid_by_window(windows, rules)
    paid_percent = None
    if due_ms:
        paid_percent = float(100 * paid_ms / due_ms)
    pings = _count_verdicts(windows, terms.threshold)
    return Pay(
        rules=rules.name,
        source=rules.source,
        uptime_percent=uptime,
        paid_percent=paid_percent,
        in_pool=in_pool,
        good_pings=pings.good,
        poor_pings=pings.poor,
        due_seconds=due_ms / 1000,
        paid_seconds=float(paid_ms / 1000),
    )


def _stays_in_pool(uptime: float | None, rules: PayRules) -> bool:
    if uptime is None or rules.leaves_below is None:
        return True
    return uptime >= rules.leaves_below


def _change_word(change_percent: float) -> Literal["gains", "loses", "same"]:
    if abs(change_percent) < _SAME_PERCENT:
        return "same"
    if change_percent > 0:
        return "gains"
    return "loses"


def _paid_by_window(
    windows: list[PayableWindow],
    rules: PayRules,
) -> Fraction:
    """Returns the milliseconds at the full rate, exact, so that the fleet's pay is their sum.

    Forgiven time is of a whole month, so no window's own uptime has it.
    """
    paid_ms = Fraction()
    for window in windows:
        whole = window.whole or window.durations
        uptime = _uptime(_good_ms(whole, rules), _judged_ms(whole, rules))
        due_ms = _judged_ms(window.durations, rules)
        paid_ms += _rate(uptime, rules) * due_ms
    return paid_ms


def _uptime(good_ms: float, judged_ms: int) -> float | None:
    """Returns the uptime in percent. Forgiven time never makes it more than 100."""
    return uptime_percent(min(judged_ms, good_ms), judged_ms)


def _good_ms(durations: Durations, rules: PayRules) -> int:
    if rules.degraded_counts_as_up:
        return durations.good
    return durations.up


def _judged_ms(durations: Durations, rules: PayRules) -> int:
    if rules.unknown_counts == "down":
        return durations.judged
    return durations.judged - durations.unknown


def _rate(uptime: float | None, rules: PayRules) -> Fraction:
    """Returns the share of the full rate as written: 0.1 is a tenth, not the nearest double."""
    if uptime is None:
        return Fraction()
    for band in rules.bands:
        if uptime >= band.at_least:
            return Fraction(str(band.rate))
    return Fraction()


class _Verdicts(NamedTuple):
    good: int
    poor: int


def _count_verdicts(
    windows: list[PayableWindow],
    threshold: float,
) -> _Verdicts:
    """Counts good and poor pings.

    A miss is poor; an answer whose whole window is excused is neither.
    """
    good = 0
    poor = 0
    for window in windows:
        if not window.judged:
            continue
        if not window.answered:
            poor += 1
        elif window.uptime_percent is not None:
            if window.uptime_percent >= threshold:
                good += 1
            else:
                poor += 1
    return _Verdicts(good, poor)
