"""What an outcome that is not plainly healthy puts into tables: its own row, GPUs, incidents, evidence. Pure."""

from typing import Any

import msgspec
from msgspec import structs

from bus.contract.messages import GpuReport
from storage.engine.rows import FullRow, PingRow, microseconds, milliseconds

Columns = dict[str, Any]


def ping_row(row: FullRow) -> Columns:
    """Its own row."""
    return {name: getattr(row, name) for name in PingRow.__struct_fields__}


def gpu_rows(row: FullRow) -> list[Columns]:
    """One row a GPU, in the report's order."""
    return [_key(row) | _gpu_row(place, gpu) for place, gpu in enumerate(row.gpus)]


def incident_rows(row: FullRow) -> list[Columns]:
    """One row an incident."""
    return [
        _key(row)
        | {
            "gpu": one.gpu,
            "state": one.state,
            "reason": one.reason,
            "since_us": microseconds(one.since),
        }
        | {"until_us": None if one.until is None else microseconds(one.until)}
        for one in row.incidents
    ]


def evidence_rows(row: FullRow) -> list[Columns]:
    """The signed report, where there is one."""
    if row.evidence is None:
        return []
    return [_key(row) | {"signature": row.evidence[0], "payload": row.evidence[1]}]


def _key(row: FullRow) -> Columns:
    return {"agent": row.agent, "ping_seq": row.ping_seq, "pinged_us": row.pinged_us}


def _gpu_row(place: int, gpu: GpuReport) -> Columns:
    seconds = {
        f"{name}_ms": milliseconds(value) for name, value in structs.asdict(gpu.seconds).items()
    }
    about = {
        "place": place,
        "uuid": gpu.uuid,
        "gpu_index": gpu.index,
        "name": gpu.name,
        "state": gpu.state,
    }
    judged = {
        "reasons": msgspec.json.encode(gpu.reasons).decode(),
        "uptime_percent": gpu.uptime_percent,
    }
    return about | judged | seconds
