"""Makes the uptime report for a ping or a look from the ledger. Pure, and changes nothing.

Wall times in a report are labels: ledger time counted back from the present reading of the wall
clock. They fit together within a report, whatever the clock did meanwhile.
"""

from datetime import datetime, timedelta

import msgspec

from agentd.ledger import incidents, windows
from agentd.ledger.ledger import ClockReading, Ledger
from agentd.ledger.records import HOST
from bus.contract.durations import Interval
from bus.contract.messages import (
    EARLIEST,
    GpuReport,
    Incident,
    PingRequest,
    UptimeReport,
    Window,
    encode,
)

# The state in the bucket keeps these bytes; with all that is around them they stay well below 64
# kB.
LARGEST_BYTES = 48_000
_INDEX_OF_UNLABELLED = 1_000_000  # sorts behind every real index


def report(
    ledger: Ledger,
    agent_id: str,
    request: PingRequest,
    clocks: ClockReading,
    version: str,
) -> UptimeReport:
    """The report on the window that the request asks for, as of this reading of the clocks."""
    now = ledger.position(clocks)
    since = windows.window_start(ledger, request, now)
    excused = windows.excused_intervals(
        request.excused,
        since,
        now,
        clocks,
    )
    judged = windows.judged_intervals(since, now, excused)
    host = windows.durations(
        ledger,
        HOST,
        judged,
        excused,
    )
    gpus = [
        _gpu_report(
            ledger,
            gpu,
            now,
            judged,
            excused,
        )
        for gpu in _listed(ledger, since, now)
    ]
    until = label(clocks.wall)
    window = Window(
        since=_earlier(until, now - since),
        until=until,
        seconds=(now - since) / 1000,
        mark=windows.mark(ledger, now),
    )
    return UptimeReport(
        agent_id=agent_id,
        boot_id=ledger.boot,
        session_id=ledger.session,
        ping_id=request.ping_id,
        nonce=request.nonce,
        window=window,
        uptime_percent=host.uptime_percent,
        seconds=host.to_seconds(),
        gpu_available=gpu_available(ledger, now),
        gpus=tuple(gpus),
        incidents=_incidents(
            ledger,
            since,
            now,
            until,
        ),
        checks=ledger.progress.checks,
        agent_version=version,
        reported_at=until,
    )


def gpu_available(ledger: Ledger, now: int) -> bool:
    """Whether any GPU of the newest sample, expected or not, is up or degraded now."""
    states = {ledger.condition_at(gpu, now).state for gpu in ledger.present}
    return "up" in states or "degraded" in states


def encoded(full: UptimeReport) -> bytes:
    """The report's bytes, within LARGEST_BYTES.

    Incidents are left out first, then names and further reasons.
    """
    data = encode(full)
    if len(data) <= LARGEST_BYTES:
        return data
    data = encode(msgspec.structs.replace(full, incidents=()))
    if len(data) <= LARGEST_BYTES:
        return data
    bare = []
    for gpu in full.gpus[:100]:
        bare.append(
            msgspec.structs.replace(
                gpu,
                name="",
                reasons=gpu.reasons[:1],
            )
        )
    return encode(
        msgspec.structs.replace(
            full,
            incidents=(),
            gpus=tuple(bare),
        )
    )


def _listed(
    ledger: Ledger,
    since: int,
    now: int,
) -> list[str]:
    """The expected GPUs, and others that are or were present in the window, by index."""
    listed = list(ledger.expected)
    for gpu in ledger.timelines:
        if gpu == HOST or gpu in ledger.expected:
            continue
        durations = ledger.durations(gpu, since, now)
        was_there = durations.window > durations.unknown
        if was_there or gpu in ledger.present:
            listed.append(gpu)
    return sorted(listed, key=lambda gpu: (_sort_index(ledger, gpu), gpu))


def _sort_index(ledger: Ledger, gpu: str) -> int:
    label = ledger.labels.get(gpu)
    if label is None or label.index is None:
        return _INDEX_OF_UNLABELLED
    return label.index


def _gpu_report(
    ledger: Ledger,
    gpu: str,
    now: int,
    judged: list[Interval],
    excused: list[Interval],
) -> GpuReport:
    index = None
    name = ""
    label = ledger.labels.get(gpu)
    if label is not None:
        name = label.name
        if gpu in ledger.present:
            index = label.index
    condition = ledger.condition_at(gpu, now)
    durations = windows.durations(
        ledger,
        gpu,
        judged,
        excused,
    )
    return GpuReport(
        uuid=gpu,
        index=index,
        name=name,
        state=condition.state,
        reasons=condition.reasons,
        uptime_percent=durations.uptime_percent,
        seconds=durations.to_seconds(),
    )


def _incidents(
    ledger: Ledger,
    since: int,
    now: int,
    until: datetime,
) -> tuple[Incident, ...]:
    reported = []
    for found in incidents.incidents(ledger, since, now):
        ended = None
        if found.until is not None:
            ended = _earlier(until, now - found.until)
        incident = Incident(
            gpu=found.gpu or None,
            state=found.state,
            reason=found.reason,
            since=_earlier(until, now - found.since),
            until=ended,
        )
        reported.append(incident)
    return tuple(reported)


def label(wall: int) -> datetime:
    """Milliseconds of the Unix epoch as a datetime."""
    return EARLIEST + timedelta(milliseconds=wall)


def _earlier(until: datetime, milliseconds: int) -> datetime:
    """Never before 1970: with a clock that was never set, the report would not be decoded."""
    return max(EARLIEST, until - timedelta(milliseconds=milliseconds))
