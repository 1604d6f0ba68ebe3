"""The short road: from healthy hosts' messages to their rows, many at a time.

Nearly all hosts are healthy: answered, judged good, up throughout, due again after whole seconds, and nothing more to
say of any GPU. The types here say so. A message that does not fit them takes the long road (`reading.py`), which
gives the same row for one that does. Rows are columns of numbers, for what is done to each of them by itself costs
more than all the rest (measured).
"""

from itertools import compress
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from storage.moments import moments
from storage.names import GpuNames, Names
from storage.rows import NO_GPUS, Arrival, HealthyRows
from storage.states import LONGEST, Milliseconds, Number

PIECE = 500  # messages: what is made of them is used up while the processor still holds it (1,000: 5 to 30 % more time)

_NoTime = Annotated[float, Meta(ge=0.0, le=0.0)]
_Full = Annotated[float, Meta(ge=100.0, le=100.0)]
_Index = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Nothing = Annotated[tuple[msgspec.Raw, ...], Meta(max_length=0)]


class _Seconds(Struct, frozen=True, gc=False):
    up: Annotated[float, Meta(ge=0.0, le=LONGEST)] = 0.0
    degraded: _NoTime = 0.0
    down: _NoTime = 0.0
    unknown: _NoTime = 0.0
    excused: _NoTime = 0.0


class _Gpu(Struct, kw_only=True, frozen=True, gc=False):
    uuid: str
    index: _Index | None = None
    name: str = ""
    state: Literal["up"]
    reasons: _Nothing = ()
    uptime_percent: _Full
    seconds: _Seconds = _Seconds()


class _Window(Struct, frozen=True, gc=False):
    since: str
    until: str


class _Report(Struct, frozen=True, gc=False):
    window: _Window
    gpus: tuple[_Gpu, ...] = ()
    incidents: _Nothing = ()


class _Outcome(Struct, kw_only=True, frozen=True, gc=False):
    ping_seq: Number
    pinged_at: str
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
    next_ping_at: str
    last: _Outcome


class _Gathered(Struct, frozen=True):
    """What many messages say, value by value; lists that one is cut from each time are flat."""

    arrivals: list[Arrival]
    agents: list[str]
    ping_seqs: list[int]
    numbers: list[float | None]  # up_seconds, interval_seconds, response_ms, late_ms of each
    moments: list[str]  # pinged_at, next_ping_at, since, until of each
    gpus: list[GpuNames]


_state_of = msgspec.json.Decoder(_State).decode  # bound once, for it is called for each row


def healthy(batch: list[Arrival], names: Names, piece: int = PIECE) -> tuple[HealthyRows, list[Arrival]]:
    """The rows of healthy hosts' messages, and the messages that are others."""
    pieces, others = [], []
    for start in range(0, len(batch) or 1, piece):
        rows, left = _piece(batch[start : start + piece], names)
        pieces.append(rows)
        others += left
    return HealthyRows.joined(pieces), others


def _piece(batch: list[Arrival], names: Names) -> tuple[HealthyRows, list[Arrival]]:
    gathered, others = _gather(batch)
    times = moments(gathered.moments).reshape(-1, 4)
    odd: NDArray[np.bool_] = np.logical_or.reduce(np.isnat(times), axis=1)
    if odd.any():  # hardly ever; and what is set aside is given no name
        rows, _ = _piece(list(compress(gathered.arrivals, (~odd).tolist())), names)
        return rows, [*others, *compress(gathered.arrivals, odd.tolist())]
    return _rows(gathered, times.astype(np.int64), names), others


def _gather(batch: list[Arrival]) -> tuple[_Gathered, list[Arrival]]:
    """Of host and GPUs that were up throughout the window, to the last digit; and the messages that are others."""
    arrivals: list[Arrival] = []
    agents: list[str] = []
    ping_seqs: list[int] = []
    numbers: list[float | None] = []
    times: list[str] = []
    gpus: list[GpuNames] = []
    others: list[Arrival] = []
    for arrival in batch:
        try:
            state = _state_of(arrival.data)
        except (msgspec.DecodeError, ValueError, RecursionError):  # the long road says why
            others.append(arrival)
            continue
        last, report, window = state.last, state.last.report, state.last.report.window
        up = last.seconds.up
        if state.agent_id == arrival.agent_id and up == last.window_seconds and arrival.signature is None:
            seen: GpuNames = ()
            for gpu in report.gpus:
                if gpu.seconds.up != up:
                    break
                seen += ((gpu.uuid, gpu.index, gpu.name),)
            else:
                arrivals.append(arrival)
                agents.append(state.agent_id)
                ping_seqs.append(last.ping_seq)
                numbers += (up, state.interval_seconds, last.response_ms, last.late_ms)
                times += (last.pinged_at, state.next_ping_at, window.since, window.until)
                gpus.append(seen)
                continue
        others.append(arrival)
    return _Gathered(arrivals, agents, ping_seqs, numbers, times, gpus), others


def _rows(gathered: _Gathered, times: NDArray[np.int64], names: Names) -> HealthyRows:
    numbers = np.array(gathered.numbers, dtype=np.float64).reshape(-1, 4)  # NaN for None
    up_seconds, interval_seconds, response_ms, late_ms = numbers.T
    pinged_us, next_us, since_us, until_us = times.T
    up_ms = np.rint(up_seconds * 1000).astype(np.int64)
    return HealthyRows(
        agent=_whole([names.agents[agent_id] for agent_id in gathered.agents]),
        ping_seq=_whole(gathered.ping_seqs),
        pinged_us=pinged_us,
        next_us=next_us - pinged_us,
        interval_seconds=interval_seconds.astype(np.int64),
        up_ms=up_ms,
        until_ms=(until_us - pinged_us) // 1000,
        since_ms=(until_us - since_us) // 1000 - up_ms,
        response_us=np.rint(response_ms * 1000),
        late_us=np.rint(late_ms * 1000),
        gpu_set=_whole([names.gpu_set(each) if each else NO_GPUS for each in gathered.gpus]),
    )


def _whole(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
