"""The window of a ping: where the scheduler measures that it lies, and the report admitted into it.

Pure. It translates between the messages, which have timestamps and seconds, and the admission rule,
which has whole milliseconds.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from bus.contract.durations import Durations, Interval
from bus.contract.expected_gpus import ALWAYS, expected_spans
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    ExcusedSpan,
    GpuTime,
    Span,
    UptimeReport,
)
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.admission import (
    OTHER_CLOCK_MS,
    Admitted,
    MeasuredWindow,
    Refused,
    ReportedTime,
    admit,
)
from scheduler.ping.accounting.silence import (
    heard_late,
    is_last_miss,
    last_row,
    of_enrolment,
    unheard_milliseconds,
)
from scheduler.ping.accounting.timestamps import milliseconds, moment

# How old a host's registration may be when the enrolment begins: the host waits for its answer no
# longer (agentd/messaging/registration.py).
REGISTRATION_MS = 3_000


class WindowStart(NamedTuple):
    """The moment at which a window begins.

    `clocks` and `mark`, the ledger position, are None where they are not known. `at_enrolment`: it
    is the enrolment, and not the last answered ping.
    """

    since: datetime
    clocks: AnsweredPing | None
    mark: str | None
    at_enrolment: bool


def window_start(tracked: Tracked) -> WindowStart | None:
    """Returns where the next window begins: at the last answered ping, or the enrolment if later.

    Returns None for an agent that has neither. After a refused report the mark is not used again:
    if it is wrong, every later report that begins at it would be refused as well.
    """
    state = tracked.state
    entry = tracked.entry
    is_refused = is_mark_refused(state, None if entry is None else entry.enrolled_at)
    if state is not None and state.last_answered_at is not None:
        answered_at = state.last_answered_at
        if entry is None or answered_at >= entry.enrolled_at:
            mark = None if is_refused else state.since_mark
            return WindowStart(answered_at, state.answered_ping, mark, False)
    if entry is None:
        return None
    mark = None if is_refused else entry.mark
    return WindowStart(entry.enrolled_at, entry.enrolled_clocks, mark, True)


def is_mark_refused(state: AgentState | None, enrolled_at: datetime | None) -> bool:
    """Whether a report since the mark of this enrolment was refused.

    What was refused before an agent was removed says nothing about the mark that it brought when it
    was registered again.
    """
    if state is None or not state.mark_refused:
        return False
    return enrolled_at is None or state.last.pinged_at >= enrolled_at


def seconds_passed(
    start: WindowStart,
    sent: AnsweredPing,
    pinged_at: datetime,
) -> float:
    """Returns how long a window truly was, by the best clock that there is.

    The calendar counts only where another boot sent the ping before: it may have been set
    meanwhile.
    """
    elapsed = _elapsed(start.clocks, sent)
    if elapsed is not None:
        return max(0, elapsed) / 1000
    return (pinged_at - start.since).total_seconds()


def expected_intervals(
    entry: AgentEntry | None,
    report: UptimeReport,
) -> dict[str, tuple[Interval, ...]]:
    """Returns when each GPU is expected of the host, in milliseconds since 1970.

    The intervals of a GPU are disjoint and in order: it may be forgotten and expected again, also
    within one window. Before any GPU is expected, the host's own report says which ones are: it is
    the first.
    """
    if entry is None or not (entry.expected_gpus or entry.gpu_changes):
        return {gpu.uuid: ALWAYS for gpu in report.gpus}
    if not entry.gpu_changes:
        return dict.fromkeys(entry.expected_gpus, ALWAYS)
    changed = expected_spans(entry.gpu_changes)
    unchanged = [uuid for uuid in entry.expected_gpus if uuid not in changed]
    return dict.fromkeys(unchanged, ALWAYS) | changed


def _never(_began: float, _ended: float) -> float:
    return 0.0


def measured_window(  # noqa: PLR0913  # what each part knows of the window
    tracked: Tracked,
    start: WindowStart | None,
    report: UptimeReport,
    sent: AnsweredPing,
    pinged_at: datetime,
    excused: tuple[ExcusedSpan, ...],
    *,
    believes_unheard: bool,
    clamped_ms: int = 0,
    stood_still: Callable[[float, float], float] = _never,
) -> MeasuredWindow:
    """Returns what the scheduler knows of the window of an answered ping.

    `start` is where the window began when the ping was sent. `sent` is the ping that was answered
    now; the one before it is in the agent's state.
    `clamped_ms`: by how much our clock was ahead of the server's, whose time was used then.
    `stood_still`: how many seconds this scheduler did not run between two moments.
    """
    until = milliseconds(pinged_at)
    since = until
    previous = None
    registration = 0
    standstill = 0.0
    if start is not None:
        pinged_before = sent.boottime - seconds_passed(start, sent, pinged_at)
        standstill = _standstill_seconds(tracked, start, pinged_before, sent, stood_still)
        since = milliseconds(start.since)
        previous = start.clocks
        if start.at_enrolment:
            registration = REGISTRATION_MS
    booked = excused_intervals(excused, until)
    unheard = 0
    unheard_row = Interval(0, 0)
    if not believes_unheard and tracked.state is not None and tracked.state.silence is not None:
        enrolled_at = None
        if start is not None and start.at_enrolment:
            enrolled_at = start.since
        silence = of_enrolment(tracked.state.silence, enrolled_at)
        answered_late = is_last_miss(tracked.state, tracked.late_ping_id)
        silence = heard_late(silence, answered_late=answered_late, booked=booked)
        unheard = unheard_milliseconds(silence, booked)
        unheard_row = last_row(silence)
    return MeasuredWindow(
        since=min(since, until),
        until=until,
        previous_answer=0 if previous is None else round(previous.answer_ms),
        answer=round(sent.answer_ms),
        registration=registration,
        elapsed=_elapsed(previous, sent),
        elapsed_by_server=_elapsed_by_server(previous, sent, until - since),
        clamped=clamped_ms,
        excused=booked,
        expected=expected_intervals(tracked.entry, report),
        unheard=unheard,
        unheard_row=unheard_row,
        stood_still=round(standstill * 1000),
    )


def _standstill_seconds(
    tracked: Tracked,
    start: WindowStart,
    pinged_before: float,
    sent: AnsweredPing,
    stood_still: Callable[[float, float], float],
) -> float:
    """Returns how long this scheduler did not run while the time passed that a report tells of.

    The report before this one ended somewhere between its ping (`pinged_before`, by boottime) and
    its answer. Nobody knows where, so that this report may tell of a standstill in between, as far
    as the last outcome has not excused it already.
    """
    begin = pinged_before
    if start.at_enrolment:
        begin -= REGISTRATION_MS / 1000
    answered_before = pinged_before
    if start.clocks is not None:
        answered_before += start.clocks.answer_ms / 1000
    standstill = stood_still(begin, answered_before)
    if standstill and tracked.state is not None and tracked.state.last.seconds is not None:
        standstill = max(0.0, standstill - tracked.state.last.seconds.excused)
    return standstill + stood_still(answered_before, sent.boottime + sent.answer_ms / 1000)


def excused_spans(window: MeasuredWindow) -> tuple[Span, ...]:
    """Returns when the excused time of the window was, on the schedulers' calendar."""
    measured = Interval(window.since, window.until)
    spans = []
    for interval in window.excused:
        within = interval.intersection(measured)
        if within.length > 0:
            spans.append(Span(moment(within.begin), moment(within.end)))
    return tuple(spans)


