"""Rows of history as the Pings that everybody else knows, their GPUs put together again."""

from typing import Any

import msgspec
from msgspec.structs import replace

from bus.contract.messages import GpuReport, Seconds, encode
from bus.contract.questions import Ping
from bus.transport.large_answers import fitting
from storage.engine.database import listed, rows_of, sql
from storage.engine.rows import from_microseconds
from storage.store.store import Reader

Row = tuple[Any, ...]
_AGENT, _SEQ, _PINGED, _GPU_SET = 0, 1, 2, 18


def assemble(reader: Reader, rows: list[Row]) -> tuple[Ping, ...]:
    """The rows of `history_page.sql` or `recent_pings.sql`, in their order."""
    if not rows:
        return ()
    agents = sorted({row[_AGENT] for row in rows})
    names = reader.names
    shared = {
        number: names.gpus(number)
        for number in {row[_GPU_SET] for row in rows if row[_GPU_SET] is not None}
    }
    own = _own_gpus(reader, agents, rows)
    return tuple(
        _ping(names.agents.name(row[_AGENT]), row, own.get(row[:3]) or _healthy(row, shared))
        for row in rows
    )


def carried(pings: tuple[Ping, ...], most_bytes: int) -> tuple[Ping, ...]:
    """As many as a message has room for, from the first on.

    A scheduler's report, 64 kB at most, is a fraction of it. One that fills a message alone is of another hand: it is
    shown without its GPUs, for a page that cannot be sent would hide all that is older.
    """
    return fitting(
        (one if len(encode(one)) < most_bytes else replace(one, gpus=()) for one in pings),
        most_bytes,
    )


def seconds_of(row: Row) -> Seconds | None:
    """Five columns of milliseconds."""
    if row[0] is None:
        return None
    up, degraded, down, unknown, excused = (value / 1000 for value in row)
    return Seconds(up=up, degraded=degraded, down=down, unknown=unknown, excused=excused)


def _own_gpus(
    reader: Reader, agents: list[int], rows: list[Row]
) -> dict[Row, tuple[GpuReport, ...]]:
    times = [row[_PINGED] for row in rows]
    text = reader.partitions.fill(sql("gpus_of_pings"), min(times), max(times))
    parameters = {"agents": listed(agents), "since_us": min(times), "until_us": max(times)}
    own: dict[Row, tuple[GpuReport, ...]] = {}
    for gpu in rows_of(reader.cursor, text, parameters):
        own[gpu[:3]] = (*own.get(gpu[:3], ()), gpu_of(gpu[3:]))
    return own


def gpu_of(row: Row) -> GpuReport:
    """A row of `gpus`, from its uuid on."""
    return GpuReport(
        uuid=row[0],
        index=row[1],
        name=row[2],
        state=row[3],
        reasons=msgspec.json.decode(row[4], type=tuple[str, ...]),
        uptime_percent=row[5],
        seconds=seconds_of(row[6:]) or Seconds(),
    )


def _healthy(
    row: Row, shared: dict[int, list[tuple[str, int | None, str]]]
) -> tuple[GpuReport, ...]:
    if row[_GPU_SET] is None:
        return ()
    seconds = seconds_of(row[7:12]) or Seconds()
    return tuple(
        GpuReport(
            uuid=uuid, index=index, name=name, state="up", uptime_percent=row[6], seconds=seconds
        )
        for uuid, index, name in shared[row[_GPU_SET]]
    )


def _ping(agent_id: str, row: Row, gpus: tuple[GpuReport, ...]) -> Ping:
    seconds = seconds_of(row[7:12])
    window_ms = row[12] if row[12] is not None or seconds is None else sum(row[7:12])
    return Ping(
        agent_id=agent_id,
        ping_seq=row[_SEQ],
        pinged_at=from_microseconds(row[_PINGED]),
        outcome=row[3],
        reason=row[4],
        verdict=row[5],
        uptime_percent=row[6],
        seconds=seconds,
        window_seconds=None if window_ms is None else window_ms / 1000,
        consecutive_poor_uptime=row[13],
        interval_minutes=row[14] / 60.0,
        next_ping_at=from_microseconds(row[_PINGED] + row[15]),
        response_ms=_thousandth(row[16]),
        late_ms=_thousandth(row[17]),
        gpus=gpus,
    )


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
