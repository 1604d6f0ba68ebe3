"""From messages of the history stream to their rows. Pure: no clock, no database.

A message is decoded into no more than what history keeps. What cannot be read becomes `Poisoned`, a
value like any other: one bad record never stops the loop.
"""

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bus.contract.messages import AgentState, GpuReport, Seconds, decode
from bus.errors import BadMessageError
from storage.engine.dictionary import Dictionaries
from storage.engine.rows import Arrival, FullRow, HealthyRows, Poisoned, microseconds, milliseconds
from storage.ingest.dedup import OutcomeKeys
from storage.ingest.fast_path import healthy
from storage.ingest.wire import Period, State

SIGNATURE_HEADER = "Gpuping-Signature"
TOMBSTONE_HEADER = "KV-Operation"
_state_of = msgspec.json.Decoder(State).decode


class DecodedBatch(Struct, frozen=True):
    """What a batch of messages says; what is not healthy stands under its message's place in the batch."""

    healthy: HealthyRows
    places: NDArray[np.int64]  # of the healthy ones
    full: dict[int, FullRow]
    poisoned: dict[int, Poisoned]

    def outcomes(self) -> OutcomeKeys:
        """The keys of all outcomes: the healthy ones, then the others."""
        full = [(row.agent, row.ping_seq, row.pinged_us, place) for place, row in self.full.items()]
        healthy = self.healthy.agent, self.healthy.ping_seq, self.healthy.pinged_us, self.places
        columns = np.array(full, dtype=np.int64).reshape(-1, 4).T
        return OutcomeKeys(*(np.concatenate(both) for both in zip(healthy, columns, strict=True)))

    def within(self, part: range) -> "DecodedBatch":
        """What the messages in these places say."""
        inside = np.flatnonzero((self.places >= part.start) & (self.places < part.stop))
        return DecodedBatch(
            self.healthy.take(inside),
            self.places[inside],
            {place: row for place, row in self.full.items() if place in part},
            {place: one for place, one in self.poisoned.items() if place in part},
        )


def read(batch: list[Arrival], names: Dictionaries) -> DecodedBatch:
    """The rows of the outcomes in these messages, and why some have none. Names that are new are given numbers."""
    short = healthy(batch, names)
    full, poisoned = {}, {}
    for place in short.others:
        if batch[place].tombstone:
            continue
        try:
            full[place] = full_row(batch[place], names)
        except (
            BadMessageError,
            msgspec.DecodeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            poisoned[place] = Poisoned(batch[place], f"{error}"[:500])
    return DecodedBatch(short.rows, short.places, full, poisoned)


def full_row(arrival: Arrival, names: Dictionaries) -> FullRow:
    """The long road: the row of any outcome, whole."""
    state = _state_of(arrival.data)
    if state.agent_id != arrival.agent_id:
        raise BadMessageError(
            f"the state of {state.agent_id!r} on the subject of {arrival.agent_id!r}"
        )
    last = state.last
    pinged_us = microseconds(last.pinged_at)
    row = FullRow(
        agent=0,
        ping_seq=last.ping_seq,
        pinged_us=pinged_us,
        next_us=microseconds(state.next_ping_at) - pinged_us,
        interval_seconds=state.interval_seconds,
        outcome=last.outcome,
        verdict=last.verdict,
        reason=last.reason,
        uptime_percent=last.uptime_percent,
        consecutive_poor=state.consecutive_poor,
        response_us=_scaled(last.response_ms),
        late_us=_scaled(last.late_ms),
    )
    _account(row, last.seconds, last.window_seconds)
    if report := last.report:
        _window(row, report.window)
        row.incidents = report.incidents
        if not _say_no_more(report.gpus, last.seconds or Seconds(), last.uptime_percent):
            row.gpus = report.gpus
    if arrival.signature is not None:
        payload = bytes(decode(arrival.data, AgentState).last.report).decode()
        row.evidence = (arrival.signature, payload)
    row.agent = names.agents[state.agent_id]  # last: what is poisoned is given no number
    if report and report.gpus:
        row.gpu_set = names.gpu_set(tuple([(gpu.uuid, gpu.index, gpu.name) for gpu in report.gpus]))
    return row


def _account(row: FullRow, seconds: Seconds | None, window_seconds: float | None) -> None:
    window_ms = None if window_seconds is None else milliseconds(window_seconds)
    if seconds is None:
        row.up_ms = row.degraded_ms = row.down_ms = row.unknown_ms = row.excused_ms = None
        row.window_ms = window_ms
        return
    row.up_ms = milliseconds(seconds.up)
    if (
        seconds.up != window_seconds
        or seconds.degraded
        or seconds.down
        or seconds.unknown
        or seconds.excused
    ):
        row.degraded_ms = milliseconds(seconds.degraded)
        row.down_ms = milliseconds(seconds.down)
        row.unknown_ms = milliseconds(seconds.unknown)
        row.excused_ms = milliseconds(seconds.excused)
        row.window_ms = None if window_ms == _accounted(row) else window_ms


def _accounted(row: FullRow) -> int:
    return (
        (row.up_ms or 0)
        + (row.degraded_ms or 0)
        + (row.down_ms or 0)
        + (row.unknown_ms or 0)
        + (row.excused_ms or 0)
    )


def _window(row: FullRow, window: Period) -> None:
    until_us, since_us = microseconds(window.until), microseconds(window.since)
    row.until_ms = (until_us - row.pinged_us) // 1000
    row.since_ms = (until_us - since_us) // 1000 - _accounted(row)


def _say_no_more(gpus: tuple[GpuReport, ...], host: Seconds, uptime_percent: float | None) -> bool:
    """Whether each GPU is up, with the host's own account."""
    for gpu in gpus:
        if (
            gpu.state != "up"
            or gpu.reasons
            or gpu.seconds != host
            or gpu.uptime_percent != uptime_percent
        ):
            return False
    return True


def _scaled(thousandths: float | None) -> int | None:
    """Milliseconds as whole microseconds."""
    return None if thousandths is None else round(thousandths * 1000)
