"""The ping policy: everything that moves an agent's standing and interval, and nothing else.

Pure: no clock, no I/O. The rules, by number, are those of docs/design/ping-policy.md; every step carries its verdict and reason, which logs, metrics, history and tests share.
"""

import math
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.messages import Standing, Status, Verdict


class Policy(Struct, frozen=True, kw_only=True):
    """The rules of one fleet. Intervals in seconds, threshold in percent, multiplier >= 1."""

    base_seconds: float
    max_seconds: float
    multiplier: float
    threshold_percent: float
    recovery_pings: int
    grace: bool


class Answer(Struct, frozen=True):
    """The agent answered. `uptime_percent` is None where the window held nothing to judge."""

    uptime_percent: float | None
    gpu_available: bool


class Miss(Struct, frozen=True):
    """No usable answer within the time-out; `reason` says of what kind."""

    reason: str


class Excuse(Struct, frozen=True):
    """The ping could not be judged, through no fault of the agent's."""

    reason: str


Event = Answer | Miss | Excuse


class Step(Struct, frozen=True):
    """What one outcome makes of a standing. `interval_seconds` is the distance to the next ping."""

    standing: Standing
    verdict: Verdict
    reason: str | None
    interval_seconds: float


def advance(standing: Standing, event: Event, policy: Policy) -> Step:
    """One outcome, one step. Never raises for a standing and policy that were built from valid messages."""
    match event:
        case Excuse(reason):
            return _excused(standing, reason, policy)
        case Miss(reason):
            return _missed(standing, reason, policy)
        case Answer():
            return _answered(standing, event, policy)


def interval_seconds(consecutive_poor: int, policy: Policy) -> float:
    """`min(base * multiplier ** consecutive_poor, max)`, without overflow however long the row of poor pings."""
    if policy.multiplier <= 1.0 or consecutive_poor <= 0:
        return min(policy.base_seconds, policy.max_seconds)
    steps_to_cap = math.log(policy.max_seconds / policy.base_seconds) / math.log(policy.multiplier)
    if consecutive_poor > steps_to_cap:
        return policy.max_seconds
    return min(policy.base_seconds * policy.multiplier**consecutive_poor, policy.max_seconds)


def next_ping_at(pinged_at: datetime, interval: float, now: datetime) -> datetime:
    """The interval counts from the ping, not from its answer; never in the past."""
    return max(now, pinged_at + timedelta(seconds=interval))


def first_ping_at(enrolled_at: datetime, policy: Policy) -> datetime:
    """At once with the grace period, which judges nothing; else when there is a base interval to judge."""
    return enrolled_at if policy.grace else enrolled_at + timedelta(seconds=policy.base_seconds)


def status(standing: Standing | None, *, maintenance: bool) -> Status:
    """The first that holds, in this order (docs/design/ping-policy.md#status)."""
    if maintenance:
        return "maintenance"
    if standing is None or standing.answered == 0:
        return "pending"
    if standing.last_outcome == "missed":
        return "missing"
    if standing.last_judged == "poor" or standing.no_gpu:
        return "poor"
    return "recovering" if standing.recovering else "healthy"


def _excused(standing: Standing, reason: str, policy: Policy) -> Step:
    kept = replace(standing, last_outcome="excused")
    return Step(kept, "excused", reason, interval_seconds(standing.consecutive_poor, policy))


def _missed(standing: Standing, reason: str, policy: Policy) -> Step:
    standing = replace(standing, last_outcome="missed", uptime_percent=None)
    if policy.grace and standing.answered == 0:
        return Step(standing, "first", reason, policy.base_seconds)
    return _poor(standing, reason, policy)


def _answered(standing: Standing, answer: Answer, policy: Policy) -> Step:
    first = policy.grace and standing.answered == 0
    standing = replace(
        standing,
        answered=standing.answered + 1,
        last_outcome="answered",
        no_gpu=not answer.gpu_available,
    )
    if first:
        return Step(
            standing, "first", None if answer.gpu_available else "no_gpu", policy.base_seconds
        )
    if answer.uptime_percent is None:
        return Step(
            standing,
            "excused",
            "nothing_to_judge",
            interval_seconds(standing.consecutive_poor, policy),
        )
    standing = replace(standing, uptime_percent=answer.uptime_percent)
    if answer.uptime_percent >= policy.threshold_percent:
        return _good(standing, policy)
    return _poor(standing, "uptime_below_threshold" if answer.gpu_available else "no_gpu", policy)


def _good(standing: Standing, policy: Policy) -> Step:
    streak = standing.good_streak + 1
    recovered = streak >= policy.recovery_pings
    poor = 0 if recovered else max(0, standing.consecutive_poor - 1)
    standing = replace(
        standing,
        good_streak=streak,
        consecutive_poor=poor,
        recovering=standing.recovering and not recovered,
        last_judged="good",
    )
    return Step(standing, "good", None, interval_seconds(poor, policy))


def _poor(standing: Standing, reason: str, policy: Policy) -> Step:
    poor = standing.consecutive_poor + 1
    standing = replace(
        standing, good_streak=0, consecutive_poor=poor, recovering=True, last_judged="poor"
    )
    return Step(standing, "poor", reason, interval_seconds(poor, policy))
