"""Reads the outcomes of one agent around a month, and aligns their windows with our clock."""

from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from bus.contract.durations import Durations, Interval
from bus.contract.messages import EARLIEST, LATEST, Incident
from storage.archive.day_folders import retention_cutoff_us
from storage.engine.bounds import FIRST_US, LAST_US
from storage.engine.database import rows_as, sql, value_of
from storage.engine.dictionary import GpuNames
from storage.engine.duration_columns import durations_of, reported_durations
from storage.engine.partitions import DAY_US
from storage.engine.rows import from_microseconds, microseconds
from storage.statements.account import GpuName
from storage.statements.alignment import AlignedWindow, align
from storage.statements.gaps import Gap, MeasuredOutcome, gaps
from storage.statements.windows import PingKey, ReportWindow
from storage.store.gpu_rows import gpu_rows
from storage.store.store import Reader

# How far around a period its outcomes are read: a window that begins in it may end after it.
BEFORE_US = 1 * DAY_US
# The report that accounts for the period's end comes within the longest interval between two pings.
AFTER_US = 2 * DAY_US
# Misses can put that report off. It is awaited this long and no longer.
AWAITED_US = 40 * DAY_US
_EARLIEST_US = microseconds(EARLIEST)
_LATEST_US = microseconds(LATEST) - 1
_NO_REASONS = "[]"


class OutcomeRow(NamedTuple):
    """A row of `statement_windows.sql`. Without a report, the labels and the durations are None.

    `measured_since_us` is None in rows of schema 2.
    """

    ping_seq: int
    pinged_us: int
    outcome: str
    verdict: str
    uptime_percent: float | None
    labelled_since_us: int | None
    labelled_until_us: int | None
    measured_since_us: int | None
    response_us: int | None
    gpu_set: int | None
    up_ms: int | None
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int
    remarks: str | None
    enrolled_us: int | None

    def key(self) -> PingKey:
        """Returns which ping it is."""
        return PingKey(self.pinged_us, self.ping_seq)

    def label(self) -> Interval | None:
        """Returns the window as the agent's clock labels it, in microseconds."""
        if self.labelled_since_us is None or self.labelled_until_us is None:
            return None
        return Interval(self.labelled_since_us, self.labelled_until_us)

    def remark_words(self) -> list[str]:
        """Returns the remarks about the report; empty where there are none."""
        if self.remarks is None:
            return []
        return msgspec.json.decode(self.remarks, type=list[str])

    def is_measured(self) -> bool:
        """Returns whether the scheduler measured the window, and the durations fill it."""
        if self.up_ms is None:
            return False
        times_ms = self.up_ms + self.degraded_ms + self.down_ms + self.unknown_ms + self.excused_ms
        return self.measured_since_us == self.pinged_us - times_ms * 1000


class _IncidentRow(NamedTuple):
    """A row of `statement_incidents.sql`."""

    ping_seq: int
    pinged_us: int
    gpu: str | None
    state: str
    reason: str
    since_us: int
    until_us: int | None


class AgentOutcomes(Struct, frozen=True):
    """An agent's outcomes and the windows of those with a report, in order of time.

    They are all that history has of the time since `complete_since_us`.
    """

    rows: list[OutcomeRow]
    windows: dict[PingKey, ReportWindow]
    gpu_names: dict[str, GpuName]  # by UUID
    complete_since_us: int = FIRST_US

    def gaps(self) -> list[Gap]:
        """Returns the time between the outcomes that no window accounts for."""
        return list(gaps(self.measured(), self.complete_since_us))

    def measured(self) -> list[MeasuredOutcome]:
        """Returns where the outcomes lie."""
        found = []
        for row in self.rows:
            one = MeasuredOutcome(
                row.ping_seq,
                row.pinged_us,
                row.measured_since_us,
                row.outcome,
                row.enrolled_us,
            )
            found.append(one)
        return found

    def aligned_windows(self) -> list[ReportWindow]:
        """Returns the windows, in order of their pings."""
        return list(self.windows.values())


class _Details(NamedTuple):
    """What history keeps beside the rows of outcomes.

    Durations and reasons by GPU, and incidents are by their ping, sets of GPUs by their number.
    """

    gpus: dict[PingKey, dict[str, Durations]]
    gpu_reasons: dict[PingKey, dict[str, tuple[str, ...]]]
    incidents: dict[PingKey, list[_IncidentRow]]
    gpu_sets: dict[int, GpuNames]


def read_outcomes(
    reader: Reader,
    agent: int,
    interval: Interval,
) -> AgentOutcomes:
    """Reads the outcomes whose pings were sent within the interval, in microseconds."""
    asked = {"agent": agent, "since_us": interval.begin, "until_us": interval.end}
    text = reader.partitions.fill(sql("statement_windows"), interval.begin, interval.end)
    rows = rows_as(OutcomeRow, reader.cursor, text, asked)
    durations, reasons = _of_gpus(reader, agent, interval)
    details = _Details(
        durations,
        reasons,
        _incidents(reader, interval, asked),
        _gpu_sets(reader, rows),
    )
    windows = {}
    for row in rows:
        window = _window(row, details)
        if window is not None:
            windows[row.key()] = window
    gpu_names = {}
    for number in sorted(details.gpu_sets):
        for uuid, index, name in details.gpu_sets[number]:
            gpu_names[uuid] = GpuName(index, name)
    complete_since_us = max(interval.begin, retention_cutoff_us(reader.cursor))
    return AgentOutcomes(rows, windows, gpu_names, complete_since_us)


