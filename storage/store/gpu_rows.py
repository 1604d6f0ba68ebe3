"""Reads the GPUs of outcomes that have rows of their own: of all whose GPUs the host's row does not describe."""

from typing import NamedTuple

import msgspec

from bus.contract.durations import Durations, Interval
from bus.contract.messages import GpuReport, GpuState
from storage.engine.database import listed, rows_as, sql
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

    def durations(self) -> Durations:
        """Returns the GPU's durations within the window."""
        return Durations(
            self.up_ms, self.degraded_ms, self.down_ms, self.unknown_ms, self.excused_ms
        )

    def report(self) -> GpuReport:
        """Returns the GPU as its report had it."""
        return GpuReport(
            uuid=self.uuid,
            index=self.gpu_index,
            name=self.name,
            state=self.state,
            reasons=msgspec.json.decode(self.reasons, type=tuple[str, ...]),
            uptime_percent=self.uptime_percent,
            seconds=self.durations().to_seconds(),
        )


def gpu_rows(
    reader: Reader,
    agents: list[int],
    interval: Interval,
) -> list[GpuRow]:
    """Returns the rows of these agents' pings from the interval's begin to its end, both included."""
    text = reader.partitions.fill(sql("gpus_of_pings"), interval.begin, interval.end)
    asked = {"agents": listed(agents), "since_us": interval.begin, "until_us": interval.end}
    return rows_as(GpuRow, reader.cursor, text, asked)
