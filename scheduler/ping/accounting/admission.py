"""Admission: the scheduler measures how long a window was, the host says what filled it.

The rule is stated in `docs/design/uptime-ledger.md`. Pure: no clock, no I/O. All times are whole
milliseconds; moments are milliseconds since 1970 on the scheduler's calendar.

Three things follow from it, whatever a host reports:

- windows tile enrolled time, because their ends are the scheduler's own measurements;
- the five durations of every row add up to the window, to the millisecond;
- no host has more good time than its worst expected GPU, and never more than passed.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from bus.contract.durations import UNBOUNDED, Durations, Interval
from bus.contract.expected_gpus import ALWAYS
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
ROUNDING_MS = 10  # of several rows that were scaled to the window

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
    expected: the GPUs that the operator expects of the host, and when: disjoint, in order. A GPU
        that is forgotten and expected again has several intervals.
    unheard: the time between the first and the last of two or more billed misses in this window.
    unheard_row: the misses in a row that the window ended with; `unheard` has the time of rows
        before it, too.
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
    expected: Mapping[str, tuple[Interval, ...]] = {}
    unheard: int = 0
    unheard_row: Interval = Interval(0, 0)
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
    admitted = _admit_gpus(scale, window, report, longest)
    if admitted is None:
        return Refused(MORE_TIME_THAN_PASSED)
    gpus = admitted.rows
    allowed = ROUNDING_MS
    if admitted.in_parts:
        # The report is scaled, and the time in which a GPU was expected is the operator's.
        allowed = scale.longer + scale.shorter
    host = _limited_by_losses(host, _most_lost(admitted.losses), scale, allowed)
    host = _limited_by_silence(host, scale)
    if scale.unheard > 0:
        measured = Interval(window.since, window.until)
        losses = []
        for uuid, row in gpus.items():
            limited = row if uuid in admitted.in_parts else _limited_by_silence(row, scale)
            gpus[uuid] = limited
            if limited.good < scale.judged:
                losses.append(_loss_of(limited, measured, scale))
        # A GPU of which more was forgiven has less left that silence may be taken from.
        host = _limited_by_losses(host, _most_lost(losses), scale, allowed)
    return Admitted(host, gpus, frozenset(scale.remarks))


class _AdmittedGpus(NamedTuple):
    """The rows of the expected GPUs, and what each of them lost.

    `in_parts` are those that were expected in parts of the window only.
    """

    rows: dict[str, Durations]
    losses: list["_Loss"]
    in_parts: set[str]


def _admit_gpus(
    scale: "_Scale",
    window: MeasuredWindow,
    report: ReportedTime,
    longest: int,
) -> _AdmittedGpus | None:
    """Returns None where a GPU's row holds more time than passed."""
    measured = Interval(window.since, window.until)
    admitted = _AdmittedGpus({}, [], set())
    for uuid, expected in window.expected.items():
        within = [measured]  # nearly every GPU is expected all the time
        if expected is not ALWAYS:
            within = _parts_within(expected, measured)
        if not within and scale.length > 0:
            continue
        fitted = None
        if uuid in report.gpus:
            state = report.states.get(uuid, "unknown")
            fitted = scale.fit(report.gpus[uuid], longest, state)
            if fitted is None:
                return None
        if not within or within[0] == measured:
            row = _whole_row(scale, fitted)
            losses = [_loss_of(row, measured, scale)] if row.good < scale.judged else []
        else:
            row = _partial_row(scale, window, within, fitted)
            losses = _losses_of_parts(row, within, window, scale, is_reported=fitted is not None)
            row = _limited_to(row, _unheard_within(within, window, scale), scale)
            admitted.in_parts.add(uuid)
        admitted.rows[uuid] = row
        admitted.losses.extend(losses)
    return admitted


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


def _parts_within(expected: Iterable[Interval], measured: Interval) -> list[Interval]:
    """Returns the parts of a window in which a GPU was expected; none of them is empty."""
    parts = []
    for interval in expected:
        part = interval.intersection(measured)
        if part.length > 0:
            parts.append(part)
    return parts


def _whole_row(scale: _Scale, fitted: Durations | None) -> Durations:
    """The time of a GPU that is expected throughout the window; None: it was not reported."""
    if fitted is None:
        scale.remarks.add(UNREPORTED)
        return Durations(down=scale.judged, excused=scale.excused)
    return fitted


