"""Makes the uptime report for a ping or a look from the ledger. Pure, and changes nothing.

Wall times in a report are labels: ledger time counted back from the present reading of the wall
clock. They fit together within a report, whatever the clock did meanwhile.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from msgspec import structs

from agentd.ledger import incidents, windows
from agentd.ledger.ledger import ClockReading, Ledger
from agentd.ledger.records import HOST
from agentd.ledger.windows import AskedWindow
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
    *,
    simulated: bool = False,
) -> UptimeReport:
    """The report on the window that the request asks for, as of this reading of the clocks."""
    asked = windows.asked_window(ledger, request, clocks)
    now = asked.now
    host = asked.host_durations(ledger)
    gpus = [_gpu_report(ledger, gpu, asked) for gpu in _listed(ledger, asked)]
    until = label(clocks.wall)
    length = now - asked.since
    window = Window(
        since=_earlier(until, length),
        until=until,
        seconds=length / 1000,
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
        incidents=_incidents(ledger, asked, until),
        checks=ledger.progress.checks,
        agent_version=version,
        reported_at=until,
        simulated=simulated,
        failure=ledger.failure_at(now),
        unopened=ledger.unopened,
    )


def gpu_available(ledger: Ledger, now: int) -> bool:
    """Whether any GPU of the newest sample, expected or not, is up or degraded now."""
    states = {ledger.condition_at(gpu, now).state for gpu in ledger.present}
    return "up" in states or "degraded" in states


def owed(ledger: Ledger, request: PingRequest) -> set[str]:
    """Returns the GPUs that are expected, or were within the window that the request asks for."""
    changed = [change.uuid for change in request.expected_changes]
    return {*ledger.expected, *changed}


def encoded(full: UptimeReport, expected: Collection[str]) -> bytes:
    """The report's bytes, within LARGEST_BYTES where the expected GPUs fit into that.

    Incidents are left out first, then names and reasons, then GPUs that are not expected. An
    expected GPU is never left out: it would count as one that the host does not know.
    """
    data = encode(full)
    if len(data) <= LARGEST_BYTES:
        return data
    without_incidents = structs.replace(full, incidents=())
    data = encode(without_incidents)
    if len(data) <= LARGEST_BYTES:
        return data
    bare = [_bare(gpu) for gpu in full.gpus]
    data = encode(structs.replace(without_incidents, gpus=tuple(bare)))
    if len(data) <= LARGEST_BYTES:
        return data
    kept = [gpu for gpu in bare if gpu.uuid in expected]
    return encode(structs.replace(without_incidents, gpus=tuple(kept)))


def _bare(gpu: GpuReport) -> GpuReport:
    return structs.replace(
        gpu,
        name="",
        reasons=gpu.reasons[:1],
    )


def _listed(ledger: Ledger, asked: AskedWindow) -> list[str]:
    """The expected GPUs, and others that are or were present in the window, by index."""
    listed = list(ledger.expected)
    whole = Interval(asked.since, asked.now)
    for gpu in ledger.timelines:
        if gpu == HOST or gpu in ledger.expected:
            continue
        durations = ledger.durations(gpu, whole, asked.now)
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
    asked: AskedWindow,
) -> GpuReport:
    index = None
    name = ""
    label = ledger.labels.get(gpu)
    if label is not None:
        name = label.name
        if gpu in ledger.present:
            index = label.index
    condition = ledger.condition_at(gpu, asked.now)
    durations = asked.durations(ledger, gpu)
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
    asked: AskedWindow,
    until: datetime,
) -> tuple[Incident, ...]:
    reported = []
    for found in incidents.incidents(ledger, asked.since, asked.now):
        ended = None
        if found.until is not None:
            ended = _earlier(until, asked.now - found.until)
        incident = Incident(
            gpu=found.gpu or None,
            state=found.state,
            reason=found.reason,
            since=_earlier(until, asked.now - found.since),
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
