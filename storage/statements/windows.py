"""One report's window, and how much of its time lies within an interval. Pure.

A report holds sums by state and no timeline. A window with one state throughout is divided exactly.
A window with several states is divided by its incidents, where these account for every millisecond.
Otherwise every state is divided in proportion, and the statement says so. The parts of a window
always add up to the whole. Excused time is divided where the maintenance was, and the rest of the
window as if that time had not been.
"""

from datetime import datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.durations import Durations, Interval
from bus.contract.messages import Incident
from storage.engine.rows import EXCUSED, microseconds

Method = Literal["exact", "prorated"]
STATES = ("up", "degraded", "down", "unknown", "excused")
TOLERANCE_MS = 3  # incidents are rounded to the millisecond at each end
_WORST_FIRST = ("down", "unknown", "degraded")


class PingKey(NamedTuple):
    """Which ping of an agent it is.

    Several have one time where our own clock was set back: the windows of the later ones are empty.
    """

    pinged_us: int
    ping_seq: int


class ReportWindow(Struct, frozen=True):
    """What one report accounts for, by host and by GPU. `interval` is in microseconds by our clock.

    `clock_stepped`: the agent's clock was set during the window, so that its labels do not say when
    anything was. `measured`: the scheduler measured the interval, and the durations add up to it.
    `gpu_reasons` are those that GPUs had at the end of it.
    """

    ping_seq: int
    interval: Interval
    host: Durations
    gpus: dict[str, Durations]
    incidents: tuple[Incident, ...] = ()
    clock_stepped: bool = False
    measured: bool = False
    gpu_reasons: dict[str, tuple[str, ...]] = {}


class WindowShare(Struct, frozen=True):
    """The part of a window's durations that lies within an interval, and how it was found."""

    durations: Durations
    method: Method


class NotUp(NamedTuple):
    """A part of a window that was not up, and the incident that it is charged to."""

    begin_us: int
    end_us: int
    state: str
    incident: Incident


def share_within(
    window: ReportWindow,
    gpu: str | None,
    interval: Interval,
) -> WindowShare:
    """Returns the part of one GPU's durations within the interval; None stands for the host."""
    whole = window.host
    if gpu is not None:
        whole = window.gpus[gpu]
    if interval.covers(window.interval):
        return WindowShare(whole, "exact")
    to_end = _share_before(window, gpu, whole, interval.end)
    to_begin = _share_before(window, gpu, whole, interval.begin)
    method: Method = "prorated"
    if to_end.method == "exact" and to_begin.method == "exact":
        method = "exact"
    between = to_end.durations - to_begin.durations
    return WindowShare(without_negative(between), method)


def without_negative(part: Durations) -> Durations:
    """Rounding may leave a state a millisecond below zero: another state gives it back."""
    values = {state: getattr(part, state) for state in STATES}
    for state, value in values.items():
        if value < 0:
            richest = max(values, key=values.__getitem__)
            values[richest] += value
            values[state] = 0
    return Durations(**values)


def _share_before(
    window: ReportWindow,
    gpu: str | None,
    whole: Durations,
    at_us: int,
) -> WindowShare:
    if at_us <= window.interval.begin:
        return WindowShare(Durations(), "exact")
    if at_us >= window.interval.end:
        return WindowShare(whole, "exact")
    part_us = at_us - window.interval.begin
    if whole.excused and not _has_one_state(whole):
        excused_us = _excused_before(window, whole, at_us)
        if excused_us is not None:
            return _share_beside_excused(whole, part_us, window.interval.length, excused_us)
    prorate = prorated_measured if window.measured else _prorated
    prorated = prorate(whole, part_us, window.interval.length)
    if _has_one_state(whole):
        return WindowShare(prorated, "exact")
    timeline = not_up_intervals(window, gpu)
    if not _labels_are_reliable(window, whole) or not _explains(timeline, whole):
        return WindowShare(prorated, "prorated")
    return WindowShare(_spent_before(at_us, window, timeline, whole), "exact")


def _excused_before(window: ReportWindow, whole: Durations, at_us: int) -> int | None:
    """Returns how much of the time before a moment was excused; None where nothing says so."""
    total_us = 0
    before_us = 0
    for incident in window.incidents:
        if incident.state == EXCUSED:
            begin_us = _clipped(window, incident.since)
            end_us = _clipped(window, incident.until)
            total_us += end_us - begin_us
            before_us += max(0, min(end_us, at_us) - begin_us)
    if total_us != whole.excused * 1000 or not window.measured:
        return None
    return before_us


def _share_beside_excused(
    whole: Durations,
    part_us: int,
    length_us: int,
    excused_us: int,
) -> WindowShare:
    """Divides what is not excused over the time that is not; exact where it has one state."""
    rest = replace(whole, excused=0)
    rest_part_us = part_us - excused_us
    share = prorated_measured(rest, rest_part_us, length_us - whole.excused * 1000)
    # what is excused is whole milliseconds but where it is cut
    excused_ms = part_us // 1000 - share.window
    method: Method = "prorated"
    if _has_one_state(rest):
        method = "exact"
    return WindowShare(replace(share, excused=excused_ms), method)


def _has_one_state(whole: Durations) -> bool:
    states = 0
    for state in STATES:
        if getattr(whole, state):
            states += 1
    return states <= 1