def _partial_row(
    scale: _Scale,
    window: MeasuredWindow,
    within: Sequence[Interval],
    fitted: Durations | None,
) -> Durations:
    """The time of a GPU that is expected in some parts of the window."""
    excused = 0
    length = 0
    for part in within:
        excused += overlap(window.excused, part)
        length += part.length
    judged = min(scale.judged, length - excused)
    if fitted is None:
        scale.remarks.add(UNREPORTED)
        return Durations(down=judged, excused=excused)
    return _first_part(fitted, judged, excused)


def _first_part(
    row: Durations,
    length: int,
    excused: int,
) -> Durations:
    """The row cut to `length`.

    A report does not say when a GPU was good, so that it was good while it was expected.
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


class _Loss(NamedTuple):
    """Time within `interval` in which a GPU was not good, though it was expected there.

    `lost` includes `down`. Where it was within the interval is not known.
    """

    interval: Interval
    lost: int
    down: int


NO_LOSS = _Loss(Interval(0, 0), 0, 0)


def _loss_of(row: Durations, interval: Interval, scale: _Scale) -> _Loss:
    forgiven = max(0, row.excused - scale.excused)
    return _Loss(interval, row.down + row.unknown + forgiven, row.down)


def _losses_of_parts(
    row: Durations,
    within: Sequence[Interval],
    window: MeasuredWindow,
    scale: _Scale,
    *,
    is_reported: bool,
) -> list[_Loss]:
    """Returns where a GPU was not good that was expected in some parts of the window.

    One that was not reported was down in every part of it. Where our clock was set within the
    window, nobody knows which part was when.
    """
    if scale.stepped:
        return [_Loss(Interval(window.since, window.until), row.down + row.unknown, row.down)]
    if is_reported:
        hull = Interval(within[0].begin, within[-1].end)
        return [_Loss(hull, row.down + row.unknown, row.down)]
    losses = []
    left = row.down
    for part in within:
        down = min(left, part.length - overlap(window.excused, part))
        left -= down
        losses.append(_Loss(part, down, down))
    return losses


def _most_lost(losses: Sequence[_Loss]) -> _Loss:
    """Returns the most that the host lost: of one GPU, or of several that took turns.

    What GPUs lost at different times adds up. What they lost in one interval may have been at the
    same time, so that only the greatest loss counts.
    """
    ordered = sorted(losses, key=lambda loss: loss.interval.end)
    ends = [loss.interval.end for loss in ordered]
    most = [NO_LOSS]  # before each loss of `ordered`, and after the last
    for number, loss in enumerate(ordered):
        earlier = most[bisect_right(ends, loss.interval.begin, hi=number)]
        taken = _Loss(loss.interval, earlier.lost + loss.lost, earlier.down + loss.down)
        most.append(taken if taken.lost > most[-1].lost else most[-1])
    return most[-1]


def _limited_by_losses(host: Durations, most: _Loss, scale: _Scale, allowed: int) -> Durations:
    """No host is good while a GPU that it owes is not: the surplus becomes down, else unknown.

    It is said of a surplus above `allowed`: below that an honest report may have it.
    """
    surplus = host.good - max(0, scale.judged - most.lost)
    if surplus <= 0:
        return host
    if surplus > allowed:
        scale.remarks.add(GPUS_CONTRADICT_HOST)
    more_down = min(surplus, max(0, most.down - host.down))
    return _less_good(host, more_down, surplus - more_down)


def _limited_by_silence(row: Durations, scale: _Scale) -> Durations:
    """Of a time in which two pings or more in a row were missed, nothing counts as good."""
    return _limited_to(row, scale.unheard, scale)


def _limited_to(row: Durations, unheard: int, scale: _Scale) -> Durations:
    """Of the time of a row, so much was unheard."""
    if unheard == 0:
        return row
    surplus = row.good - max(0, row.judged - unheard)
    if surplus <= 0:
        return row
    scale.remarks.add(UNHEARD)
    return _less_good(row, 0, surplus)


def _unheard_within(within: Sequence[Interval], window: MeasuredWindow, scale: _Scale) -> int:
    """Returns how much unheard time may lie in some parts of the window.

    Of the rows of misses before the last one only the length is known, and that they were earlier.
    """
    if scale.unheard == 0:
        return 0
    last = window.unheard_row
    earlier = window.unheard - (last.length - overlap(window.excused, last))
    in_last = 0
    before_last = 0
    for part in within:
        of_last = part.intersection(last)
        in_last += of_last.length - overlap(window.excused, of_last)
        before_last += part.intersection(Interval(window.since, last.begin)).length
    return min(scale.unheard, in_last + min(earlier, before_last))


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
