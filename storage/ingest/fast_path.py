"""The short road: from healthy hosts' messages to their rows, many at a time.

Nearly all hosts are healthy: answered, judged good, up throughout, due again after whole seconds, and nothing more to
say of any GPU. The types here say so. A message that does not fit them takes the long road (`reading.py`), which
gives the same row for one that does. Rows are columns of numbers, for what is done to each of them by itself costs
more than all the rest (measured).
"""

from itertools import chain, compress
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from bus.contract.messages import Duration, Index
from storage.engine.dictionary import Dictionaries, GpuNames
from storage.engine.rows import NO_GPUS, Arrival, HealthyRows
from storage.ingest.timestamps import moments
from storage.ingest.wire import LONGEST, Milliseconds, Number

PIECE = 500  # messages: what is made of them is used up while the processor still holds it (1,000: 5 to 30 % more time)

_NoTime = Annotated[float, Meta(ge=0.0, le=0.0)]
_Full = Annotated[float, Meta(ge=100.0, le=100.0)]
_Nothing = Annotated[tuple[msgspec.Raw, ...], Meta(max_length=0)]


class _Seconds(Struct, frozen=True, gc=False):
    up: Duration = 0.0
    degraded: _NoTime = 0.0
    down: _NoTime = 0.0
    unknown: _NoTime = 0.0
    excused: _NoTime = 0.0


class _Gpu(Struct, kw_only=True, frozen=True, gc=False):
    uuid: str
    index: Index | None = None
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
    """What many messages say, value by value. `numbers` and `moments` are flat: four for each message."""

    places: list[int]  # of the messages in their batch
    agents: list[str]
    ping_seqs: list[int]
    numbers: list[float | None]  # up_seconds, interval_seconds, response_ms, late_ms
    moments: list[str]  # pinged_at, next_ping_at, since, until
    gpus: list[GpuNames]


class Healthy(Struct, frozen=True):
    """Rows, and the places of their messages in the batch; `others` are the places of messages that are others."""

    rows: HealthyRows
    places: NDArray[np.int64]
    others: list[int]


_state_of = msgspec.json.Decoder(_State).decode  # bound once, for it is called for each row


def healthy(batch: list[Arrival], names: Dictionaries, piece: int = PIECE) -> Healthy:
    """The rows of healthy hosts' messages. Names that are new are given numbers."""
    pieces = [
        _piece(batch, start, start + piece, names) for start in range(0, len(batch) or 1, piece)
    ]
    return Healthy(
        HealthyRows.joined([one.rows for one in pieces]),
        np.concatenate([one.places for one in pieces]),
        sorted(chain.from_iterable(one.others for one in pieces)),
    )


def _piece(batch: list[Arrival], start: int, stop: int, names: Dictionaries) -> Healthy:
    gathered, others = _gather(batch, start, stop)
    times = moments(gathered.moments).reshape(-1, 4)
    readable: NDArray[np.bool_] = ~np.logical_or.reduce(np.isnat(times), axis=1)
    places = _whole(gathered.places)
    rows = _rows(gathered, times[readable].astype(np.int64), readable, names)
    return Healthy(rows, places[readable], others + places[~readable].tolist())


def _gather(batch: list[Arrival], start: int, stop: int) -> tuple[_Gathered, list[int]]:
    """Of host and GPUs that were up throughout the window, to the last digit; and the places of other messages."""
    places: list[int] = []
    agents: list[str] = []
    ping_seqs: list[int] = []
    numbers: list[float | None] = []
    times: list[str] = []
    gpus: list[GpuNames] = []
    others: list[int] = []
    for place, arrival in enumerate(batch[start:stop], start):
        try:
            state = _state_of(arrival.data)
        except (msgspec.DecodeError, ValueError, RecursionError):  # the long road says why
            others.append(place)
            continue
        last, report, window = state.last, state.last.report, state.last.report.window
        up = last.seconds.up
        if (
            state.agent_id == arrival.agent_id
            and up == last.window_seconds
            and arrival.signature is None
        ):
            seen: GpuNames = ()
            for gpu in report.gpus:
                if gpu.seconds.up != up:
                    break
                seen += ((gpu.uuid, gpu.index, gpu.name),)
            else:
                places.append(place)
                agents.append(state.agent_id)
                ping_seqs.append(last.ping_seq)
                numbers += (up, state.interval_seconds, last.response_ms, last.late_ms)
                times += (last.pinged_at, state.next_ping_at, window.since, window.until)
                gpus.append(seen)
                continue
        others.append(place)
    return _Gathered(places, agents, ping_seqs, numbers, times, gpus), others


def _rows(
    gathered: _Gathered, times: NDArray[np.int64], readable: NDArray[np.bool_], names: Dictionaries
) -> HealthyRows:
    """What is not readable is given no name."""
    numbers = np.array(gathered.numbers, dtype=np.float64).reshape(-1, 4)[readable]  # NaN for None
    up_seconds, interval_seconds, response_ms, late_ms = numbers.T
    pinged_us, next_us, since_us, until_us = times.T
    up_ms = np.rint(up_seconds * 1000).astype(np.int64)
    chosen = readable.tolist()
    return HealthyRows(
        agent=_whole([names.agents[agent_id] for agent_id in compress(gathered.agents, chosen)]),
        ping_seq=_whole(gathered.ping_seqs)[readable],
        pinged_us=pinged_us,
        next_us=next_us - pinged_us,
        interval_seconds=interval_seconds.astype(np.int64),
        up_ms=up_ms,
        until_ms=(until_us - pinged_us) // 1000,
        since_ms=(until_us - since_us) // 1000 - up_ms,
        response_us=np.rint(response_ms * 1000),
        late_us=np.rint(late_ms * 1000),
        gpu_set=_whole(
            [names.gpu_set(each) if each else NO_GPUS for each in compress(gathered.gpus, chosen)]
        ),
    )


def _whole(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
