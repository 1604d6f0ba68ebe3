"""Whether what was accounted for agrees with the report, and whether windows tile.

The scheduler measures the window and fits the report into it (docs/design/uptime-ledger.md). It may
take time from a host, and says so in a remark; it never makes any up.
"""

from collections.abc import Iterator
from typing import Any

from gpuping.verification.records import Recorded, Times

MILLISECONDS = 1000
PERCENT_TOLERANCE = 0.001
SUM_TOLERANCE_MS = 10
# Within this the report is scaled to the measured window: 0.1 % and 2 s, and the answer's time.
SCALED_SHARE = 0.001
SCALED_MS = 2_000
REGISTRATION_MS = 3_000
# These remarks say that a report was changed beyond that, and never in favour of its uptime.
LOWERED = frozenset(
    {
        "clock_disagrees",
        "time_cut",
        "time_missing",
        "unreported",
        "gpus_contradict_host",
        "unheard",
        "stood_still",
    }
)


def times_of(seconds: Any) -> Times | None:
    """Returns the milliseconds of a report's `seconds`; None where they are none."""
    if not isinstance(seconds, dict):
        return None
    values = []
    for state in Times._fields:
        value = seconds.get(state, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            return None
        values.append(round(value * MILLISECONDS))
    return Times(*values)


def check_report(report: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong within a report."""
    times = times_of(report.get("seconds", {}))
    window = report.get("window")
    length = window.get("seconds") if isinstance(window, dict) else None
    if times is None or isinstance(length, bool) or not isinstance(length, int | float):
        yield "its seconds or its window cannot be read"
        return
    if abs(times.total - length * MILLISECONDS) > SUM_TOLERANCE_MS:
        yield f"its seconds add up to {times.total / 1000:.3f}, its window has {length:.3f}"


def check_row(
    recorded: Recorded,
    report: dict[str, Any] | None,
    slack_ms: float,
) -> Iterator[str]:
    """Yields where the row of an answered ping contradicts itself or the report.

    `slack_ms`: how long the answers of this ping and of the one before it took.
    """
    times = recorded.times
    if times is None:
        yield "nothing is accounted for, though it was answered"
        return
    if recorded.since_us is not None:
        length_ms = (recorded.pinged_us - recorded.since_us) // 1000
        if times.total != length_ms:
            total = _seconds(times.total)
            yield f"its row adds up to {total}, its window has {_seconds(length_ms)}"
    if recorded.uptime_percent is not None and times.judged > 0:
        percent = 100.0 * times.good / times.judged
        if abs(percent - recorded.uptime_percent) > PERCENT_TOLERANCE:
            yield f"its row says {recorded.uptime_percent:.3f} %, its seconds {percent:.3f} %"
    yield from _check_gpus(recorded, times)
    if report is not None:
        reported = times_of(report.get("seconds", {}))
        if reported is not None:
            yield from _compare(recorded, times, reported, slack_ms)


def _compare(
    recorded: Recorded,
    times: Times,
    reported: Times,
    slack_ms: float,
) -> Iterator[str]:
    """Yields where a row has more than its report, or something else without a remark."""
    slack = SCALED_MS + REGISTRATION_MS + slack_ms + SCALED_SHARE * times.total
    if times.good > reported.good + slack:
        yield f"its row has {_seconds(times.good)} of uptime, its report {_seconds(reported.good)}"
    if LOWERED & set(recorded.remarks):
        return
    for state, mine, its in zip(Times._fields, times, reported, strict=True):
        if abs(mine - its) > slack:
            yield f"its row has {_seconds(mine)} {state}, its report {_seconds(its)}"


def _check_gpus(recorded: Recorded, times: Times) -> Iterator[str]:
    for uuid, row in recorded.gpus.items():
        if row.total > times.total:
            yield f"GPU {uuid} has {_seconds(row.total)}, its host {_seconds(times.total)}"
        if row.total == times.total and row.good < times.good:
            yield f"its host has more uptime than its GPU {uuid}"


class Tiling:
    """Whether the windows of one agent follow each other without overlap or gap."""

    def __init__(self) -> None:
        self._end_us: int | None = None
        self._last_number: int | None = None
        self._number_missing = False

    def add(self, recorded: Recorded) -> Iterator[tuple[str, bool]]:
        """Takes the next outcome. Yields what is to be said, and whether it is wrong."""
        if self._last_number is not None:
            if recorded.ping_seq == self._last_number:
                yield "its number is there twice", True
            elif recorded.ping_seq < self._last_number:
                last = self._last_number
                yield f"its number comes after ping {last}: numbering began anew", False
                self._end_us = None
            elif recorded.ping_seq > self._last_number + 1:
                self._number_missing = True
        self._last_number = recorded.ping_seq
        if not recorded.counts:
            return
        since_us = recorded.since_us
        if self._end_us is not None and since_us is not None:
            # History has the window's end to the microsecond, and its length in milliseconds.
            gap_ms = round((since_us - self._end_us) / 1000)
            if gap_ms < 0:
                yield f"its window begins {-gap_ms / 1000:.3f} s before the last one ended", True
            elif gap_ms > 0 and self._number_missing:
                yield f"{gap_ms / 1000:.3f} s before its window were lost on our side", False
            elif gap_ms > 0:
                yield f"{gap_ms / 1000:.3f} s before its window are not enrolled time", False
        self._end_us = recorded.pinged_us
        self._number_missing = False


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f} s"
