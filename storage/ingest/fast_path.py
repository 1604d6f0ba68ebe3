"""The fast path: from the messages of healthy hosts to their rows, many at a time. Pure.

Nearly all hosts are healthy: the ping was answered and judged good, host and GPUs were up
throughout the window, the interval is in whole seconds, and there is nothing else to say of the
window or of any GPU. The types here accept such messages only. Any other message takes the slow
path (`decode.py`), which gives the same row for a message that fits here.

Rows are columns of numbers, and what a message says is collected in flat lists. What is done to
each row by itself costs more than all the rest (measured), so the loop over messages does as little
as it can, and numpy does the rest for hundreds of messages at once.
"""

from itertools import compress
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from bus.contract.messages import DurationSeconds, GpuReport, Seconds
from storage.engine.dictionary import Dictionaries, GpuNames
from storage.engine.rows import MEASURED, NO_GPUS, NOT_TOLD, Arrival, HealthyRows
from storage.ingest.timestamps import timestamps
from storage.ingest.wire import (
    LONGEST,
    StoredOutcome,
    StoredReport,
    StoredState,
    StoredWindow,
    narrowed,
)

# Messages that are read together. What is made of them still lies in the processor's cache when it
# is used; 1,000 take 5 to 30 % more time.
CHUNK = 500

_Zero = Annotated[float, Meta(ge=0.0, le=0.0)]
_Hundred = Annotated[float, Meta(ge=100.0, le=100.0)]
_Empty = Annotated[tuple[msgspec.Raw, ...], Meta(max_length=0)]
_WholeSeconds = Annotated[
    float,
    Meta(
        ge=0.0,
        le=LONGEST,
        multiple_of=1,
    ),
]

_UpSeconds = narrowed(
    "_UpSeconds",
    Seconds,
    up=(DurationSeconds, 0.0),
    degraded=(_Zero, 0.0),
    down=(_Zero, 0.0),
    unknown=(_Zero, 0.0),
    excused=(_Zero, 0.0),
)
_UpGpu = narrowed(
    "_UpGpu",
    GpuReport,
    state=Literal["up"],
    reasons=(_Empty, ()),
    uptime_percent=_Hundred,
    seconds=(_UpSeconds, _UpSeconds()),
)
# Timestamps stay text here, to be read together later.
_TextWindow = narrowed("_TextWindow", StoredWindow, since=str, until=str)
_HealthyReport = narrowed(
    "_HealthyReport",
    StoredReport,
    window=_TextWindow,
    gpus=(GenericAlias(tuple, (_UpGpu, ...)), ()),
    incidents=(_Empty, ()),
)
_HealthyOutcome = narrowed(
    "_HealthyOutcome",
    StoredOutcome,
    pinged_at=str,
    outcome=Literal["answered"],
    verdict=Literal["good"],
    reason=(None, None),
    uptime_percent=_Hundred,
    seconds=_UpSeconds,
    window_seconds=float,
    since=(str | None, None),
    gpus=(_Empty, ()),
    remarks=(_Empty, ()),
    enrolled_at=(str | None, None),
    refused_report=(None, None),
    report=_HealthyReport,
)
_HealthyState = narrowed(
    "_HealthyState",
    StoredState,
    consecutive_poor=(Literal[0], 0),
    interval_seconds=_WholeSeconds,
    next_ping_at=str,
    last=_HealthyOutcome,
)

# Bound once, for it is called for each message.
_decode_state = msgspec.json.Decoder(_HealthyState).decode


class _Collected(Struct, frozen=True):
    """What the healthy messages of a chunk say.

    `numbers` is flat, with four values a message, and `times` with five.
    """

    indices: list[int]  # of the messages in their batch
    agents: list[str]
    ping_seqs: list[int]
    numbers: list[float | None]  # up seconds, interval seconds, response_ms, late_ms
    # pinged_at, next_ping_at, the window's since and until, and the start of the enrolment, for
    # which pinged_at stands where it is not told
    times: list[str]
    measured: list[bool]  # whether the scheduler measured the window
    enrolled: list[bool]  # whether the start of the enrolment is told
    gpus: list[GpuNames]
    other_indices: list[int]  # of the messages that are not healthy


class FastPathRows(Struct, frozen=True):
    """The rows of the healthy messages in a batch, with the index of each message.

    `other_indices` are those of all other messages, in order.
    """

    rows: HealthyRows
    indices: NDArray[np.int64]
    other_indices: list[int]


def read_healthy(
    batch: list[Arrival],
    names: Dictionaries,
    chunk: int = CHUNK,
) -> FastPathRows:
    """Returns the rows of the healthy messages in a batch. Names that are new get numbers."""
    rows = []
    indices = []
    other_indices = []
    # An empty batch is one empty chunk, so that there is something to join.
    for start in range(0, len(batch) or 1, chunk):
        part = _read_chunk(batch, start, start + chunk, names)
        rows.append(part.rows)
        indices.append(part.indices)
        other_indices += part.other_indices
    return FastPathRows(HealthyRows.joined(rows), np.concatenate(indices), sorted(other_indices))