def admit_report(window: MeasuredWindow, report: UptimeReport) -> Admitted | Refused:
    """Applies the admission rule to a report as it came."""
    host = Durations.from_seconds(report.seconds)
    gpus: dict[str, Durations] = {}
    states = {}
    for gpu in report.gpus:
        row = host
        if gpu.seconds != report.seconds:
            row = Durations.from_seconds(gpu.seconds)
        gpus[gpu.uuid] = row
        states[gpu.uuid] = gpu.state
    reported = ReportedTime(
        host=host,
        gpus=gpus,
        states=states,
        uptime_percent=report.uptime_percent,
    )
    return admit(window, reported)


def gpu_times(admitted: Admitted, report: UptimeReport) -> tuple[GpuTime, ...]:
    """Returns the admitted time of each expected GPU.

    Empty where the report has exactly the expected GPUs and all have the host's own time, so that
    nothing would be said that the report and the host's time do not say.
    """
    if _says_nothing_new(admitted, report):
        return ()
    times = []
    for uuid, row in admitted.gpus.items():
        times.append(GpuTime(uuid, row.to_seconds()))
    return tuple(times)


def _says_nothing_new(admitted: Admitted, report: UptimeReport) -> bool:
    host = admitted.host
    if len(report.gpus) != len(admitted.gpus):
        return False
    for gpu in report.gpus:
        row = admitted.gpus.get(gpu.uuid)
        if row is None or (row is not host and row != host):
            return False
    return True


def _elapsed(previous: AnsweredPing | None, sent: AnsweredPing) -> int | None:
    """Returns the time between both pings by CLOCK_BOOTTIME; None where two boots sent them."""
    if previous is None or previous.boot_id != sent.boot_id:
        return None
    return round((sent.boottime - previous.boottime) * 1000)


def _elapsed_by_server(
    previous: AnsweredPing | None,
    sent: AnsweredPing,
    calendar: int,
) -> int | None:
    """Returns the time between both pings by the server's clock, where two boots sent them.

    `calendar` is the same time by the wall clocks of the schedulers. Returns None where the two
    agree within OTHER_CLOCK_MS: the server's clock is then no better than theirs.
    """
    if previous is None or previous.boot_id == sent.boot_id:
        return None
    if previous.bus_time is None or sent.bus_time is None:
        return None
    by_server = milliseconds(sent.bus_time) - milliseconds(previous.bus_time)
    if abs(by_server - calendar) > OTHER_CLOCK_MS:
        return by_server
    return None


def excused_intervals(excused: tuple[ExcusedSpan, ...], until: int) -> tuple[Interval, ...]:
    """Returns what the ping that was sent at `until` excused, on the calendar in milliseconds.

    Overlaps are merged; the intervals are in order.
    """
    if not excused:
        return ()
    given = []
    for span in excused:
        if span.since_seconds_ago is None or span.until_seconds_ago is None:
            continue
        begin = until - round(span.since_seconds_ago * 1000)
        end = until - round(span.until_seconds_ago * 1000)
        given.append(Interval(begin, min(end, until)))
    given.sort(key=lambda interval: interval.begin)
    merged: list[Interval] = []
    for interval in given:
        if merged and interval.begin <= merged[-1].end:
            merged[-1] = Interval(merged[-1].begin, max(merged[-1].end, interval.end))
        else:
            merged.append(interval)
    return tuple(merged)
