"""Admission: the scheduler measures how long a window was, the host says what filled it.

The rule is stated in `docs/design/uptime-ledger.md`. Pure: no clock, no I/O. All times are whole
milliseconds; moments are milliseconds since 1970 on the scheduler's calendar.

Three things follow from it, whatever a host reports:

- windows tile enrolled time, because their ends are the scheduler's own measurements;
- the five durations of every row add up to the window, to the millisecond;
- no host has more good time than its worst expected GPU, and never more than passed.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from bus.contract.durations import UNBOUNDED, Durations, Interval
from bus.contract.messages import GpuState
from bus.contract.remarks import (
    CLOCK_DISAGREES,
    GPUS_CONTRADICT_HOST,
    STOOD_STILL,
    TIME_CUT,
    TIME_MISSING,
    UNHEARD,
    UNREPORTED,
)

SAME_CLOCK_MS = 50  # how far two measurements by one boot's CLOCK_BOOTTIME may be apart
OTHER_CLOCK_MS = 2_000  # the same for the wall clocks of two schedulers, or of two boots
PERCENT_TOLERANCE = 0.01  # between the reported percent and the reported seconds
ALWAYS = Interval(-UNBOUNDED, UNBOUNDED)  # the interval of a GPU that was expected all the time

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
    registration: how long before `since` the host may have told where its ledger stood: the time
        that a registration travels; 0 where the window begins at a ping.
    elapsed: the time between `since` and `until` by a clock that is never set (CLOCK_BOOTTIME of
        one boot, or the server's timestamps); None where another boot sent the previous ping and
        nothing contradicts the calendar.
    clamped: by how much the sender's own clock is ahead of the server's, whose time it uses then.
    excused: what this ping carried as excused: disjoint, in order.
    expected: the GPUs that the operator expects of the host, and when.
    unheard: the time between the first and the last of two or more billed misses in this window.
    stood_still: how long the scheduler itself did not run; so much unknown time is excused.
    """

    since: int
    until: int
    previous_answer: int = 0
    answer: int = 0
    registration: int = 0
    elapsed: int | None = None
    elapsed_by_server: int | None = None
    clamped: int = 0
    excused: tuple[Interval, ...] = ()
    expected: Mapping[str, Interval] = {}
    unheard: int = 0
    stood_still: int = 0


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
    scale = _Scale(window)
    if _all_are_alike(window, report):
        return _admit_alike(scale, window, report)
    return _admit_each(scale, window, report)


def _all_are_alike(window: MeasuredWindow, report: ReportedTime) -> bool:
    """Returns whether every expected GPU was expected all the time, and is as the host.

    That is the common case: one row then stands for all. A report of no known time is none, because
    it is completed by each GPU's present state.
    """
    host = report.host
    if host.good + host.down == 0:
        return False
    for uuid, expected in window.expected.items():
        if expected is not ALWAYS:
            return False
        row = report.gpus.get(uuid)
        if row is not host and row != host:
            return False
    return True


def _admit_alike(
    scale: "_Scale",
    window: MeasuredWindow,
    report: ReportedTime,
) -> Admitted | Refused:
    """Admits a report in which every expected GPU has the host's row."""
    host = scale.fit(report.host, report.host.window, "unknown")
    if host is None:
        return Refused(MORE_TIME_THAN_PASSED)
    host = _limited_by_silence(host, scale)
    gpus = dict.fromkeys(window.expected, host)
    return Admitted(host, gpus, frozenset(scale.remarks))


def _admit_each(
    scale: "_Scale",
    window: MeasuredWindow,
    report: ReportedTime,
) -> Admitted | Refused:
    """Admits any report, row by row."""
    longest = report.host.window
    for uuid in window.expected:
        if uuid in report.gpus:
            longest = max(longest, report.gpus[uuid].window)
    host_state = _worst_state(report.states, window.expected)
    host = scale.fit(report.host, longest, host_state)
    if host is None:
        return Refused(MORE_TIME_THAN_PASSED)
    gpus: dict[str, Durations] = {}
    for uuid, expected in window.expected.items():
        within = expected.intersection(Interval(window.since, window.until))
        if within.length == 0 and scale.length > 0:
            continue
        fitted = None
        if uuid in report.gpus:
            state = report.states.get(uuid, "unknown")
            fitted = scale.fit(report.gpus[uuid], longest, state)
            if fitted is None:
                return Refused(MORE_TIME_THAN_PASSED)
        gpus[uuid] = _gpu_row(scale, window, within, fitted)
    host = _limited_by_gpus(host, gpus.values(), scale)
    host = _limited_by_silence(host, scale)
    for uuid, row in gpus.items():
        gpus[uuid] = _limited_by_silence(row, scale)
    if scale.unheard > 0:
        # A GPU of which more was forgiven has less left that silence may be taken from.
        host = _limited_by_gpus(host, gpus.values(), scale)
    return Admitted(host, gpus, frozenset(scale.remarks))


def share_out(parts: Sequence[int], length: int) -> list[int]:
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
    return shares


def overlap(intervals: Iterable[Interval], within: Interval) -> int:
    """Returns how much of `within` the disjoint intervals cover."""
    covered = 0
    for interval in intervals:
        covered += interval.intersection(within).length
    return covered


