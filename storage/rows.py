"""From a message of the history stream to the rows that are kept of it. Pure: no clock, no database.

A message is decoded once, into no more than what history keeps. What cannot be read becomes `Poisoned`, a
value like any other: one bad record never stops the loop.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from msgspec import Struct

from bus.errors import BadMessageError
from bus.messages import AgentState, GpuReport, Incident, Seconds, decode
from storage.states import LONGEST, Period, State

SIGNATURE_HEADER = "Gpuping-Signature"
TOMBSTONE_HEADER = "KV-Operation"
_state_of = msgspec.json.Decoder(State).decode  # bound once, for it is called for each row
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)


class Arrival(Struct, frozen=True, gc=False):
    """One message as it came: where in the stream, on which subject, and its bytes."""

    sequence: int
    agent_id: str
    data: bytes
    signature: str | None = None


class PingRow(Struct, omit_defaults=True, gc=False):
    """A row of `pings`. The defaults are a healthy ping's, and encode to nothing: `insert_healthy.sql` knows them.

    What differs from one healthy ping to the next comes first, to be given by place. `agent` and `gpu_set` are filled
    in by ingest. (gc=False: ten thousand rows at once hold no cycles.)
    """

    agent: int
    ping_seq: int
    pinged_us: int
    next_us: int
    interval_seconds: float
    up_ms: int | None = None
    until_ms: int | None = None
    since_ms: int | None = None
    response_us: int | None = None
    late_us: int | None = None
    gpu_set: int | None = None
    outcome: str = "answered"
    verdict: str = "good"
    reason: str | None = None
    uptime_percent: float | None = 100.0
    degraded_ms: int | None = 0
    down_ms: int | None = 0
    unknown_ms: int | None = 0
    excused_ms: int | None = 0
    window_ms: int | None = None
    consecutive_poor: int = 0


class Entry(Struct, gc=False):
    """An outcome, taken apart: its row, and what is kept beside it where there is more to say."""

    agent_id: str
    ping: PingRow
    gpu_names: str | None = None  # JSON [[uuid, index, name], ...]
    healthy: bool = False  # the row's first eleven columns say it all
    gpus: tuple[GpuReport, ...] = ()  # empty where the host's row says it all
    incidents: tuple[Incident, ...] = ()
    evidence: tuple[str, str] | None = None  # signature, payload


class Poisoned(Struct, frozen=True):
    """A message that is no outcome, and why."""

    arrival: Arrival
    detail: str


def read(arrival: Arrival) -> Entry | Poisoned:
    """The outcome in a message, or why there is none."""
    try:
        state = _state_of(arrival.data)
        if state.agent_id != arrival.agent_id:
            raise BadMessageError(f"the state of {state.agent_id!r} on the subject of {arrival.agent_id!r}")
        entry = _healthy(state) if arrival.signature is None else None
        return entry or _entry(arrival, state)
    except (BadMessageError, msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        return Poisoned(arrival, f"{error}"[:500])


def microseconds(moment: datetime) -> int:
    """Since 1970, exact."""
    return (moment - _EPOCH) // _MICROSECOND  # not timestamp(): a double loses microseconds in a hundred years


def moment(since_1970_us: int) -> datetime:
    """The inverse of `microseconds`."""
    return datetime.fromtimestamp(since_1970_us // 1_000_000, UTC).replace(microsecond=since_1970_us % 1_000_000)


def milliseconds(seconds: float) -> int:
    """The ledger's grain."""
    return round(seconds * 1000)


