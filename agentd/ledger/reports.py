"""Makes the uptime report of a ping or a look from the ledger. Pure, and read only.

Wall times in a report are labels: ledger time counted back from the present reading of the wall clock, so
they fit together within a report whatever the clock did meanwhile.
"""

from datetime import datetime, timedelta

import msgspec

from agentd.ledger import incidents, windows
from agentd.ledger.ledger import Ledger, Moment
from agentd.ledger.records import HOST
from agentd.ledger.windows import Stretch
from bus.contract.messages import (
    EARLIEST,
    GpuReport,
    Incident,
    PingRequest,
    UptimeReport,
    Window,
    encode,
)

LARGEST_BYTES = (
    48_000  # a state in the bucket keeps these bytes; well below 64 kB with all around it
)


def report(
    ledger: Ledger, agent_id: str, request: PingRequest, moment: Moment, version: str
) -> UptimeReport:
    """What the ledger says of the window that the request asks for, as of this moment. Changes nothing."""
    now = ledger.position(moment)
    since = windows.start(ledger, request, now)
    excused = windows.excused_stretches(request.excused, since, now, moment)
    judged = windows.judged_stretches(since, now, excused)
    host = windows.tally(ledger, HOST, judged, excused)
    gpus = tuple(_gpu(ledger, uuid, now, judged, excused) for uuid in _shown(ledger, since, now))
    until = label(moment.wall)
    return UptimeReport(
        agent_id=agent_id,
        boot_id=ledger.boot,
        session_id=ledger.session,
        ping_id=request.ping_id,
        nonce=request.nonce,
        window=Window(
            since=_earlier(until, now - since),
            until=until,
            seconds=(now - since) / 1000,
            mark=windows.mark(ledger, now),
        ),
        uptime_percent=host.uptime_percent,
        seconds=host.seconds(),
        gpu_available=gpu_available(ledger, now),
        gpus=gpus,
        incidents=_incidents(ledger, since, now, until),
        checks=ledger.known.checks,
        agent_version=version,
        reported_at=until,
    )


def gpu_available(ledger: Ledger, now: int) -> bool:
    """At least one GPU, expected or not, was in the newest sample and is up or degraded by it at this moment."""
    return any(ledger.now_is(uuid, now).state in ("up", "degraded") for uuid in ledger.present)


def encoded(full: UptimeReport) -> bytes:
    """The report's bytes, within LARGEST_BYTES: incidents go first, then extras; the seconds always stay."""
    data = encode(full)
    if len(data) > LARGEST_BYTES:
        data = encode(msgspec.structs.replace(full, incidents=()))
    if len(data) > LARGEST_BYTES:
        bare = tuple(
            msgspec.structs.replace(gpu, name="", reasons=gpu.reasons[:1]) for gpu in full.gpus
        )
        data = encode(msgspec.structs.replace(full, incidents=(), gpus=bare[:100]))
    return data


def _shown(ledger: Ledger, since: int, now: int) -> list[str]:
    """Expected GPUs, and others that are there now or were within the window; in order of their index."""

    def was_there(gpu: str) -> bool:
        *known, _ = ledger.sums(gpu, since, now)
        return any(known)

    extras = ledger.timelines.keys() - {HOST, *ledger.expected}
    shown = [*ledger.expected, *(gpu for gpu in extras if gpu in ledger.present or was_there(gpu))]
    return sorted(shown, key=lambda gpu: (_index(ledger, gpu), gpu))


def _index(ledger: Ledger, gpu: str) -> int:
    label = ledger.labels.get(gpu)
    return 1_000_000 if label is None or label.number is None else label.number


def _gpu(
    ledger: Ledger, gpu: str, now: int, judged: list[Stretch], excused: list[Stretch]
) -> GpuReport:
    label = ledger.labels.get(gpu)
    kind = ledger.now_is(gpu, now)
    tally = windows.tally(ledger, gpu, judged, excused)
    return GpuReport(
        uuid=gpu,
        index=label.number if label and gpu in ledger.present else None,
        name=label.name if label else "",
        state=kind.state,
        reasons=kind.reasons,
        uptime_percent=tally.uptime_percent,
        seconds=tally.seconds(),
    )


def _incidents(ledger: Ledger, since: int, now: int, until: datetime) -> tuple[Incident, ...]:
    def wall(at: int) -> datetime:
        return _earlier(until, now - at)

    return tuple(
        Incident(
            gpu=found.gpu or None,
            state=found.state,
            reason=found.reason,
            since=wall(found.since),
            until=None if found.until is None else wall(found.until),
        )
        for found in incidents.incidents(ledger, since, now)
    )


def label(wall: int) -> datetime:
    """Milliseconds of the Unix epoch as a datetime."""
    return EARLIEST + timedelta(milliseconds=wall)


def _earlier(until: datetime, milliseconds: int) -> datetime:
    """Not before 1970, where a clock begins that nobody has set: such a label would make the report a bad one."""
    return max(EARLIEST, until - timedelta(milliseconds=milliseconds))
