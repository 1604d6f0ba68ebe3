"""The rows of one outcome that is not plainly healthy. Pure.

It has a row of its own, and may have rows for GPUs, incidents and evidence.
"""

from typing import Any

import msgspec

from bus.contract.messages import GpuReport, Incident
from storage.engine.rows import FullRow, PingRow, microseconds, milliseconds

Columns = dict[str, Any]


def ping_row(row: FullRow) -> Columns:
    """Returns the row of `pings`."""
    return {name: getattr(row, name) for name in PingRow.__struct_fields__}


def gpu_rows(row: FullRow) -> list[Columns]:
    """Returns the rows of `gpus`, one for each GPU in the order of the report."""
    return [_gpu_row(row, position, gpu) for position, gpu in enumerate(row.gpus)]


def incident_rows(row: FullRow) -> list[Columns]:
    """Returns the rows of `incidents`."""
    return [_incident_row(row, incident) for incident in row.incidents]


def evidence_rows(row: FullRow) -> list[Columns]:
    """Returns the row of `evidence` where the report was signed, otherwise none."""
    if row.evidence is None:
        return []
    columns = _key(row)
    columns["signature"] = row.evidence.signature
    columns["payload"] = row.evidence.payload
    return [columns]


def _key(row: FullRow) -> Columns:
    return {"agent": row.agent, "ping_seq": row.ping_seq, "pinged_us": row.pinged_us}


def _gpu_row(
    row: FullRow,
    position: int,
    gpu: GpuReport,
) -> Columns:
    return {
        **_key(row),
        "place": position,
        "uuid": gpu.uuid,
        "gpu_index": gpu.index,
        "name": gpu.name,
        "state": gpu.state,
        "reasons": msgspec.json.encode(gpu.reasons).decode(),
        "uptime_percent": gpu.uptime_percent,
        "up_ms": milliseconds(gpu.seconds.up),
        "degraded_ms": milliseconds(gpu.seconds.degraded),
        "down_ms": milliseconds(gpu.seconds.down),
        "unknown_ms": milliseconds(gpu.seconds.unknown),
        "excused_ms": milliseconds(gpu.seconds.excused),
    }


def _incident_row(row: FullRow, incident: Incident) -> Columns:
    until_us = None
    if incident.until is not None:
        until_us = microseconds(incident.until)
    return {
        **_key(row),
        "gpu": incident.gpu,
        "state": incident.state,
        "reason": incident.reason,
        "since_us": microseconds(incident.since),
        "until_us": until_us,
    }