def _read_chunk(
    batch: list[Arrival],
    start: int,
    stop: int,
    names: Dictionaries,
) -> FastPathRows:
    collected = _collect(batch, start, stop)
    times = timestamps(collected.times).reshape(-1, 5)
    readable: NDArray[np.bool_] = ~np.logical_or.reduce(np.isnat(times), axis=1)
    rows = _rows(collected, times[readable].astype(np.int64), readable, names)
    indices = _integers(collected.indices)
    unreadable = indices[~readable].tolist()
    return FastPathRows(rows, indices[readable], collected.other_indices + unreadable)


def _collect(
    batch: list[Arrival],
    start: int,
    stop: int,
) -> _Collected:
    """Collects what the messages say in which host and GPUs were up throughout, to the last digit.

    The loop runs once for each message, so it is packed on purpose: one `+=` adds four values
    without a call, and `for ... else` stands where a function would otherwise be called for each
    message.
    """
    indices: list[int] = []
    agents: list[str] = []
    ping_seqs: list[int] = []
    numbers: list[float | None] = []
    times: list[str] = []
    gpus: list[GpuNames] = []
    measured: list[bool] = []
    enrolled: list[bool] = []
    other_indices: list[int] = []
    for index, arrival in enumerate(batch[start:stop], start):
        try:
            state: Any = _decode_state(arrival.data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            # It is not healthy, or not an outcome at all: the slow path finds out.
            other_indices.append(index)
            continue
        last = state.last
        report = last.report
        up = last.seconds.up
        if (
            state.agent_id == arrival.agent_id
            and up == last.window_seconds
            and arrival.signature is None
            and not report.simulated
        ):
            measured_since = last.since
            gpu_names: GpuNames = ()
            for gpu in report.gpus:
                # Where the window was measured, every GPU has the time of the host.
                if measured_since is None and gpu.seconds.up != up:
                    break
                gpu_names += ((gpu.uuid, gpu.index, gpu.name),)
            else:
                indices.append(index)
                agents.append(state.agent_id)
                ping_seqs.append(last.ping_seq)
                numbers += (up, state.interval_seconds, last.response_ms, last.late_ms)
                pinged_at = last.pinged_at
                if measured_since is None:
                    window = report.window
                    times += (pinged_at, state.next_ping_at, window.since, window.until)
                else:
                    times += (pinged_at, state.next_ping_at, measured_since, pinged_at)
                times.append(last.enrolled_at or pinged_at)
                measured.append(measured_since is not None)
                enrolled.append(last.enrolled_at is not None)
                gpus.append(gpu_names)
                continue
        other_indices.append(index)
    return _Collected(
        indices, agents, ping_seqs, numbers, times, measured, enrolled, gpus, other_indices
    )


def _rows(
    collected: _Collected,
    times: NDArray[np.int64],
    readable: NDArray[np.bool_],
    names: Dictionaries,
) -> HealthyRows:
    """The rows of those messages whose timestamps are readable.

    Names in the others get no number.
    """
    # None becomes NaN.
    numbers = np.array(collected.numbers, dtype=np.float64).reshape(-1, 4)[readable]
    up_seconds, interval_seconds, response_ms, late_ms = numbers.T
    pinged_us, next_us, since_us, until_us, enrolled_us = times.T
    measured = np.array(collected.measured, dtype=np.bool_)[readable]
    enrolled = np.array(collected.enrolled, dtype=np.bool_)[readable]
    up_ms = np.rint(up_seconds * 1000).astype(np.int64)
    chosen = readable.tolist()
    agents = [names.agents[agent_id] for agent_id in compress(collected.agents, chosen)]
    gpu_sets = []
    for gpus in compress(collected.gpus, chosen):
        if gpus:
            gpu_sets.append(names.gpu_set(gpus))
        else:
            gpu_sets.append(NO_GPUS)
    return HealthyRows(
        agent=_integers(agents),
        ping_seq=_integers(collected.ping_seqs)[readable],
        pinged_us=pinged_us,
        next_us=next_us - pinged_us,
        interval_seconds=interval_seconds.astype(np.int64),
        up_ms=up_ms,
        until_ms=np.where(measured, MEASURED, (until_us - pinged_us) // 1000),
        since_ms=(until_us - since_us) // 1000 - up_ms,
        response_us=np.rint(response_ms * 1000),
        late_us=np.rint(late_ms * 1000),
        gpu_set=_integers(gpu_sets),
        enrolled_us=np.where(enrolled, enrolled_us // 1000 * 1000, NOT_TOLD),
    )


def _integers(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
