"""The rows that are kept beside an outcome's own where there is more to say: GPUs, incidents, evidence. Pure."""

from typing import Any

import msgspec
from msgspec import structs

from bus.messages import GpuReport
from storage.rows import Entry, microseconds, milliseconds

Row = dict[str, Any]


def gpu_rows(entry: Entry) -> list[Row]:
    """One row a GPU, in the report's order."""
    return [_key(entry) | _gpu_row(place, gpu) for place, gpu in enumerate(entry.gpus)]


def incident_rows(entry: Entry) -> list[Row]:
    """One row an incident."""
    return [
        _key(entry)
        | {"gpu": one.gpu, "state": one.state, "reason": one.reason, "since_us": microseconds(one.since)}
        | {"until_us": None if one.until is None else microseconds(one.until)}
        for one in entry.incidents
    ]


def evidence_rows(entry: Entry) -> list[Row]:
    """The signed report, where there is one."""
    if entry.evidence is None:
        return []
    return [_key(entry) | {"signature": entry.evidence[0], "payload": entry.evidence[1]}]


def _key(entry: Entry) -> Row:
    return {"agent": entry.ping.agent, "ping_seq": entry.ping.ping_seq, "pinged_us": entry.ping.pinged_us}


def _gpu_row(place: int, gpu: GpuReport) -> Row:
    seconds = {f"{name}_ms": milliseconds(value) for name, value in structs.asdict(gpu.seconds).items()}
    about = {"place": place, "uuid": gpu.uuid, "gpu_index": gpu.index, "name": gpu.name, "state": gpu.state}
    judged = {"reasons": msgspec.json.encode(gpu.reasons).decode(), "uptime_percent": gpu.uptime_percent}
    return about | judged | seconds
