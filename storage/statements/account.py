"""Adds up one agent's month, from windows of reports to the accounts of a statement. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct, structs

from bus.contract.durations import Durations, Interval, uptime_percent
from bus.contract.expected_gpus import expected_spans
from bus.contract.messages import GpuChange, Incident
from bus.contract.statements import Account, GpuAccount, Split
from storage.engine.bounds import FIRST_US
from storage.engine.rows import from_microseconds, microseconds
from storage.statements.gaps import Gap
from storage.statements.incident_merging import IncidentList
from storage.statements.windows import (
    ReportWindow,
    prorated_measured,
    share_within,
    without_negative,
)

ROUNDING_MS = 3  # both ends of a window are rounded, so a shorter gap is not unreported time


class GpuName(Struct, frozen=True):
    """A GPU's index in its host and its model; the index is None where nobody reported one."""

    index: int | None
    name: str


UNNAMED = GpuName(None, "")


class GpuTotals(Struct, frozen=True):
    """One GPU's durations, and the interval in which it was in the host, in microseconds.

    `unreported_ms` is None where it is what the durations leave of that interval.
    """

    durations: Durations
    present: Interval
    unreported_ms: int | None = None


class MonthTotals(Struct, frozen=True):
    """What the windows add up to within the enrolled time; time whose outcome was lost is excused.

    `history_lost` are the intervals of that time.
    """

    host: Durations
    gpus: dict[str, GpuTotals]
    splits: list[Split]
    incidents: list[Incident]
    history_lost: list[Interval] = []


def month_interval(month: str) -> Interval:
    """Returns a calendar month (`2026-10`, UTC) in microseconds."""
    year, number = map(int, month.split("-"))
    following_year, following_number = year, number + 1
    if number == 12:
        following_year, following_number = year + 1, 1
    begin = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(following_year, following_number, 1, tzinfo=UTC)
    return Interval(microseconds(begin), microseconds(end))


def month_totals(
    windows: Sequence[ReportWindow],
    enrolled: list[Interval],
    gaps: Sequence[Gap] = (),
    gpu_changes: Sequence[GpuChange] = (),
) -> MonthTotals:
    """Adds up the windows, in order of time, and the gaps between them.

    A window that crosses an edge of the enrolled time is divided there. `gpu_changes` are those of
    the registry, oldest first: no window says what changed in a gap.
    """
    host = Durations()
    incidents = IncidentList()
    splits: list[Split] = []
    counted: list[ReportWindow] = []
    present_before: Iterable[str] = ()
    for index, window in enumerate(windows):
        if not _overlapping(window, enrolled):
            continue
        if not counted:
            present_before = windows[max(0, index - 1)].gpus
        counted.append(window)
        host += durations_within(window, None, enrolled)
        incidents.add_report(window.incidents, window.interval.end)
        for interval in enrolled:
            splits += _splits(window, interval)
    if windows and all(window.measured for window in windows):
        gpus = _measured_gpu_totals(windows, enrolled, gaps, gpu_changes)
    else:
        gpus = _gpu_totals(counted, set(present_before), enrolled)
    lost = _lost_within(gaps, enrolled)
    host += Durations(excused=_milliseconds_of(lost))
    return MonthTotals(host, gpus, splits, incidents.within(enrolled), lost)


def durations_within(
    window: ReportWindow,
    gpu: str | None,
    intervals: Iterable[Interval],
) -> Durations:
    """Returns the part of one GPU's durations within the intervals; None stands for the host."""
    durations = Durations()
    for interval in _overlapping(window, intervals):
        durations += share_within(window, gpu, interval).durations
    return durations


def _lost_within(gaps: Iterable[Gap], enrolled: list[Interval]) -> list[Interval]:
    """Returns the enrolled parts of the time whose outcome was lost."""
    lost = []
    for gap in gaps:
        if gap.kind == "history_lost":
            parts = [gap.interval.intersection(interval) for interval in enrolled]
            lost += [part for part in parts if part.length > 0]
    return lost