class _Scale:
    """The measured window in numbers, and how a reported row is fitted to it."""

    __slots__ = (
        "booked",
        "excused",
        "judged",
        "length",
        "longer",
        "most_known",
        "passed",
        "remarks",
        "shorter",
        "stepped",
        "stood_still",
        "unheard",
    )

    def __init__(self, window: MeasuredWindow) -> None:
        self.remarks: set[str] = set()
        passed = window.until - window.since
        length = max(0, passed)
        most = passed
        error = OTHER_CLOCK_MS
        if window.elapsed is not None:
            passed = window.elapsed
            most = passed
            error = SAME_CLOCK_MS
        elif window.elapsed_by_server is not None:
            by_server = window.elapsed_by_server
            passed = max(0, min(passed, by_server))
            most = max(most, by_server)
            if by_server < 0:
                # The server's clock was set back: by none of our clocks is any report too long.
                most = UNBOUNDED
        if window.elapsed is None:
            # Where the server's clock was set back, the calendar follows it, and the sender's own
            # clock shows that more may have passed. No host's report is too long by that.
            most = max(most, window.until - window.since + window.clamped)
        # A step of the scheduler's own clock made time that nobody lived through. It is excused.
        stepped = 0
        if length - passed > OTHER_CLOCK_MS:
            stepped = length - passed
        booked = 0
        if window.excused:
            calendar = Interval(window.since, window.until - stepped)
            booked = overlap(window.excused, calendar)
        self.length = length
        self.passed = passed
        self.stepped = stepped
        self.booked = booked
        self.excused = booked + stepped
        self.judged = length - self.excused
        self.stood_still = window.stood_still
        # The schedulers' calendar tells how long ago a miss was, so that a step makes silence, too.
        self.unheard = max(0, window.unheard - stepped)
        slack = max(0, passed) // 1000 + error
        self.longer = window.answer + window.registration + slack
        self.shorter = window.previous_answer + slack
        # NTP clients correct a clock by up to 8.3 %. Scaled down, that gains nobody anything.
        self.most_known = most + self.longer + max(0, most) // 10

    def fit(
        self,
        row: Durations,
        reported_length: int,
        state_now: GpuState,
    ) -> Durations | None:
        """Returns the row at the length of the window; None where it holds more time than passed.

        The row is filled with unknown time up to `reported_length`, the longest of the report. What
        the host calls excused is not asked: the rest of its time must fill what was not excused.
        """
        known = row.up + row.degraded + row.down
        if known > self.most_known:
            return None
        unknown = reported_length - known - row.excused
        unknown = self._fitted_unknown(known, unknown)
        total = known + unknown
        if total == 0:
            # Nothing was said of a stretch that the tolerance explains: it is as it is now.
            return _all_in(state_now, self.judged, self.excused)
        if row.up == total:
            return Durations(self.judged, 0, 0, 0, self.excused)
        forgiven = min(unknown, self.stood_still)
        if forgiven:
            self.remarks.add(STOOD_STILL)
        parts = (row.up, row.degraded, row.down, unknown - forgiven, forgiven)
        up, degraded, down, unknown, forgiven = share_out(parts, self.judged)
        return Durations(up, degraded, down, unknown, self.excused + forgiven)

    def _fitted_unknown(self, known: int, unknown: int) -> int:
        """Cuts or fills unknown time where the report is longer or shorter than tolerated."""
        excess = known + unknown - (self.passed - self.booked)
        if excess > self.longer:
            remark = CLOCK_DISAGREES
            if unknown >= excess:
                remark = TIME_CUT
            self.remarks.add(remark)
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


def _all_in(
    state: GpuState,
    length: int,
    excused: int,
) -> Durations:
    """A row of which everything that is judged was in one state."""
    match state:
        case "up":
            return Durations(up=length, excused=excused)
        case "degraded":
            return Durations(degraded=length, excused=excused)
        case "down":
            return Durations(down=length, excused=excused)
        case "unknown":
            return Durations(unknown=length, excused=excused)


def _gpu_row(
    scale: _Scale,
    window: MeasuredWindow,
    within: Interval,
    fitted: Durations | None,
) -> Durations:
    """The time of one expected GPU, which is expected in `within`; None: it was not reported."""
    excused = scale.excused
    length = scale.judged
    is_whole = within.begin <= window.since and within.end >= window.until
    if not is_whole:
        excused = overlap(window.excused, within)
        length = min(scale.judged, within.length - excused)
    if fitted is None:
        scale.remarks.add(UNREPORTED)
        return Durations(down=length, excused=excused)
    if is_whole:
        return fitted
    return _first_part(fitted, length, excused)


def _first_part(
    row: Durations,
    length: int,
    excused: int,
) -> Durations:
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


def _limited_by_gpus(
    host: Durations,
    gpus: Iterable[Durations],
    scale: _Scale,
) -> Durations:
    """No host is good while a GPU that it owes is not: the surplus becomes down, else unknown."""
    worst = Durations()
    most_lost = 0
    for row in gpus:
        forgiven = max(0, row.excused - scale.excused)
        lost = row.down + row.unknown + forgiven
        if lost > most_lost:
            worst = row
            most_lost = lost
    surplus = host.good - (scale.judged - most_lost)
    if surplus <= 0:
        return host
    if surplus > 10:  # below that it is rounding
        scale.remarks.add(GPUS_CONTRADICT_HOST)
    more_down = min(surplus, max(0, worst.down - host.down))
    return _less_good(host, more_down, surplus - more_down)


def _limited_by_silence(row: Durations, scale: _Scale) -> Durations:
    """Of a time in which two pings or more in a row were missed, nothing counts as good."""
    if scale.unheard == 0:
        return row
    surplus = row.good - max(0, row.judged - scale.unheard)
    if surplus <= 0:
        return row
    scale.remarks.add(UNHEARD)
    return _less_good(row, 0, surplus)


def _less_good(
    row: Durations,
    more_down: int,
    more_unknown: int,
) -> Durations:
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