def first_ping_us(reader: Reader, agent: int) -> int | None:
    """Returns when the agent's history begins; None where it has no outcome."""
    text = reader.partitions.fill(sql("first_outcome"))
    asked = {"agent": agent, "ever": LAST_US}
    first_us: int | None = value_of(reader.cursor, text, asked)
    return first_us


def is_measured(
    reader: Reader,
    agent: int,
    pinged_us: int | None,
) -> bool:
    """Returns whether the scheduler measured the window of this outcome; False without one."""
    if pinged_us is None:
        return False
    interval = Interval(pinged_us, pinged_us + 1)
    asked = {"agent": agent, "since_us": interval.begin, "until_us": interval.end}
    text = reader.partitions.fill(sql("statement_windows"), interval.begin, interval.end)
    rows = rows_as(OutcomeRow, reader.cursor, text, asked)
    return all(row.measured_since_us is not None for row in rows)


def _of_gpus(
    reader: Reader,
    agent: int,
    interval: Interval,
) -> tuple[dict[PingKey, dict[str, Durations]], dict[PingKey, dict[str, tuple[str, ...]]]]:
    """Returns the durations of GPUs by ping, and their reasons where they had any."""
    durations: dict[PingKey, dict[str, Durations]] = {}
    reasons: dict[PingKey, dict[str, tuple[str, ...]]] = {}
    for row in gpu_rows(reader, [agent], interval):
        key = PingKey(row.pinged_us, row.ping_seq)
        by_gpu = durations.setdefault(key, {})
        by_gpu[row.uuid] = durations_of(row)
        if row.reasons != _NO_REASONS:
            of_ping = reasons.setdefault(key, {})
            of_ping[row.uuid] = msgspec.json.decode(row.reasons, type=tuple[str, ...])
    return durations, reasons


def _incidents(
    reader: Reader,
    interval: Interval,
    asked: dict[str, Any],
) -> dict[PingKey, list[_IncidentRow]]:
    text = reader.partitions.fill(sql("statement_incidents"), interval.begin, interval.end)
    incidents: dict[PingKey, list[_IncidentRow]] = {}
    for row in rows_as(_IncidentRow, reader.cursor, text, asked):
        incidents.setdefault(PingKey(row.pinged_us, row.ping_seq), []).append(row)
    return incidents


def _gpu_sets(
    reader: Reader,
    rows: list[OutcomeRow],
) -> dict[int, GpuNames]:
    gpu_sets: dict[int, GpuNames] = {}
    for row in rows:
        number = row.gpu_set
        if number is not None and number not in gpu_sets:
            gpu_sets[number] = tuple(reader.names.gpus(number))
    return gpu_sets


def _window(row: OutcomeRow, details: _Details) -> ReportWindow | None:
    """Returns the window of a report.

    None where nothing was reported, or what cannot be (`left_out.py`).

    GPUs without durations of their own have those of the host.
    """
    host = reported_durations(row)
    label = row.label()
    if host is None or label is None or host.window * 1000 > row.pinged_us:
        return None
    spent_us = host.window * 1000
    aligned = align(row.pinged_us, row.response_us, label, spent_us)
    gpus = details.gpus.get(row.key(), {})
    if not gpus and row.gpu_set is not None:
        for uuid, _, _ in details.gpu_sets[row.gpu_set]:
            gpus[uuid] = host
    incidents = details.incidents.get(row.key(), [])
    return ReportWindow(
        ping_seq=row.ping_seq,
        interval=aligned.interval,
        host=host,
        gpus=gpus,
        incidents=tuple(_incident(one, aligned) for one in incidents),
        clock_stepped=aligned.clock_stepped,
        measured=row.is_measured(),
        gpu_reasons=details.gpu_reasons.get(row.key(), {}),
    )


def _incident(row: _IncidentRow, aligned: AlignedWindow) -> Incident:
    """Returns the incident by our clock.

    Its times are labels of the agent's clock, like those of the window.
    """
    until_us = None
    if row.until_us is not None:
        until_us = row.until_us + aligned.shift_us
    since_us = row.since_us + aligned.shift_us
    return stored_incident(row.gpu, row.state, row.reason, since_us, until_us)


def stored_incident(
    gpu: str | None,
    state: str,
    reason: str,
    since_us: int,
    until_us: int | None,
) -> Incident:
    """Returns an incident. A time outside of 1970 to 9998 is shown as the nearest within."""
    until = None
    if until_us is not None:
        until = from_microseconds(_within_calendar(until_us))
    since = from_microseconds(_within_calendar(since_us))
    return Incident(
        gpu=gpu,
        state=state,
        reason=reason,
        since=since,
        until=until,
    )


def _within_calendar(at_us: int) -> int:
    return min(max(at_us, _EARLIEST_US), _LATEST_US)
