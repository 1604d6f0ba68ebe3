"""The short road: from a healthy host's message to its row, in few steps.

Nearly all hosts are healthy: answered, judged good, up throughout, due again after whole seconds, and nothing more to
say of any GPU. These types say so. A message that does not fit them takes the long road (`reading.py`), which gives
the same row for one that does.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from storage.names import Names
from storage.rows import EPOCH, MICROSECOND, MILLISECOND, Arrival, HealthyRow
from storage.states import LONGEST, Milliseconds, Moment, Period

_NoTime = Annotated[float, Meta(ge=0.0, le=0.0)]
_Full = Annotated[float, Meta(ge=100.0, le=100.0)]
_Nothing = Annotated[tuple[msgspec.Raw, ...], Meta(max_length=0)]


class _Seconds(Struct, frozen=True, gc=False):
    up: Annotated[float, Meta(ge=0.0, le=LONGEST)] = 0.0
    degraded: _NoTime = 0.0
    down: _NoTime = 0.0
    unknown: _NoTime = 0.0
    excused: _NoTime = 0.0


class _Gpu(Struct, kw_only=True, frozen=True, gc=False):
    uuid: str
    index: int | None = None
    name: str = ""
    state: Literal["up"]
    reasons: _Nothing = ()
    uptime_percent: _Full
    seconds: _Seconds = _Seconds()


class _Report(Struct, frozen=True, gc=False):
    window: Period
    gpus: tuple[_Gpu, ...] = ()
    incidents: _Nothing = ()


class _Outcome(Struct, kw_only=True, frozen=True, gc=False):
    ping_seq: Annotated[int, Meta(ge=1)]
    pinged_at: Moment
    outcome: Literal["answered"]
    verdict: Literal["good"]
    reason: None = None
    uptime_percent: _Full
    seconds: _Seconds
    window_seconds: float
    response_ms: Milliseconds | None = None
    late_ms: Milliseconds | None = None
    report: _Report


class _State(Struct, kw_only=True, frozen=True, gc=False):
    consecutive_poor: Literal[0] = 0
    agent_id: str
    interval_seconds: Annotated[float, Meta(ge=0.0, le=LONGEST, multiple_of=1)]
    next_ping_at: Moment
    last: _Outcome


_state_of = msgspec.json.Decoder(_State).decode  # bound once, for it is called for each row


def healthy(arrival: Arrival, names: Names) -> HealthyRow | None:
    """The row of a healthy host's message; None for all others."""
    try:
        state = _state_of(arrival.data)
    except msgspec.DecodeError:
        return None
    last, report = state.last, state.last.report
    up = last.seconds.up
    if state.agent_id != arrival.agent_id or up != last.window_seconds:
        return None
    gpus = []
    for gpu in report.gpus:
        if gpu.seconds.up != up:
            return None
        gpus.append((gpu.uuid, gpu.index, gpu.name))
    pinged, until, since = last.pinged_at, report.window.until, report.window.since
    up_ms = round(up * 1000)
    return HealthyRow(
        names.agents[state.agent_id],
        last.ping_seq,
        (pinged - EPOCH) // MICROSECOND,
        (state.next_ping_at - pinged) // MICROSECOND,
        int(state.interval_seconds),
        up_ms,
        (until - pinged) // MILLISECOND,
        (until - since) // MILLISECOND - up_ms,
        None if last.response_ms is None else round(last.response_ms * 1000),
        None if last.late_ms is None else round(last.late_ms * 1000),
        names.gpu_set(tuple(gpus)) if gpus else None,
    )
