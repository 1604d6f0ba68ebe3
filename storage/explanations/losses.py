"""Charges the time in which a host was not up to GPUs and reasons, to the millisecond. Pure.

A report has sums by state, and incidents with labels of the agent's clock. The sums count; the
incidents only say how a sum is divided. What no incident explains is charged to the GPU that has
most of it, without a reason or with the remark that admission made.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from bus.contract.durations import Durations, Interval
from bus.contract.explanations import LostState
from bus.contract.remarks import GPUS_CONTRADICT_HOST, TIME_MISSING, UNHEARD, UNREPORTED
from storage.statements.gaps import Gap
from storage.statements.incident_merging import CLOCK_JITTER_US
from storage.statements.windows import TOLERANCE_MS, ReportWindow, not_up_intervals, share_within

# The remarks that say why time is unknown or down though no incident does.
EXPLAINING_REMARKS = (UNHEARD, TIME_MISSING, UNREPORTED, GPUS_CONTRADICT_HOST)


class Charge(NamedTuple):
    """Whom a loss is charged to."""

    gpu: str | None
    state: LostState
    reason: str | None


class ChargedLoss(Struct, frozen=True):
    """Time that was lost within an interval (microseconds), and whom it is charged to."""

    charge: Charge
    interval: Interval
    lost_ms: int


class _Part(Struct, frozen=True):
    """A part of a loss before it is weighed: how long an incident lasted in it."""

    charge: Charge
    interval: Interval
    weight: int


def charged_losses(
    windows: Iterable[ReportWindow],
    remarks: Mapping[int, Sequence[str]],
    enrolled: Sequence[Interval],
) -> list[ChargedLoss]:
    """Returns the losses within the enrolled time, in order of time.

    An incident that goes on from one report to the next is one loss. `remarks` are by ping_seq.
    """
    merged = _LossList()
    for window in windows:
        if window.host.down == 0 and window.host.unknown == 0:
            continue
        for interval in enrolled:
            if not window.interval.overlaps(interval):
                continue
            share = share_within(window, None, interval).durations
            inside = window.interval.intersection(interval)
            noted = remarks.get(window.ping_seq, ())
            for loss in _of_window(window, share, inside, noted):
                merged.add(loss)
    return merged.losses


def unreported_losses(
    gaps: Iterable[Gap],
    enrolled: Sequence[Interval],
    unreported_ms: int,
    reasons: Sequence[tuple[int, str]],
) -> list[ChargedLoss]:
    """Returns the time that nothing accounts for, which adds up to `unreported_ms`.

    `reasons` has the time of each missed ping and its reason. What no gap explains has the whole
    enrolled time as its interval.
    """
    if unreported_ms <= 0 or not enrolled:
        return []
    parts = []
    for gap in gaps:
        if gap.kind != "unreported":
            continue
        reason = _reason_within(gap.interval, reasons)
        for interval in enrolled:
            inside = gap.interval.intersection(interval)
            if inside.length > 0:
                charge = Charge(None, "unreported", reason)
                parts.append(_Part(charge, inside, inside.length))
    whole = Interval(enrolled[0].begin, enrolled[-1].end)
    rest = Charge(None, "unreported", None)
    return _weighed(parts, unreported_ms, ChargedLoss(rest, whole, 0))


def _of_window(
    window: ReportWindow,
    share: Durations,
    inside: Interval,
    remarks: Sequence[str],
) -> list[ChargedLoss]:
    losses = []
    states: tuple[LostState, ...] = ("down", "unknown")
    timeline = not_up_intervals(window, None)
    for state in states:
        lost_ms = getattr(share, state)
        if lost_ms == 0:
            continue
        parts = []
        for one in timeline:
            part = Interval(one.begin_us, one.end_us).intersection(inside)
            if one.state == state and part.length > 0:
                charge = Charge(one.incident.gpu, state, one.incident.reason)
                parts.append(_Part(charge, part, part.length))
        rest = ChargedLoss(_unexplained(window, state, remarks), inside, 0)
        losses += _weighed(parts, lost_ms, rest)
    losses.sort(key=_begin)
    return losses


def _weighed(
    parts: Sequence[_Part],
    lost_ms: int,
    rest: ChargedLoss,
) -> list[ChargedLoss]:
    """Divides the lost time among the parts, by their weights in microseconds.

    Parts that are longer than what was lost share it in proportion. Parts that are shorter keep
    their length, and the remainder is `rest` where it is more than what is lost by rounding.
    """
    weights_us = sum(part.weight for part in parts)
    divided_ms = lost_ms
    rounding_ms = TOLERANCE_MS * max(1, len(parts))  # each part is an incident, rounded by itself
    if weights_us // 1000 + rounding_ms < lost_ms:
        divided_ms = weights_us // 1000
    losses = []
    running_us = 0
    given_ms = 0
    for part in parts:
        running_us += part.weight
        edge_ms = divided_ms * running_us // weights_us
        if edge_ms > given_ms:
            losses.append(ChargedLoss(part.charge, part.interval, edge_ms - given_ms))
        given_ms = edge_ms
    if lost_ms > given_ms:
        losses.append(replace(rest, lost_ms=lost_ms - given_ms))
    return losses


def _unexplained(
    window: ReportWindow,
    state: LostState,
    remarks: Sequence[str],
) -> Charge:
    """Returns whom time is charged to that no incident explains.

    It is the GPU that has most of it, unless all GPUs have as much.
    """
    spent = {uuid: getattr(own, state) for uuid, own in window.gpus.items()}
    gpu = None
    if len(set(spent.values())) > 1:
        gpu = max(spent, key=spent.__getitem__)
    if gpu is not None and window.gpu_reasons.get(gpu):
        return Charge(gpu, state, window.gpu_reasons[gpu][0])
    for remark in EXPLAINING_REMARKS:
        if remark in remarks:
            return Charge(gpu, state, remark)
    return Charge(gpu, state, None)


def _reason_within(interval: Interval, reasons: Sequence[tuple[int, str]]) -> str | None:
    """Returns the reason of the first miss within the interval, its end included."""
    for at_us, reason in reasons:
        if interval.begin <= at_us <= interval.end:
            return reason
    return None


def _begin(loss: ChargedLoss) -> int:
    return loss.interval.begin


class _LossList:
    """Losses in order of time; one that goes on is put together with its beginning."""

    def __init__(self) -> None:
        self.losses: list[ChargedLoss] = []
        self._last: dict[Charge, int] = {}  # index of the last loss of each charge

    def add(self, loss: ChargedLoss) -> None:
        index = self._last.get(loss.charge)
        if index is not None:
            before = self.losses[index]
            if loss.interval.begin <= before.interval.end + CLOCK_JITTER_US:
                end = max(before.interval.end, loss.interval.end)
                self.losses[index] = ChargedLoss(
                    charge=loss.charge,
                    interval=Interval(before.interval.begin, end),
                    lost_ms=before.lost_ms + loss.lost_ms,
                )
                return
        self._last[loss.charge] = len(self.losses)
        self.losses.append(loss)


def total_by_charge(losses: Iterable[ChargedLoss]) -> dict[Charge, list[ChargedLoss]]:
    """Returns the losses of each charge, the costliest charge first."""
    by_charge: dict[Charge, list[ChargedLoss]] = {}
    for loss in losses:
        by_charge.setdefault(loss.charge, []).append(loss)
    costs: dict[Charge, int] = {}
    for charge, charged in by_charge.items():
        costs[charge] = sum(loss.lost_ms for loss in charged)
    cheapest_first = sorted(costs, key=costs.__getitem__)
    return {charge: by_charge[charge] for charge in reversed(cheapest_first)}