def _milliseconds_of(intervals: Iterable[Interval]) -> int:
    return sum(interval.length // 1000 for interval in intervals)


def accountable_ms(
    durations: Durations,
    intervals: Iterable[Interval],
    *,
    measured: bool = False,
) -> int:
    """Returns the milliseconds to account for.

    They are the length of the intervals, or that of the reports where these fill the intervals.

    The ends of a window are labels of another clock, rounded, so that the two differ by a few
    milliseconds. Where the windows were `measured`, nothing differs.
    """
    length_ms = 0
    for interval in intervals:
        length_ms += interval.length // 1000
    if measured:
        return length_ms
    if length_ms <= durations.window + ROUNDING_MS:
        return durations.window
    return length_ms


def to_account(durations: Durations, enrolled_ms: int) -> Account:
    """Returns the account of so much enrolled time.

    Time that no report covers is judged and is not up.
    """
    unreported_ms = max(0, enrolled_ms - durations.window)
    coverage_percent = None
    if enrolled_ms:
        coverage_percent = min(100.0, 100.0 * durations.window / enrolled_ms)
    return Account(
        seconds=durations.to_seconds(),
        unreported_seconds=unreported_ms / 1000,
        coverage_percent=coverage_percent,
        uptime_percent=uptime_percent(durations.good, durations.judged + unreported_ms),
    )


def gpu_accounts(
    totals: MonthTotals,
    enrolled: list[Interval],
    names: dict[str, GpuName],
) -> tuple[GpuAccount, ...]:
    """Returns an account of each GPU, by index.

    One that came or went is accounted for while it was there.
    """
    accounts = []
    for uuid, gpu in totals.gpus.items():
        present = [interval.intersection(gpu.present) for interval in enrolled]
        present_ms = accountable_ms(gpu.durations, present)
        if gpu.unreported_ms is not None:
            present_ms = gpu.durations.window + gpu.unreported_ms
        account = to_account(gpu.durations, present_ms)
        known = names.get(uuid, UNNAMED)
        accounts.append(
            GpuAccount(
                uuid=uuid,
                name=known.name,
                index=known.index,
                enrolled_seconds=present_ms / 1000,
                **structs.asdict(account),
            )
        )
    accounts.sort(key=_by_index)
    return tuple(accounts)


def _by_index(account: GpuAccount) -> tuple[bool, int, str]:
    """Orders by index; GPUs without one come last."""
    return account.index is None, account.index or 0, account.uuid


def _gpu_totals(
    windows: list[ReportWindow],
    present_before: set[str],
    enrolled: list[Interval],
) -> dict[str, GpuTotals]:
    """Adds up each GPU's windows, and finds when it was there.

    A GPU of the first report was there from the beginning, unless the report before it did not have
    the GPU (`present_before`). A GPU of the last report stays to the end.
    """
    totals: dict[str, GpuTotals] = {}
    for index, window in enumerate(windows):
        end_us = window.interval.end
        if index == len(windows) - 1:
            end_us = enrolled[-1].end
        for uuid in window.gpus:
            durations = durations_within(window, uuid, enrolled)
            known = totals.get(uuid)
            if known is not None:
                present = Interval(known.present.begin, end_us)
                totals[uuid] = GpuTotals(known.durations + durations, present)
            elif index == 0 and uuid in present_before:
                present = Interval(enrolled[0].begin, end_us)
                totals[uuid] = GpuTotals(durations, present)
            else:
                totals[uuid] = _added_gpu(window, durations, end_us)
    return totals


def _measured_gpu_totals(
    windows: Sequence[ReportWindow],
    enrolled: list[Interval],
    gaps: Sequence[Gap],
    gpu_changes: Sequence[GpuChange],
) -> dict[str, GpuTotals]:
    """Adds up each GPU's windows, whose rows have the time in which the GPU was expected.

    A gap is accounted to the GPUs of the host that were expected in it.
    """
    everything = Interval(enrolled[0].begin, enrolled[-1].end) if enrolled else Interval(0, 0)
    spans = _spans_of_changes(gpu_changes)
    durations: dict[str, Durations] = {}
    unreported: Counter[str] = Counter()
    for window in windows:
        if _overlapping(window, enrolled):
            for uuid in window.gpus:
                share = _gpu_share(window, uuid, enrolled, spans.get(uuid, ()))
                durations[uuid] = durations.get(uuid, Durations()) + share
    for gap in gaps:
        for uuid, expected in _expected_within(gap.interval, windows, spans).items():
            parts = [one.intersection(other) for one in expected for other in enrolled]
            gap_ms = _milliseconds_of(parts)
            if gap_ms == 0:
                continue
            known = durations.get(uuid, Durations())
            if gap.kind == "history_lost":
                durations[uuid] = known + Durations(excused=gap_ms)
            else:
                durations[uuid] = known
                unreported[uuid] += gap_ms
    totals = {}
    for uuid, spent in durations.items():
        totals[uuid] = GpuTotals(spent, everything, unreported[uuid])
    return totals


def _spans_of_changes(gpu_changes: Sequence[GpuChange]) -> dict[str, list[Interval]]:
    """Returns when each GPU was expected that an operator ever changed, in microseconds."""
    spans: dict[str, list[Interval]] = {}
    for uuid, of_gpu in expected_spans(gpu_changes).items():
        spans[uuid] = [Interval(span.begin * 1000, span.end * 1000) for span in of_gpu]
    return spans


def _expected_within(
    gap: Interval,
    windows: Sequence[ReportWindow],
    spans: Mapping[str, list[Interval]],
) -> dict[str, list[Interval]]:
    """Returns which GPUs were expected in a gap, and when.

    Of a GPU that an operator ever changed the registry knows it (`spans`). The others are as they
    were at the end of the window before the gap.
    """
    expected = {uuid: [gap] for uuid in _expected_at(gap.begin, windows)}
    for uuid, of_gpu in spans.items():
        expected[uuid] = [span.intersection(gap) for span in of_gpu]
    return expected


def _gpu_share(
    window: ReportWindow,
    uuid: str,
    intervals: Sequence[Interval],
    spans: Sequence[Interval],
) -> Durations:
    """Returns the part of a GPU's durations within the intervals.

    The row of a GPU that was expected in parts of the window only (`spans`) is divided over them.
    """
    row = window.gpus[uuid]
    parts = [span.intersection(window.interval) for span in spans]
    expected_us = sum(part.length for part in parts)
    is_partial = row.window < window.host.window and expected_us == row.window * 1000
    if not is_partial or expected_us == 0:
        return durations_within(window, uuid, intervals)
    total = Durations()
    for interval in _overlapping(window, intervals):
        shares = []
        for edge_us in (interval.begin, interval.end):
            before = Interval(FIRST_US, edge_us)
            before_us = sum(part.intersection(before).length for part in parts)
            shares.append(prorated_measured(row, before_us, expected_us))
        total += without_negative(shares[1] - shares[0])
    return total


def _expected_at(at_us: int, windows: Sequence[ReportWindow]) -> list[str]:
    """Returns the GPUs that were expected at the end of the last window before a moment.

    Where none is known they are those of the first window, throughout which they were expected.

    A row that does not fill the window is of a GPU that came or went within it. It went where an
    earlier window has the GPU and the next one does not.
    """
    index = None
    for number, window in enumerate(windows):
        if window.interval.end <= at_us:
            index = number
    expected = []
    if index is None:
        first = windows[0]
        for uuid, row in first.gpus.items():
            if row.window == first.host.window:
                expected.append(uuid)
        return expected
    earlier: Mapping[str, Durations] = {}
    if index > 0:
        earlier = windows[index - 1].gpus
    later: Mapping[str, Durations] = {}
    if index + 1 < len(windows):
        later = windows[index + 1].gpus
    last = windows[index]
    for uuid, row in last.gpus.items():
        is_whole = row.window == last.host.window
        if is_whole or uuid in later or uuid not in earlier:
            expected.append(uuid)
    return expected


def _added_gpu(
    window: ReportWindow,
    durations: Durations,
    end_us: int,
) -> GpuTotals:
    """Returns the totals of a GPU that was added during a window.

    What is unknown in the first report that has it was before the GPU came, and does not count.
    """
    since_added = structs.replace(durations, unknown=0)
    first_end_us = min(window.interval.end, end_us)
    added_us = first_end_us - since_added.window * 1000
    return GpuTotals(since_added, Interval(added_us, end_us))


def _overlapping(
    window: ReportWindow,
    intervals: Iterable[Interval],
) -> list[Interval]:
    return [interval for interval in intervals if window.interval.overlaps(interval)]


def _splits(window: ReportWindow, interval: Interval) -> list[Split]:
    """Returns a split for each end of the interval that lies within the window."""
    splits = []
    for edge_us in (interval.begin, interval.end):
        if window.interval.begin < edge_us < window.interval.end:
            split = Split(
                ping_seq=window.ping_seq,
                since=from_microseconds(window.interval.begin),
                until=from_microseconds(window.interval.end),
                at=from_microseconds(edge_us),
                method=share_within(window, None, interval).method,
            )
            splits.append(split)
    return splits
