"""Turns rows of history into the Pings of the REST interface, with their GPUs."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from bus.contract.durations import Durations, Interval
from bus.contract.messages import GpuReport, OutcomeWord, Seconds, Verdict, encode
from bus.contract.questions import Evidence, Ping
from bus.transport.large_answers import fitting
from storage.engine.database import rows_as, sql
from storage.engine.dictionary import GpuNames
from storage.engine.duration_columns import reported_durations
from storage.engine.rows import from_microseconds, microseconds
from storage.store.gpu_rows import gpu_rows
from storage.store.store import Reader


class OutcomeKey(NamedTuple):
    """What tells outcomes apart."""

    agent: int
    ping_seq: int
    pinged_us: int


class HistoryRow(NamedTuple):
    """A row of `history_page.sql` or `recent_pings.sql`.

    The five durations are None where nothing was reported.

    `next_us`: from this ping to the next. `window_ms`: None where it is the sum of the durations.
    `remarks`: a list in JSON, None where it is empty.
    """

    agent: int
    ping_seq: int
    pinged_us: int
    outcome: OutcomeWord
    reason: str | None
    verdict: Verdict
    uptime_percent: float | None
    up_ms: int | None
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int
    window_ms: int | None
    consecutive_poor: int
    interval_seconds: float
    next_us: int
    response_us: int | None
    late_us: int | None
    gpu_set: int | None
    remarks: str | None

    def key(self) -> OutcomeKey:
        """Returns what tells this outcome from others."""
        return OutcomeKey(self.agent, self.ping_seq, self.pinged_us)


def to_pings(
    reader: Reader,
    rows: list[HistoryRow],
) -> tuple[Ping, ...]:
    """Returns the rows as Pings, in their order."""
    if not rows:
        return ()
    own_gpus = _own_gpus(reader, rows)
    gpu_sets: dict[int, GpuNames] = {}
    pings = []
    for row in rows:
        gpus = own_gpus.get(row.key())
        if gpus is None:
            gpus = _gpus_like_host(reader, row, gpu_sets)
        pings.append(_ping(reader, row, tuple(gpus)))
    return tuple(pings)


class _EvidenceRow(NamedTuple):
    """A row of `page_evidence.sql`."""

    ping_seq: int
    pinged_us: int
    signature: str
    payload: str


def with_evidence(
    reader: Reader,
    agent: int,
    pings: tuple[Ping, ...],
) -> tuple[Ping, ...]:
    """Returns an agent's Pings with the reports that were signed or refused."""
    if not pings:
        return pings
    times_us = [microseconds(ping.pinged_at) for ping in pings]
    asked = {"agent": agent, "since_us": min(times_us), "until_us": max(times_us)}
    text = reader.partitions.fill(sql("page_evidence"), min(times_us), max(times_us))
    kept = {}
    for row in rows_as(_EvidenceRow, reader.cursor, text, asked):
        kept[row.ping_seq, row.pinged_us] = row
    shown = []
    for ping, pinged_us in zip(pings, times_us, strict=True):
        report = kept.get((ping.ping_seq, pinged_us))
        if report is None:
            shown.append(ping)
            continue
        evidence = Evidence(
            report=report.payload,
            signature=report.signature or None,
            refused=ping.outcome != "answered",
        )
        shown.append(replace(ping, evidence=evidence))
    return tuple(shown)


def fit_message(
    pings: tuple[Ping, ...],
    most_bytes: int,
) -> tuple[Ping, ...]:
    """Returns as many of the first pings as one message can carry.

    A report of a scheduler is 64 kB at most, a fraction of a message. A larger one was written by
    somebody else. It is shown without its GPUs and evidence, because a page that cannot be sent
    would hide everything older.
    """
    return fitting(_shown(pings, most_bytes), most_bytes)


def _shown(pings: tuple[Ping, ...], most_bytes: int) -> Iterator[Ping]:
    for ping in pings:
        if len(encode(ping)) < most_bytes:
            yield ping
        else:
            yield replace(ping, gpus=(), evidence=None)


def _own_gpus(
    reader: Reader,
    rows: list[HistoryRow],
) -> dict[OutcomeKey, list[GpuReport]]:
    """Returns the GPUs whose durations are not simply those of their host."""
    agents = sorted({row.agent for row in rows})
    times_us = [row.pinged_us for row in rows]
    interval = Interval(min(times_us), max(times_us))
    gpus: dict[OutcomeKey, list[GpuReport]] = defaultdict(list)
    for row in gpu_rows(reader, agents, interval):
        key = OutcomeKey(row.agent, row.ping_seq, row.pinged_us)
        gpus[key].append(row.report())
    return gpus


def _gpus_like_host(
    reader: Reader,
    row: HistoryRow,
    gpu_sets: dict[int, GpuNames],
) -> list[GpuReport]:
    """Returns the GPUs of a report in which all were up and had the durations of the host.

    `gpu_sets` keeps those that were read, because most rows of a page name the same.
    """
    if row.gpu_set is None:
        return []
    if row.gpu_set not in gpu_sets:
        gpu_sets[row.gpu_set] = tuple(reader.names.gpus(row.gpu_set))
    durations = reported_durations(row) or Durations()
    seconds = durations.to_seconds()
    gpus = []
    for uuid, index, name in gpu_sets[row.gpu_set]:
        gpu = GpuReport(
            uuid=uuid,
            index=index,
            name=name,
            state="up",
            uptime_percent=row.uptime_percent,
            seconds=seconds,
        )
        gpus.append(gpu)
    return gpus


def _ping(
    reader: Reader,
    row: HistoryRow,
    gpus: tuple[GpuReport, ...],
) -> Ping:
    seconds: Seconds | None = None
    window_ms = row.window_ms
    durations = reported_durations(row)
    if durations is not None:
        seconds = durations.to_seconds()
        if window_ms is None:
            window_ms = durations.window
    return Ping(
        agent_id=reader.names.agents.name(row.agent),
        ping_seq=row.ping_seq,
        pinged_at=from_microseconds(row.pinged_us),
        outcome=row.outcome,
        reason=row.reason,
        verdict=row.verdict,
        uptime_percent=row.uptime_percent,
        seconds=seconds,
        window_seconds=_thousandth(window_ms),
        consecutive_poor_uptime=row.consecutive_poor,
        interval_minutes=row.interval_seconds / 60.0,
        next_ping_at=from_microseconds(row.pinged_us + row.next_us),
        response_ms=_thousandth(row.response_us),
        late_ms=_thousandth(row.late_us),
        gpus=gpus,
        remarks=_remarks(row.remarks),
    )


def _remarks(remarks: str | None) -> tuple[str, ...]:
    if remarks is None:
        return ()
    return msgspec.json.decode(remarks, type=tuple[str, ...])


def _thousandth(value: float | None) -> float | None:
    if value is None:
        return None
    return value / 1000
