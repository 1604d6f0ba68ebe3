"""The ping policy: everything that changes an agent's standing and ping interval, and nothing else.

Pure: no clock and no I/O. The rules are those of docs/design/ping-policy.md. Every step carries its
verdict and its reason, which logs, metrics, history and tests share.
"""

import math
from datetime import datetime, timedelta
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.messages import Standing, Status, Verdict
from bus.contract.reasons import UPTIME_BELOW_THRESHOLD

LONGEST_INTERVAL_SECONDS = 100 * 365.25 * 86_400  # due times then stay far below the year 9999
# So many answered pings in a row with nothing to judge, and the last judgement is out of date.
UNJUDGED_PINGS = 3
MAINTENANCE = "maintenance"  # the reason of an outcome in booked time
NO_GPU = "no_gpu"  # the reason of an outcome whose report has no GPU that can be used


class Policy(Struct, frozen=True, kw_only=True):
    """The rules of one fleet. Intervals in seconds, threshold in percent, multiplier >= 1.

    No interval is above LONGEST_INTERVAL_SECONDS.
    """

    base_seconds: float
    max_seconds: float
    multiplier: float
    threshold_percent: float
    recovery_pings: int
    grace: bool


class Answered(Struct, frozen=True):
    """The agent sent a valid report.

    `uptime_percent` (0 to 100) is None when the window held no time that can be judged.
    """

    uptime_percent: float | None
    gpu_available: bool
    in_maintenance: bool = False  # booked time, in which nothing is judged


class Missed(Struct, frozen=True):
    """No valid report arrived within the time-out; `reason` names the kind of miss."""

    reason: str


class Excused(Struct, frozen=True):
    """The ping cannot be judged, and the agent is not at fault; `reason` says why.

    `retries` is True where the agent is to be pinged again at once, because nothing was learned.
    """

    reason: str
    retries: bool = True


PingResult = Answered | Missed | Excused


class Step(Struct, frozen=True):
    """The standing after one ping. The next ping is `interval_seconds` after this one."""

    standing: Standing
    verdict: Verdict
    reason: str | None
    interval_seconds: float


def advance(
    standing: Standing,
    result: PingResult,
    policy: Policy,
) -> Step:
    """Applies one ping result. Never raises for a standing and policy from valid messages."""
    match result:
        case Answered():
            return _answered(standing, result, policy)
        case Missed(reason):
            return _missed(standing, reason, policy)
        case Excused(reason=reason):
            return _excused(standing, reason, policy)


def interval_seconds(consecutive_poor: int, policy: Policy) -> float:
    """Returns `min(base * multiplier ** consecutive_poor, max)`.

    The power is not computed once the maximum is certain, so that it cannot overflow.
    """
    if policy.multiplier <= 1.0 or consecutive_poor <= 0:
        return min(policy.base_seconds, policy.max_seconds)
    factor_to_cap = policy.max_seconds / policy.base_seconds
    steps_to_cap = math.log(factor_to_cap) / math.log(policy.multiplier)
    if consecutive_poor > steps_to_cap:
        return policy.max_seconds
    return min(policy.base_seconds * policy.multiplier**consecutive_poor, policy.max_seconds)


@lru_cache(maxsize=256)
def next_ping_at(
    pinged_at: datetime,
    interval: float,
    now: datetime,
) -> datetime:
    """Returns the due time `interval` seconds after the ping was sent, but never one before now.

    Pings are sent and judged many at a time, so most results are known already.
    """
    return max(now, pinged_at + timedelta(seconds=interval))


def latest_due_time(
    written_at: datetime,
    interval: float,
    policy: Policy,
) -> datetime:
    """Returns the latest due time that an outcome written then can have set.

    `interval` is the one of the outcome, in seconds. A later due time came from a wrong clock.
    """
    return written_at + timedelta(seconds=min(max(0.0, interval), policy.max_seconds))


