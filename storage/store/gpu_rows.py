"""Reads the GPUs that have rows of their own, because their host's row does not describe them."""

from typing import NamedTuple

import msgspec

from bus.contract.durations import Interval
from bus.contract.messages import GpuReport, GpuState
from storage.engine.database import listed, rows_as, sql
from storage.engine.duration_columns import durations_of
from storage.store.store import Reader


class GpuRow(NamedTuple):
    """A row of `gpus_of_pings.sql`. `reasons` is a list as JSON."""

    agent: int
    ping_seq: int
    pinged_us: int
    uuid: str
    gpu_index: int | None
    name: str
    state: GpuState
    reasons: str
    uptime_percent: float | None
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int

    def report(self) -> GpuReport:
        """Returns the GPU as its report had it."""
        return GpuReport(
            uuid=self.uuid,
            index=self.gpu_index,
            name=self.name,
            state=self.state,
            reasons=msgspec.json.decode(self.reasons, type=tuple[str, ...]),
            uptime_percent=self.uptime_percent,
            seconds=durations_of(self).to_seconds(),
        )


def gpu_rows(
    reader: Reader,
    agents: list[int],
    interval: Interval,
) -> list[GpuRow]:
    """Returns the rows of these agents' pings; both ends of the interval are included."""
    text = reader.partitions.fill(sql("gpus_of_pings"), interval.begin, interval.end)
    asked = {"agents": listed(agents), "since_us": interval.begin, "until_us": interval.end}
    return rows_as(GpuRow, reader.cursor, text, asked)
