"""Makes the uptime report of an agent that was asked by HTTP from what it answered. Pure.

Such an agent says one figure: the uptime since it was asked before. It keeps no ledger that could
be asked again, so an answer that did not reach the scheduler would be lost. Therefore answers are
kept here until a later ping shows, by its `since_mark`, that the scheduler has counted them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from bus.contract.durations import Durations
from bus.contract.messages import ExcusedSpan, PingRequest, UptimeReport, Window
from bus.errors import BadMessageError

# How answers name a thing; the first name that an answer has counts.
PERCENT_NAMES = ("uptime_percent", "uptime_percentage", "gpu_uptime_percent", "uptime")
LENGTH_NAMES = (
    "seconds_since_last_ping",
    "time_since_last_ping_seconds",
    "window_seconds",
    "period_seconds",
)
GPU_NAMES = ("gpu_available", "gpu_exists", "gpu_present", "has_gpu")
KEPT_ANSWERS = 20  # of one agent that did not reach the scheduler
AGENT_VERSION = "http"


class HttpUptime(Struct, frozen=True):
    """What an agent said: the share of `covered_ms` that was up.

    `covered_ms` is None where it does not say since when: then since it was asked before.
    """

    percent: float
    gpu_available: bool
    covered_ms: int | None = None


class _Counted(Struct, frozen=True):
    mark: str
    up_ms: int
    covered_ms: int


def decode_uptime(data: bytes) -> HttpUptime:
    """Reads an answer. Raises BadMessageError, which says what an agent must answer."""
    try:
        answer = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError(f"it is no JSON: {error}") from None
    if not isinstance(answer, dict):
        raise BadMessageError("it is no JSON object")
    gpu_available = _first(answer, GPU_NAMES)
    if gpu_available is not None and not isinstance(gpu_available, bool):
        raise BadMessageError("gpu_available is neither true nor false")
    percent = _number(answer, PERCENT_NAMES)
    if percent is None:
        if gpu_available is not False:
            raise BadMessageError("it has no uptime_percent")
        percent = 0.0
    if not 0.0 <= percent <= 100.0:
        raise BadMessageError(f"uptime_percent is {percent:g}: expected 0 to 100")
    if gpu_available is None:
        gpu_available = percent > 0.0
    return HttpUptime(percent, gpu_available, _covered_ms(answer))


def _covered_ms(answer: Mapping[str, Any]) -> int | None:
    seconds = _number(answer, LENGTH_NAMES)
    window = answer.get("window")
    if seconds is None and isinstance(window, dict):
        seconds = _number(window, ("seconds",))
    if seconds is None:
        return None
    if not 0.0 <= seconds <= 2.0**32:
        raise BadMessageError(f"the time since the last ping is {seconds:g} s")
    return round(seconds * 1000)


def _number(answer: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    value = _first(answer, names)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadMessageError(f"{names[0]} is no number")
    return float(value)


def _first(answer: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if answer.get(name) is not None:
            return answer[name]
    return None


class UncountedAnswers:
    """The answers of one agent that the scheduler may not have counted yet, oldest first."""

    def __init__(self) -> None:
        self._answers: list[_Counted] = []
        self._counted_mark: str | None = None  # of the answer before the first of these

    def forget(self) -> None:
        """Forgets all: another gateway has asked since, and has what comes next."""
        self._answers.clear()
        self._counted_mark = None

    def report(
        self,
        agent_id: str,
        request: PingRequest,
        uptime: HttpUptime,
        now: datetime,
        mark: str,
    ) -> UptimeReport:
        """Makes the report on the window that the ping asks for, and keeps the answer.

        It covers what the agent spoke of, and never more than the window. Admission fills what is
        missing with unknown time, as it does for every host. An agent that does not say since when
        it counts is believed for the rest of the window.
        """
        self._drop_counted(request.since_mark)
        window = round((request.window_seconds or 0.0) * 1000)
        left = window
        for kept in self._answers:
            left = max(0, left - kept.covered_ms)
        covered = left
        if uptime.covered_ms is not None:
            covered = min(left, uptime.covered_ms)
        up = round(covered * uptime.percent / 100.0)
        self._answers.append(_Counted(mark, up, covered))
        del self._answers[:-KEPT_ANSWERS]
        durations = self._durations(window, excused_ms(request.excused, window))
        return UptimeReport(
            agent_id=agent_id,
            ping_id=request.ping_id,
            nonce=request.nonce,
            window=Window(
                since=now - timedelta(milliseconds=durations.window),
                until=now,
                seconds=durations.window / 1000,
                mark=mark,
            ),
            uptime_percent=durations.uptime_percent,
            seconds=durations.to_seconds(),
            gpu_available=uptime.gpu_available,
            agent_version=AGENT_VERSION,
            reported_at=now,
        )

    def _drop_counted(self, since_mark: str | None) -> None:
        """Drops what the scheduler has counted: all up to the answer that its mark names.

        After an answer that is not known here, nobody knows what was counted: all is dropped.
        """
        if since_mark is not None and since_mark == self._counted_mark:
            return
        counted = len(self._answers)
        for index, kept in enumerate(self._answers):
            if kept.mark == since_mark:
                counted = index + 1
        del self._answers[:counted]
        self._counted_mark = since_mark

    def _durations(self, window: int, excused: int) -> Durations:
        """What the kept answers say of the window, whose unknown rest is left out.

        Excused time is taken from the time that was down, then from that rest: the agent does not
        say when it was down, and maintenance is when it is expected to be.
        """
        covered = 0
        up = 0
        for kept in self._answers:
            part = min(kept.covered_ms, window - covered)
            covered += part
            up += min(kept.up_ms, part)
        down = covered - up
        of_down = min(excused, down)
        of_rest = min(excused - of_down, window - covered)
        of_up = excused - of_down - of_rest
        return Durations(
            up=up - of_up,
            down=down - of_down,
            excused=of_down + of_up,
        )


def excused_ms(spans: tuple[ExcusedSpan, ...], window: int) -> int:
    """Returns how much of the last `window` milliseconds is excused; overlaps count once."""
    ages = []
    for span in spans:
        if span.since_seconds_ago is None or span.until_seconds_ago is None:
            continue
        oldest = min(window, round(span.since_seconds_ago * 1000))
        newest = max(0, round(span.until_seconds_ago * 1000))
        if oldest > newest:
            ages.append((newest, oldest))
    ages.sort()
    total = 0
    reached = 0
    for newest, oldest in ages:
        total += max(0, oldest - max(newest, reached))
        reached = max(reached, oldest)
    return total