def first_ping_at(enrolled_at: datetime, policy: Policy) -> datetime:
    """Returns when a newly enrolled agent is due.

    With the grace period the first ping judges no uptime, so it is due at once. Without it, the
    first ping is due when a whole base interval can be judged.
    """
    if policy.grace:
        return enrolled_at
    return enrolled_at + timedelta(seconds=policy.base_seconds)


def status(standing: Standing | None, *, maintenance: bool) -> Status:  # noqa: PLR0911  # a table
    """Returns the first status that applies, in the order of docs/design/ping-policy.md#status."""
    if maintenance:
        return "maintenance"
    if standing is None or standing.answered == 0:
        return "pending"
    if standing.last_outcome == "missed":
        return "missing"
    if standing.last_judged == "poor" or standing.no_gpu:
        return "poor"
    if standing.unjudged >= UNJUDGED_PINGS:
        return "pending"
    if standing.recovering:
        return "recovering"
    return "healthy"


def _excused(
    standing: Standing,
    reason: str,
    policy: Policy,
) -> Step:
    kept = replace(standing, last_outcome="excused")
    return Step(kept, "excused", reason, interval_seconds(standing.consecutive_poor, policy))


def _missed(
    standing: Standing,
    reason: str,
    policy: Policy,
) -> Step:
    standing = replace(standing, last_outcome="missed", uptime_percent=None)
    if policy.grace and standing.answered == 0:
        return Step(standing, "first", reason, policy.base_seconds)
    return _poor(standing, None, reason, policy)


def _answered(
    standing: Standing,
    answered: Answered,
    policy: Policy,
) -> Step:
    first = policy.grace and standing.answered == 0
    standing = replace(
        standing,
        answered=standing.answered + 1,
        last_outcome="answered",
        no_gpu=not answered.gpu_available,
    )
    if first:
        reason = None if answered.gpu_available else NO_GPU
        return Step(standing, "first", reason, policy.base_seconds)
    if answered.in_maintenance:
        interval = interval_seconds(standing.consecutive_poor, policy)
        return Step(standing, "excused", MAINTENANCE, interval)
    if answered.uptime_percent is None:
        return _unjudged(standing, policy)
    if answered.uptime_percent >= policy.threshold_percent:
        return _good(standing, answered.uptime_percent, policy)
    reason = UPTIME_BELOW_THRESHOLD
    if not answered.gpu_available:
        reason = NO_GPU
    return _poor(standing, answered.uptime_percent, reason, policy)


def _unjudged(standing: Standing, policy: Policy) -> Step:
    """After UNJUDGED_PINGS of these in a row no earlier uptime is shown as the present one."""
    unjudged = standing.unjudged + 1
    standing = replace(standing, unjudged=unjudged)
    if unjudged >= UNJUDGED_PINGS:
        standing = replace(standing, uptime_percent=None)
    interval = interval_seconds(standing.consecutive_poor, policy)
    return Step(standing, "excused", "nothing_to_judge", interval)


def _good(
    standing: Standing,
    uptime_percent: float,
    policy: Policy,
) -> Step:
    good_streak = standing.good_streak + 1
    recovered = good_streak >= policy.recovery_pings
    if recovered:
        consecutive_poor = 0
    else:
        consecutive_poor = max(0, standing.consecutive_poor - 1)
    standing = replace(
        standing,
        uptime_percent=uptime_percent,
        good_streak=good_streak,
        consecutive_poor=consecutive_poor,
        recovering=standing.recovering and not recovered,
        last_judged="good",
        unjudged=0,
    )
    return Step(standing, "good", None, interval_seconds(consecutive_poor, policy))


def _poor(
    standing: Standing,
    uptime_percent: float | None,
    reason: str,
    policy: Policy,
) -> Step:
    consecutive_poor = standing.consecutive_poor + 1
    standing = replace(
        standing,
        uptime_percent=uptime_percent,
        good_streak=0,
        consecutive_poor=consecutive_poor,
        recovering=True,
        last_judged="poor",
        unjudged=0,
    )
    return Step(standing, "poor", reason, interval_seconds(consecutive_poor, policy))
