"""Replaying a month under rules of payment: pure arithmetic over windows, no database and no clock.

Rules are data (bus.statements.Rules); the ready-made ones are the TOML files beside this one.
"""

import tomllib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import msgspec
from msgspec import Struct

from bus.contract.statements import Band, Pay, Replay, Rules
from bus.errors import BadMessageError
from storage.statements.windows import Milliseconds

POLICIES = Path(__file__).parent / "policies"


class Judged(Struct, frozen=True):
    """A window's part in what is paid for, and whether its ping was judged at all (the first one is not).

    `whole`: the window's own account, by which its part is paid; None where the part is all of it.
    """

    account: Milliseconds
    judged: bool
    answered: bool
    uptime_percent: float | None
    whole: Milliseconds | None = None


def ready_made() -> list[str]:
    """Names of the policies that come with the program."""
    return sorted(file.stem for file in POLICIES.glob("*.toml"))


def read_rules(text: str) -> Rules:
    """A ready-made policy by name, or the text of a TOML file. Raises BadMessageError that says what is wrong."""
    if "\n" not in text and "=" not in text:
        if text not in ready_made():
            raise BadMessageError(
                f"no policy {text[:50]!r}: there are {', '.join(ready_made())}, or give a TOML file"
            )
        text = (POLICIES / f"{text}.toml").read_text()
    try:
        rules = msgspec.convert(tomllib.loads(text), Rules)
    except (
        ValueError,
        RecursionError,
        OverflowError,
    ) as error:  # numbers of thousands of digits, lists in lists in lists
        raise BadMessageError(f"policy: {error}") from None
    return msgspec.structs.replace(
        rules, bands=tuple(sorted(rules.bands, key=lambda band: -band.at_least))
    )


def threshold_rules(threshold: float) -> Rules:
    """Our own rule: a window at or above the threshold is paid in full, below it not at all."""
    return Rules(
        name=f"threshold {threshold:.15g} %",
        source="PING_UPTIME_THRESHOLD",
        basis="window",
        bands=(Band(at_least=threshold, rate=1.0),),
    )


def replay(
    windows: list[Judged], enrolled_ms: int, now: tuple[Rules, float], then: tuple[Rules, float]
) -> Replay:
    """The month under the rules in force and under others, each with its threshold for good and poor pings."""
    before, after = pay(windows, enrolled_ms, *now), pay(windows, enrolled_ms, *then)
    change = (after.paid_percent or 0.0) - (before.paid_percent or 0.0)
    word = "same" if abs(change) < 1e-9 else "gains" if change > 0 else "loses"
    return Replay(now=before, then=after, change_percent=change, change=word)  # type: ignore[arg-type]  # of three


def pay(windows: list[Judged], enrolled_ms: int, rules: Rules, threshold: float) -> Pay:
    """What so much enrolled time is worth. What no report covers of it is down."""
    sums = _sum(window.account for window in windows)
    unreported = max(0, enrolled_ms - sums.total)
    uptime = _uptime(sums, unreported, rules)
    in_pool = uptime is None or rules.leaves_below is None or uptime >= rules.leaves_below
    good, poor = _verdicts(windows, threshold)
    due_ms = _base(sums, unreported, rules)
    paid_ms = _paid(windows, due_ms, uptime, rules) if in_pool else Fraction()
    return Pay(
        rules=rules.name,
        source=rules.source,
        uptime_percent=uptime,
        paid_percent=float(100 * paid_ms / due_ms) if due_ms else None,
        in_pool=in_pool,
        good_pings=good,
        poor_pings=poor,
        due_seconds=due_ms / 1000,
        paid_seconds=float(paid_ms / 1000),
    )


def _paid(windows: list[Judged], due_ms: int, uptime: float | None, rules: Rules) -> Fraction:
    """Milliseconds at the full rate, exact: the fleet's pay is a sum of them."""
    if rules.basis == "month":
        return _share(uptime, rules) * due_ms
    unforgiving = msgspec.structs.replace(rules, forgiven_seconds=0.0)
    paid = Fraction()
    for window in windows:
        percent = _uptime(window.whole or window.account, 0, unforgiving)
        paid += _share(percent, rules) * _base(window.account, 0, rules)
    return paid


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


def _share(uptime: float | None, rules: Rules) -> Fraction:
    """Of the full rate, as somebody wrote it down: 0.1 is a tenth, and not the nearest number to it."""
    if uptime is None:
        return Fraction()
    return next(
        (Fraction(str(band.rate)) for band in rules.bands if uptime >= band.at_least), Fraction()
    )


def _verdicts(windows: list[Judged], threshold: float) -> tuple[int, int]:
    """Good and poor pings under a threshold; a miss is poor, the first ping and excused ones are neither."""
    judged = [w for w in windows if w.judged]
    good = sum(
        1
        for w in judged
        if w.answered and w.uptime_percent is not None and w.uptime_percent >= threshold
    )
    excused = sum(1 for w in judged if w.answered and w.uptime_percent is None)
    return good, len(judged) - good - excused


def _sum(accounts: Iterable[Milliseconds]) -> Milliseconds:
    sums = Milliseconds()
    for account in accounts:
        sums = sums.plus(account)
    return sums
