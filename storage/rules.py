"""Replaying a month under rules of payment: pure arithmetic over windows, no database and no clock.

Rules are data (bus.statements.Rules); the ready-made ones are the TOML files beside this one.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from bus.errors import BadMessageError
from bus.statements import Band, Pay, Replay, Rules
from storage.statement import Period
from storage.windows import Milliseconds

POLICIES = Path(__file__).parent / "policies"


class Judged(Struct, frozen=True):
    """A window's part in the period, and whether its ping was judged at all (the first one is not)."""

    account: Milliseconds
    judged: bool
    answered: bool
    uptime_percent: float | None


def ready_made() -> list[str]:
    """Names of the policies that come with the program."""
    return sorted(file.stem for file in POLICIES.glob("*.toml"))


def read_rules(text: str) -> Rules:
    """A ready-made policy by name, or the text of a TOML file. Raises BadMessageError that says what is wrong."""
    if "\n" not in text and "=" not in text:
        if text not in ready_made():
            raise BadMessageError(f"no policy {text[:50]!r}: there are {', '.join(ready_made())}, or give a TOML file")
        text = (POLICIES / f"{text}.toml").read_text()
    try:
        rules = msgspec.convert(tomllib.loads(text), Rules)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadMessageError(f"policy: {error}") from None
    return msgspec.structs.replace(rules, bands=tuple(sorted(rules.bands, key=lambda band: -band.at_least)))


def threshold_rules(threshold: float) -> Rules:
    """Our own rule: a window at or above the threshold is paid in full, below it not at all."""
    return Rules(
        name=f"threshold {threshold:g} %",
        source="PING_UPTIME_THRESHOLD",
        basis="window",
        bands=(Band(at_least=threshold, rate=1.0),),
    )


def replay(windows: list[Judged], period: Period, now: tuple[Rules, float], then: tuple[Rules, float]) -> Replay:
    """The month under the rules in force and under others, each with its threshold for good and poor pings."""
    before, after = pay(windows, period, *now), pay(windows, period, *then)
    change = (after.paid_percent or 0.0) - (before.paid_percent or 0.0)
    word = "same" if abs(change) < 1e-9 else "gains" if change > 0 else "loses"
    return Replay(now=before, then=after, change_percent=change, change=word)  # type: ignore[arg-type]  # of three


def pay(windows: list[Judged], period: Period, rules: Rules, threshold: float) -> Pay:
    """What the period is worth. Enrolled time without a report is down."""
    sums = _sum(window.account for window in windows)
    unreported = max(0, period.length_ms - sums.total)
    uptime = _uptime(sums, unreported, rules)
    in_pool = uptime is None or rules.leaves_below is None or uptime >= rules.leaves_below
    good, poor = _verdicts(windows, threshold)
    return Pay(
        rules=rules.name,
        source=rules.source,
        uptime_percent=uptime,
        paid_percent=_paid(windows, unreported, uptime, rules) if in_pool else 0.0,
        in_pool=in_pool,
        good_pings=good,
        poor_pings=poor,
    )


def _paid(windows: list[Judged], unreported: int, uptime: float | None, rules: Rules) -> float | None:
    if rules.basis == "month":
        return None if uptime is None else 100.0 * _rate(uptime, rules)
    paid = due = 0.0
    for window in windows:
        weight = _base(window.account, 0, rules)
        percent = _uptime(window.account, 0, msgspec.structs.replace(rules, forgiven_seconds=0.0))
        due += weight
        paid += weight * (_rate(percent, rules) if percent is not None else 0.0)
    due += unreported
    return 100.0 * min(due, paid) / due if due else None


def _uptime(sums: Milliseconds, unreported: int, rules: Rules) -> float | None:
    base = _base(sums, unreported, rules)
    if base <= 0:
        return None
    good = sums.up + (sums.degraded if rules.degraded_counts_as_up else 0)
    return 100.0 * min(base, good + rules.forgiven_seconds * 1000) / base


def _base(sums: Milliseconds, unreported: int, rules: Rules) -> int:
    """The time that is judged."""
    unknown = sums.unknown if rules.unknown_counts == "down" else 0
    return sums.up + sums.degraded + sums.down + unknown + unreported


def _rate(uptime: float, rules: Rules) -> float:
    return next((band.rate for band in rules.bands if uptime >= band.at_least), 0.0)


def _verdicts(windows: list[Judged], threshold: float) -> tuple[int, int]:
    """Good and poor pings under a threshold; a miss is poor, the first ping and excused ones are neither."""
    judged = [w for w in windows if w.judged]
    good = sum(1 for w in judged if w.answered and w.uptime_percent is not None and w.uptime_percent >= threshold)
    excused = sum(1 for w in judged if w.answered and w.uptime_percent is None)
    return good, len(judged) - good - excused


def _sum(accounts: Iterable[Milliseconds]) -> Milliseconds:
    sums = Milliseconds()
    for account in accounts:
        sums = sums.plus(account)
    return sums