def _healthy(state: State) -> Entry | None:
    """What `_entry` makes of a healthy host's state, in fewer steps; None for all others.

    Nearly all are: answered, judged good, up throughout, and nothing more to say of any GPU.
    """
    last, report, seconds = state.last, state.last.report, state.last.seconds
    if (
        report is None
        or seconds is None
        or last.verdict != "good"
        or last.outcome != "answered"
        or last.uptime_percent != 100.0
        or seconds.up != last.window_seconds
        or seconds.degraded
        or seconds.down
        or seconds.unknown
        or seconds.excused
        or state.consecutive_poor
        or last.reason is not None
        or report.incidents
        or not _say_no_more(report.gpus, seconds, 100.0)
    ):
        return None
    pinged, until = last.pinged_at, report.window.until
    up_ms = round(seconds.up * 1000)
    row = PingRow(
        0,
        last.ping_seq,
        (pinged - _EPOCH) // _MICROSECOND,
        (state.next_ping_at - pinged) // _MICROSECOND,
        state.interval_seconds,
        up_ms,
        (until - pinged) // _MILLISECOND,
        (until - report.window.since) // _MILLISECOND - up_ms,
        None if last.response_ms is None else round(last.response_ms * 1000),
        None if last.late_ms is None else round(last.late_ms * 1000),
    )
    return Entry(state.agent_id, row, _names(report.gpus) if report.gpus else None, True)


def _entry(arrival: Arrival, state: State) -> Entry:
    last = state.last
    row = _row(state)
    entry = Entry(state.agent_id, row)
    if report := last.report:
        seconds = last.seconds or Seconds()
        _window(row, report.window)
        entry.incidents = report.incidents
        if report.gpus:
            entry.gpu_names = _names(report.gpus)
            if not _say_no_more(report.gpus, seconds, last.uptime_percent):
                entry.gpus = report.gpus
    if arrival.signature is not None:
        payload = bytes(decode(arrival.data, AgentState).last.report).decode()
        entry.evidence = (arrival.signature, payload)
    return entry


def _names(gpus: tuple[GpuReport, ...]) -> str:
    return _named(tuple([(gpu.uuid, gpu.index, gpu.name) for gpu in gpus]))


@lru_cache(maxsize=100_000)
def _named(gpus: tuple[tuple[str, int | None, str], ...]) -> str:
    """A host has the same GPUs in every report."""
    return msgspec.json.encode(gpus).decode()


def _row(state: State) -> PingRow:
    last = state.last
    pinged_us = microseconds(last.pinged_at)
    row = PingRow(
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
    return row


def _account(row: PingRow, seconds: Seconds | None, window_seconds: float | None) -> None:
    window_ms = None if window_seconds is None else milliseconds(window_seconds)
    if seconds is None:
        row.up_ms = row.degraded_ms = row.down_ms = row.unknown_ms = row.excused_ms = None
        row.window_ms = window_ms
        return
    row.up_ms = milliseconds(seconds.up)
    if seconds.up != window_seconds or seconds.degraded or seconds.down or seconds.unknown or seconds.excused:
        row.degraded_ms = milliseconds(seconds.degraded)
        row.down_ms = milliseconds(seconds.down)
        row.unknown_ms = milliseconds(seconds.unknown)
        row.excused_ms = milliseconds(seconds.excused)
        if _accounted(row) > LONGEST:
            raise BadMessageError(f"{_accounted(row)} ms: too long to be a window")
        row.window_ms = None if window_ms == _accounted(row) else window_ms


def _accounted(row: PingRow) -> int:
    return (
        (row.up_ms or 0) + (row.degraded_ms or 0) + (row.down_ms or 0) + (row.unknown_ms or 0) + (row.excused_ms or 0)
    )


def _window(row: PingRow, window: Period) -> None:
    until_us, since_us = microseconds(window.until), microseconds(window.since)
    row.until_ms = (until_us - row.pinged_us) // 1000
    row.since_ms = (until_us - since_us) // 1000 - _accounted(row)


def _say_no_more(gpus: tuple[GpuReport, ...], host: Seconds, uptime_percent: float | None) -> bool:
    """Whether each GPU is up, with the host's own account."""
    for gpu in gpus:
        if gpu.state != "up" or gpu.reasons or gpu.seconds != host or gpu.uptime_percent != uptime_percent:
            return False
    return True


def _scaled(thousandths: float | None) -> int | None:
    """Milliseconds as whole microseconds."""
    return None if thousandths is None else round(thousandths * 1000)
