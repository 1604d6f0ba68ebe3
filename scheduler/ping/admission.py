"""Admission: the scheduler measures how long a window was, the host says what filled it.

The rule is stated in `docs/design/uptime-ledger.md`. Pure: no clock, no I/O. All times are whole
milliseconds; moments are milliseconds since 1970 on the scheduler's calendar.

Three things follow from it, whatever a host reports:

- windows tile enrolled time, because their ends are the scheduler's own measurements;
- the five durations of every row add up to the window, to the millisecond;
- no host has more good time than its worst expected GPU, and never more than passed.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from bus.contract.durations import FAR, Durations, Interval
from bus.contract.messages import GpuState

SAME_CLOCK_MS = 50  # how far two measurements by one boot's CLOCK_BOOTTIME may be apart
OTHER_CLOCK_MS = 2_000  # the same for the wall clocks of two schedulers, or of two boots
PERCENT_TOLERANCE = 0.01  # between the reported percent and the reported seconds
ALWAYS = Interval(-FAR, FAR)  # the interval of a GPU that was expected all the time

# What is said about an admitted report. None of these refuses it.
CLOCK_DISAGREES = "clock_disagrees"  # more known time than passed: scaled down
TIME_CUT = "time_cut"  # more unknown time than passed: cut
TIME_MISSING = "time_missing"  # less time than passed: filled with unknown
UNREPORTED = "unreported"  # an expected GPU is not in the report: down
GPUS_CONTRADICT_HOST = "gpus_contradict_host"  # the host was said to be better than its GPUs
UNHEARD = "unheard"  # between two billed misses nothing counts as up

# Why a report is refused. The ping then counts as missed, and the report is kept as evidence.
PERCENT_CONTRADICTS_SECONDS = "percent_contradicts_seconds"
MORE_TIME_THAN_PASSED = "more_time_than_passed"

_BEST_FIRST = ("up", "degraded", "unknown", "down")


class MeasuredWindow(Struct, frozen=True, kw_only=True):
    """What the scheduler knows of a window before it reads the report.

    since: when the previous answered ping was first sent, or the enrolment if that is later.
    until: when this ping was first sent; `since` again where the calendar ran backwards.
    previous_answer: how long the previous answered ping's answer took; 0 after an enrolment.
    answer: how long this answer took.
    elapsed: the time between `since` and `until` by a clock that is never set (CLOCK_BOOTTIME of
        one boot, or the server's timestamps); None where another boot sent the previous ping and
        nothing contradicts the calendar.
    excused: what this ping carried as excused: disjoint, in order.
    expected: the GPUs that the operator expects of the host, and when.
    unheard: the time between the first and the last of two or more billed misses in this window.
    """

    since: int
    until: int
    previous_answer: int = 0
    answer: int = 0
    elapsed: int | None = None
    elapsed_by_server: int | None = None
    excused: tuple[Interval, ...] = ()
    expected: Mapping[str, Interval] = {}
    unheard: int = 0


class ReportedTime(Struct, frozen=True, kw_only=True):
    """What a host says of the window. `states` are the GPUs' states at the time of the report."""

    host: Durations
    gpus: Mapping[str, Durations]
    states: Mapping[str, GpuState]
    uptime_percent: float | None


class Admitted(Struct, frozen=True):
    """The window as it is accounted.

    Every row adds up to the time that its GPU was expected in it.
    """

    host: Durations
    gpus: dict[str, Durations]
    remarks: frozenset[str] = frozenset()


class Refused(Struct, frozen=True):
    """The report cannot have happened; `reason` says why."""

    reason: str


def admit(window: MeasuredWindow, report: ReportedTime) -> Admitted | Refused:
    """Fits a report into the window that was measured, or refuses it."""
    if not _percent_agrees(report):
        return Refused(PERCENT_CONTRADICTS_SECONDS)
    scale = _Scale(window, report)
    host_state = _worst_state(report.states, window.expected)
    host = scale.fit(report.host, host_state)
    if host is None:
        return Refused(MORE_TIME_THAN_PASSED)
    gpus: dict[str, Durations] = {}
    for uuid, expected in window.expected.items():
        within = expected.intersection(Interval(window.since, window.until))
        if within.length == 0 and scale.length > 0:
            continue
        row = _gpu_row(scale, report, uuid, within)
        if row is None:
            return Refused(MORE_TIME_THAN_PASSED)
        gpus[uuid] = row
    host = _limited_by_gpus(host, gpus.values(), scale)
    host = _limited_by_silence(host, scale)
    for uuid, row in gpus.items():
        gpus[uuid] = _limited_by_silence(row, scale)
    return Admitted(host, gpus, frozenset(scale.remarks))


def share_out(parts: tuple[int, int, int, int], length: int) -> tuple[int, int, int, int]:
    """Divides `length` in proportion to the parts, whose sum is above 0.

    Running totals are rounded, so the result adds up exactly, and of two rows of one length the one
    with more good time never ends with less of it.
    """
    total = sum(parts)
    shares = []
    running = 0
    edge = 0
    for part in parts:
        running += part
        next_edge = (2 * running * length + total) // (2 * total)
        shares.append(next_edge - edge)
        edge = next_edge
    return (shares[0], shares[1], shares[2], shares[3])


def overlap(intervals: Iterable[Interval], within: Interval) -> int:
    """Returns how much of `within` the disjoint intervals cover."""
    covered = 0
    for interval in intervals:
        covered += interval.intersection(within).length
    return covered


class _Scale:
    """The measured window in numbers, and how a reported row is fitted to it."""

    def __init__(self, window: MeasuredWindow, report: ReportedTime) -> None:
        self.window = window
        self.remarks: set[str] = set()
        self.length = max(0, window.until - window.since)
        passed = window.until - window.since
        most = passed
        error = OTHER_CLOCK_MS
        if window.elapsed is not None:
            passed = window.elapsed
            most = window.elapsed
            error = SAME_CLOCK_MS
        elif window.elapsed_by_server is not None:
            passed = max(0, min(passed, window.elapsed_by_server))
            most = max(most, window.elapsed_by_server)
            if window.elapsed_by_server < 0:
                # The server's clock was set back: by none of our clocks is any report too long.
                most = FAR
        self.passed = passed
        # A step of the scheduler's own clock made time that nobody lived through. It is excused.
        self.stepped = 0
        if abs(self.length - passed) > OTHER_CLOCK_MS:
            self.stepped = max(0, self.length - passed)
        calendar = Interval(window.since, window.until - self.stepped)
        self.booked = overlap(window.excused, calendar)
        self.judged = self.length - self.stepped - self.booked
        # The schedulers' calendar tells how long ago a miss was, so that a step makes silence, too.
        self.unheard = max(0, window.unheard - self.stepped)

        slack = max(0, passed) // 1000 + error
        self.longer = window.answer + slack
        self.shorter = window.previous_answer + slack
        # NTP clients correct a clock by up to 8.3 %. Scaled down, that gains nobody anything.
        self.most_known = most + self.longer + max(0, most) // 10

        reported = [report.host]
        for uuid in window.expected:
            if uuid in report.gpus:
                reported.append(report.gpus[uuid])
        self.reported_length = max(row.window for row in reported)

    def fit(self, row: Durations, state_now: GpuState) -> Durations | None:
        """Returns the row at the length of the window; None where it holds more time than passed.

        What the host calls excused is not asked: the rest of its time must fill what was not
        excused.
        """
        known = row.good + row.down
        if known > self.most_known:
            return None
        unknown = row.unknown + self.reported_length - row.window
        unknown = self._fitted_unknown(known, unknown)
        parts = (row.up, row.degraded, row.down, unknown)
        if sum(parts) == 0:
            # Nothing was said of a stretch that the tolerance explains: it is as it is now.
            parts = _one_of(state_now)
        up, degraded, down, unknown = share_out(parts, self.judged)
        return Durations(up, degraded, down, unknown, self.booked + self.stepped)

    def _fitted_unknown(self, known: int, unknown: int) -> int:
        """Cuts or fills the unknown time of a report that is outside the tolerance."""
        excess = known + unknown - (self.passed - self.booked)
        if excess > self.longer:
            self.remarks.add(TIME_CUT if unknown >= excess else CLOCK_DISAGREES)
            return max(0, unknown - excess)
        if -excess > self.shorter:
            self.remarks.add(TIME_MISSING)
            return unknown - excess
        return unknown


def _percent_agrees(report: ReportedTime) -> bool:
    computed = report.host.uptime_percent
    if computed is None or report.uptime_percent is None:
        return computed is None and report.uptime_percent is None
    return abs(computed - report.uptime_percent) <= PERCENT_TOLERANCE


def _worst_state(states: Mapping[str, GpuState], expected: Iterable[str]) -> GpuState:
    """The host is as its worst expected GPU; unknown where none is expected."""
    worst: GpuState | None = None
    for uuid in expected:
        state: GpuState = states.get(uuid, "down")
        if worst is None or _BEST_FIRST.index(state) > _BEST_FIRST.index(worst):
            worst = state
    return worst or "unknown"


def _one_of(state: GpuState) -> tuple[int, int, int, int]:
    return (
        int(state == "up"),
        int(state == "degraded"),
        int(state == "down"),
        int(state == "unknown"),
    )


def _gpu_row(scale: _Scale, report: ReportedTime, uuid: str, within: Interval) -> Durations | None:
    """The time of one expected GPU; None where it reports more than passed."""
    window = scale.window
    is_whole = within.begin <= window.since and within.end >= window.until
    if is_whole:
        excused = scale.booked + scale.stepped
        length = scale.judged
    else:
        excused = overlap(window.excused, within)
        length = min(scale.judged, within.length - excused)
    if uuid not in report.gpus:
        scale.remarks.add(UNREPORTED)
        return Durations(down=length, excused=excused)
    row = scale.fit(report.gpus[uuid], report.states.get(uuid, "unknown"))
    if row is None or is_whole:
        return row
    return _first_part(row, length, excused)


def _first_part(row: Durations, length: int, excused: int) -> Durations:
    """The row cut to `length`.

    A GPU that came or went once has its good time within that length.
    """
    up_end = min(length, row.up)
    degraded_end = min(length, row.up + row.degraded)
    down_end = min(length, row.up + row.degraded + row.down)
    return Durations(
        up=up_end,
        degraded=degraded_end - up_end,
        down=down_end - degraded_end,
        unknown=length - down_end,
        excused=excused,
    )


def _limited_by_gpus(host: Durations, gpus: Iterable[Durations], scale: _Scale) -> Durations:
    """No host is good while a GPU that it owes is not: the surplus becomes down, else unknown."""
    worst = Durations()
    for row in gpus:
        if row.down + row.unknown > worst.down + worst.unknown:
            worst = row
    surplus = host.good - (scale.judged - worst.down - worst.unknown)
    if surplus <= 0:
        return host
    if surplus > 10:  # below that it is rounding
        scale.remarks.add(GPUS_CONTRADICT_HOST)
    more_down = min(surplus, max(0, worst.down - host.down))
    return _less_good(host, more_down, surplus - more_down)


def _limited_by_silence(row: Durations, scale: _Scale) -> Durations:
    """Of a time in which two pings or more in a row were missed, nothing counts as good."""
    surplus = row.good - max(0, row.judged - scale.unheard)
    if surplus <= 0:
        return row
    scale.remarks.add(UNHEARD)
    return _less_good(row, 0, surplus)


def _less_good(row: Durations, more_down: int, more_unknown: int) -> Durations:
    """Moves good time to down and unknown; degraded time goes first only as far as it must."""
    good = row.good - more_down - more_unknown
    degraded = min(row.degraded, good)
    return Durations(
        up=good - degraded,
        degraded=degraded,
        down=row.down + more_down,
        unknown=row.unknown + more_unknown,
        excused=row.excused,
    )
