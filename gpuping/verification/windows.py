"""Whether what was accounted for agrees with the report, and whether windows tile.

The scheduler measures the window and fits the report into it (docs/design/uptime-ledger.md). It may
take time from a host, and says so in a remark; it never makes any up.
"""

from collections.abc import Iterator
from typing import Any

from gpuping.verification.fields import is_number
from gpuping.verification.records import Observation, Recorded, Times, fault, note

SCHEMA_VERSION = 1
MILLISECONDS = 1000
PERCENT_TOLERANCE = 0.001
SUM_TOLERANCE_MS = 10
# Within this the report is scaled to the measured window: 0.1 % and 2 s, and the answer's time.
SCALED_SHARE = 0.001
SCALED_MS = 2_000
REGISTRATION_MS = 3_000
# No fleet's PING_RESPONSE_TIMEOUT_SECONDS is longer, so no answer that counts took longer.
LONGEST_ANSWER_MS = 3_600_000
STOOD_STILL = "stood_still"
CLOCK_DISAGREES = "clock_disagrees"
# A report was cut or filled, because by the fleet's clocks another time passed.
CUT = frozenset({CLOCK_DISAGREES, "time_cut", "time_missing"})
JUDGED = ("up", "degraded", "down", "unknown")
# These remarks say that a report was changed beyond that, and never in favour of its uptime.
LOWERED = frozenset(
    {
        CLOCK_DISAGREES,
        "time_cut",
        "time_missing",
        "unreported",
        "gpus_contradict_host",
        "unheard",
        STOOD_STILL,
    }
)


def times_of(seconds: Any) -> Times | None:
    """Returns the milliseconds of a report's `seconds`; None where they are none."""
    if not isinstance(seconds, dict):
        return None
    values = []
    for state in Times._fields:
        value = seconds.get(state, 0.0)
        if not is_number(value):
            return None
        values.append(round(value * MILLISECONDS))
    return Times(*values)


def check_report(report: dict[str, Any]) -> Iterator[str]:
    """Yields what is wrong within a report."""
    version = report.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        yield f"its report has the unknown schema_version {version}"
        return
    times = times_of(report.get("seconds", {}))
    length = None
    window = report.get("window")
    if isinstance(window, dict):
        length = window.get("seconds")
    if times is None or length is None or not is_number(length):
        yield "its seconds or its window cannot be read"
        return
    if abs(times.total - length * MILLISECONDS) > SUM_TOLERANCE_MS:
        yield f"its seconds add up to {times.total / 1000:.3f}, its window has {length:.3f}"


def check_row(
    recorded: Recorded,
    report: dict[str, Any] | None,
    slack_ms: float,
    gap_ms: int = 0,
) -> Iterator[Observation]:
    """Yields where the row of an answered ping contradicts itself or the report.

    `slack_ms`: how long the answers of this ping and of the one before it took. `gap_ms`: how long
    before its window the one before ended.
    """
    times = recorded.times
    if times is None:
        yield fault("nothing is accounted for, though it was answered")
        return
    if recorded.since_us is None:
        # Every version that has signed reports measures windows.
        if report is not None:
            yield fault("its window is not there, though its report is signed")
    else:
        length_ms = (recorded.pinged_us - recorded.since_us) // 1000
        if times.total != length_ms:
            total = _seconds(times.total)
            yield fault(f"its row adds up to {total}, its window has {_seconds(length_ms)}")
    if recorded.uptime_percent is not None and times.judged > 0:
        percent = 100.0 * times.good / times.judged
        if abs(percent - recorded.uptime_percent) > PERCENT_TOLERANCE:
            said = f"{recorded.uptime_percent:.3f} %"
            yield fault(f"its row says {said}, its seconds {percent:.3f} %")
    if recorded.response_ms > LONGEST_ANSWER_MS:
        response_seconds = recorded.response_ms / 1000
        yield fault(f"its answer took {response_seconds:.0f} s: no fleet waits so long")
    for text in _check_gpus(recorded, times):
        yield fault(text)
    if report is not None:
        yield from _compare(recorded, times, report, slack_ms, gap_ms)


def _compare(
    recorded: Recorded,
    times: Times,
    report: dict[str, Any],
    slack_ms: float,
    gap_ms: int,
) -> Iterator[Observation]:
    """Yields where a row has more than its report, or something else without a remark."""
    reported = times_of(report.get("seconds", {}))
    if reported is None:
        return
    of_gpus = _reported_gpus(report)
    # The shorter rows of a report are filled with unknown time up to its longest.
    longest = reported.total
    for gpu in of_gpus.values():
        longest = max(longest, gpu.total)
    reported = reported._replace(unknown=reported.unknown + longest - reported.total)
    allowed = SCALED_MS + REGISTRATION_MS + min(slack_ms, 2 * LONGEST_ANSWER_MS)
    slack = allowed + SCALED_SHARE * times.total
    for text in _uptime_made_up(times, reported, recorded, slack):
        yield fault(f"its row has {text}")
    yield from _compare_length(times, reported, recorded, slack, gap_ms)
    for uuid, row in recorded.gpus.items():
        its = of_gpus.get(uuid)
        if its is not None:
            for text in _uptime_made_up(row, its, recorded, slack):
                yield fault(f"GPU {uuid} has {text}")
        elif row.good > slack:
            yield fault(f"GPU {uuid} has {_seconds(row.good)} of uptime, and is not in its report")
    if not LOWERED & set(recorded.remarks):
        yield from _compare_states(times, reported, slack)