def _labels_are_reliable(
    window: ReportWindow,
    whole: Durations,
) -> bool:
    """Returns whether the times of incidents say when each state was.

    They do not say when excused time was: that is asked before.
    """
    if whole.excused or window.clock_stepped:
        return False
    length_ms = window.interval.length // 1000
    return abs(length_ms - whole.window) <= TOLERANCE_MS


def _explains(
    timeline: list[NotUp],
    whole: Durations,
) -> bool:
    """Returns whether the timeline has as much of every state as the report accounts for."""
    for state in _WORST_FIRST:
        found_ms = _microseconds_of(timeline, state) // 1000
        if abs(found_ms - getattr(whole, state)) > TOLERANCE_MS:
            return False
    return True


def _spent_before(
    at_us: int,
    window: ReportWindow,
    timeline: list[NotUp],
    whole: Durations,
) -> Durations:
    """Returns the durations before a moment by the timeline; what is not on it was up."""
    not_up_us = 0
    not_up_ms: dict[str, int] = {}
    for state in _WORST_FIRST:
        spent_us = _microseconds_of(timeline, state, until_us=at_us)
        not_up_us += spent_us
        not_up_ms[state] = min(spent_us // 1000, getattr(whole, state))
    if window.measured:
        return _filled_up(not_up_ms, whole, (at_us - window.interval.begin) // 1000)
    up_ms = (at_us - window.interval.begin - not_up_us) // 1000
    return Durations(up=min(whole.up, up_ms), **not_up_ms)


def _filled_up(
    spent_ms: dict[str, int],
    whole: Durations,
    part_ms: int,
) -> Durations:
    """Returns durations that add up to the part: the rest was up, as far as the whole was.

    What the whole has no room for goes to the states that have room.
    """
    left_ms = part_ms - sum(spent_ms.values())
    filled = dict(spent_ms)
    for state in ("up", *_WORST_FIRST):
        room_ms = getattr(whole, state) - filled.get(state, 0)
        more_ms = min(room_ms, left_ms)
        filled[state] = filled.get(state, 0) + more_ms
        left_ms -= more_ms
    return Durations(**filled)


def _prorated(
    whole: Durations,
    part_us: int,
    length_us: int,
) -> Durations:
    """Returns every state in proportion, rounded down.

    Rounding down keeps every state from shrinking as the moment moves on, so that no part is
    negative.
    """
    return Durations(
        up=whole.up * part_us // length_us,
        degraded=whole.degraded * part_us // length_us,
        down=whole.down * part_us // length_us,
        unknown=whole.unknown * part_us // length_us,
        excused=whole.excused * part_us // length_us,
    )


def prorated_measured(
    whole: Durations,
    part_us: int,
    length_us: int,
) -> Durations:
    """Returns every state in proportion, so that they add up to the part.

    Running totals are rounded down, not the states themselves.
    """
    shares = {}
    running = 0
    edge_ms = 0
    for state in STATES:
        running += getattr(whole, state)
        next_edge_ms = running * part_us // length_us
        shares[state] = next_edge_ms - edge_ms
        edge_ms = next_edge_ms
    return Durations(**shares)


def not_up_intervals(
    window: ReportWindow,
    gpu: str | None,
) -> list[NotUp]:
    """Returns when one GPU was not up; for the host, the worst state of all GPUs.

    Of several incidents of that state at once the one that began first is charged.
    """
    reported = []
    for incident in window.incidents:
        concerned = gpu is None or incident.gpu in {gpu, None}
        if concerned and incident.state in _WORST_FIRST:
            begin_us = _clipped(window, incident.since)
            end_us = _clipped(window, incident.until)
            reported.append(NotUp(begin_us, end_us, incident.state, incident))
    reported.sort(key=_worst_and_first)
    edges_us: set[int] = set()
    for one in reported:
        edges_us |= {one.begin_us, one.end_us}
    timeline = []
    for begin_us, end_us in pairwise(sorted(edges_us)):
        for one in reported:
            if one.begin_us <= begin_us and end_us <= one.end_us:
                timeline.append(NotUp(begin_us, end_us, one.state, one.incident))
                break
    return timeline


def _worst_and_first(one: NotUp) -> tuple[int, datetime, str]:
    return _WORST_FIRST.index(one.state), one.incident.since, one.incident.gpu or ""


def is_explained(window: ReportWindow, gpu: str | None) -> bool:
    """Returns whether the incidents say when each state of the window was."""
    whole = window.host
    if gpu is not None:
        whole = window.gpus[gpu]
    timeline = not_up_intervals(window, gpu)
    return _labels_are_reliable(window, whole) and _explains(timeline, whole)


def _clipped(window: ReportWindow, at: datetime | None) -> int:
    if at is None:
        return window.interval.end
    at_us = max(microseconds(at), window.interval.begin)
    return min(at_us, window.interval.end)


def _microseconds_of(
    timeline: list[NotUp],
    state: str,
    until_us: int | None = None,
) -> int:
    spent_us = 0
    for one in timeline:
        if one.state != state:
            continue
        end_us = one.end_us
        if until_us is not None:
            end_us = min(end_us, until_us)
        spent_us += max(0, end_us - one.begin_us)
    return spent_us