def _compare_states(
    times: Times,
    reported: Times,
    slack: float,
) -> Iterator[Observation]:
    """Yields where a state differs. A report that is longer or shorter fills the window in part."""
    factor = 1.0
    if reported.judged > slack:
        factor = times.judged / reported.judged
    for state, mine, its in zip(JUDGED, times, reported, strict=False):
        if abs(mine - its * factor) > slack:
            yield fault(f"its row has {_seconds(mine)} {state}, its report {_seconds(its)}")


def _uptime_made_up(
    row: Times,
    reported: Times,
    recorded: Recorded,
    slack: float,
) -> Iterator[str]:
    """Yields where the row of a host or a GPU has more uptime than its report.

    Within the slack a report is stretched to the window, all states by one factor: an hour that was
    half down stays half down.
    """
    remarks = set(recorded.remarks)
    most = reported.good + slack
    window = recorded.times or row
    if reported.judged > slack:
        length = window.judged
        if STOOD_STILL in remarks:
            length = window.total
        stretched = reported.good * max(1.0, length / reported.judged)
        tolerance: float = SUM_TOLERANCE_MS
        if CUT & remarks:
            tolerance = slack  # what is left of it is stretched as well
        most = min(most, stretched + tolerance)
    if row.good > most:
        yield f"{_seconds(row.good)} of uptime, its report {_seconds(reported.good)}"


def _compare_length(
    times: Times,
    reported: Times,
    recorded: Recorded,
    slack: float,
    gap_ms: int,
) -> Iterator[Observation]:
    """Yields where more is excused than the host was told, and where the window is another's.

    A step of the fleet's own clock makes or takes time that no host can know of. Time that it made
    is excused. Time that it took leaves no gap between windows.
    """
    remarks = set(recorded.remarks)
    surplus = times.excused - reported.excused
    if STOOD_STILL in remarks:
        surplus -= reported.unknown
    longer = times.total - reported.total
    if surplus > slack:
        is_explained = surplus <= max(0, longer) + slack or bool(CUT & remarks)
        excused = _seconds(times.excused)
        text = f"its row has {excused} excused, its report {_seconds(reported.excused)}"
        if is_explained:
            text += ": the rest is maintenance or a step of the fleet's clock"
            yield note(text)
        else:
            yield fault(text)
    elif longer < -slack and not LOWERED & remarks:
        text = f"its window is {_seconds(-longer)} shorter than that of its report"
        yield Observation(text, is_fault=gap_ms > 0)


def _reported_gpus(report: dict[str, Any]) -> dict[str, Times]:
    """The times of each GPU of a report, by UUID."""
    found: dict[str, Times] = {}
    gpus = report.get("gpus")
    if not isinstance(gpus, list):
        return found
    for gpu in gpus:
        if not isinstance(gpu, dict) or not isinstance(gpu.get("uuid"), str):
            continue
        times = times_of(gpu.get("seconds", {}))
        if times is not None:
            found[gpu["uuid"]] = times
    return found


def _check_gpus(recorded: Recorded, times: Times) -> Iterator[str]:
    for uuid, row in recorded.gpus.items():
        if row.total > times.total:
            yield f"GPU {uuid} has {_seconds(row.total)}, its host {_seconds(times.total)}"
        if row.total == times.total and row.good < times.good:
            yield f"its host has more uptime than its GPU {uuid}"


class Tiling:
    """Whether the windows of one agent follow each other without overlap or gap."""

    def __init__(self) -> None:
        self.gap_ms = 0  # between the newest window and the one before
        self._end_us: int | None = None
        self._last_number: int | None = None
        self._number_missing = False

    def add(self, recorded: Recorded) -> Iterator[Observation]:
        """Takes the next outcome. Yields what is to be said about its place."""
        if self._last_number is not None:
            if recorded.ping_seq == self._last_number:
                yield fault("its number is there twice")
            elif recorded.ping_seq < self._last_number:
                last = self._last_number
                yield note(f"its number comes after ping {last}: numbering began anew")
                self._end_us = None
            elif recorded.ping_seq > self._last_number + 1:
                self._number_missing = True
                missing = _numbers(self._last_number + 1, recorded.ping_seq - 1)
                yield note(f"before it {missing} not in the file")
        self._last_number = recorded.ping_seq
        if not recorded.counts:
            return
        since_us = recorded.since_us
        self.gap_ms = 0
        if self._end_us is not None and since_us is not None:
            # History has the window's end to the microsecond, and its length in milliseconds.
            gap_ms = round((since_us - self._end_us) / 1000)
            self.gap_ms = gap_ms
            if gap_ms < 0:
                yield fault(f"its window begins {-gap_ms / 1000:.3f} s before the last one ended")
            elif gap_ms > 0 and self._number_missing:
                yield note(f"{gap_ms / 1000:.3f} s before its window were lost on our side")
            elif gap_ms > 0:
                yield note(f"{gap_ms / 1000:.3f} s before its window are not enrolled time")
        self._end_us = recorded.pinged_us
        self._number_missing = False


def _numbers(first: int, last: int) -> str:
    if first == last:
        return f"ping {first} is"
    return f"pings {first} to {last} are"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f} s"
