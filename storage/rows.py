"""From a message of the history stream to the rows that are kept of it. Pure: no clock, no database.

A message is decoded once, into no more than what history keeps. What cannot be read becomes `Poisoned`, a
value like any other: one bad record never stops the loop.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from msgspec import Struct

from bus.errors import BadMessageError
from bus.messages import AgentState, Duration, GpuReport, Incident, Percent, Result, Seconds, Span, Verdict, decode

SIGNATURE_HEADER = "Gpuping-Signature"
TOMBSTONE_HEADER = "KV-Operation"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LARGEST = 2**62  # of what goes into a BIGINT


class Arrival(Struct, frozen=True, gc=False):
    """One message as it came: where in the stream, on which subject, and its bytes."""

    sequence: int
    agent_id: str
    data: bytes
    signature: str | None = None


class PingRow(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A row of `pings`. The defaults are a healthy ping's, and encode to nothing: `insert_healthy.sql` knows them.

    `agent` and `gpu_set` are filled in by ingest. (gc=False: ten thousand rows at once hold no cycles.)
    """

    agent: int
    ping_seq: int
    pinged_us: int
    next_us: int
    interval_seconds: float
    outcome: str = "answered"
    verdict: str = "good"
    reason: str | None = None
    uptime_percent: float | None = 100.0
    up_ms: int | None = None
    degraded_ms: int | None = 0
    down_ms: int | None = 0
    unknown_ms: int | None = 0
    excused_ms: int | None = 0
    window_ms: int | None = None
    until_ms: int | None = None
    since_ms: int | None = None
    consecutive_poor: int = 0
    response_us: int | None = None
    late_us: int | None = None
    gpu_set: int | None = None


class Entry(Struct, gc=False):
    """An outcome, taken apart: its row, and what is kept beside it where there is more to say."""

    sequence: int
    agent_id: str
    ping: PingRow
    gpu_names: str | None = None  # JSON [[uuid, index, name], ...]
    gpus: tuple[GpuReport, ...] = ()  # empty where the host's row says it all
    incidents: tuple[Incident, ...] = ()
    evidence: tuple[str, str] | None = None  # signature, payload


class Poisoned(Struct, frozen=True):
    """A message that is no outcome, and why."""

    arrival: Arrival
    detail: str


class _Report(Struct, kw_only=True, frozen=True, gc=False):
    """The part of an UptimeReport that history keeps in columns."""

    window: Span
    gpus: tuple[GpuReport, ...] = ()
    incidents: tuple[Incident, ...] = ()


class _Outcome(Struct, kw_only=True, frozen=True, gc=False):
    """bus.messages.Outcome, its report decoded at once."""

    ping_seq: int
    pinged_at: datetime
    outcome: Result
    verdict: Verdict
    reason: str | None = None
    uptime_percent: Percent | None = None
    seconds: Seconds | None = None
    window_seconds: Duration | None = None
    response_ms: float | None = None
    late_ms: float | None = None
    report: _Report | None = None


class _State(Struct, kw_only=True, frozen=True, gc=False):
    """The part of an AgentState that history keeps; its id is checked against the subject, which is checked."""

    agent_id: str
    interval_seconds: float
    next_ping_at: datetime
    last: _Outcome
    consecutive_poor: int = 0


def read(arrival: Arrival) -> Entry | Poisoned:
    """The outcome in a message, or why there is none."""
    try:
        state = decode(arrival.data, _State)
        _check(state, arrival)
        return _entry(arrival, state)
    except (BadMessageError, ValueError, OverflowError) as error:
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


def _check(state: _State, arrival: Arrival) -> None:
    if state.agent_id != arrival.agent_id:
        raise BadMessageError(f"the state of {state.agent_id!r} on the subject of {arrival.agent_id!r}")
    if state.last.ping_seq < 1:
        raise BadMessageError(f"ping_seq {state.last.ping_seq}: expected 1 or more")


def _entry(arrival: Arrival, state: _State) -> Entry:
    last = state.last
    row = _row(state)
    entry = Entry(sequence=arrival.sequence, agent_id=state.agent_id, ping=row)
    if report := last.report:
        seconds = last.seconds or Seconds()
        _window(row, report.window)
        entry.incidents = report.incidents
        if report.gpus:
            entry.gpu_names = _names(tuple([(g.uuid, g.index, g.name) for g in report.gpus]))
            if not all(_says_no_more(gpu, seconds, last.uptime_percent) for gpu in report.gpus):
                entry.gpus = report.gpus
    if arrival.signature is not None:
        payload = bytes(decode(arrival.data, AgentState).last.report).decode()
        entry.evidence = (arrival.signature, payload)
    return entry


@lru_cache(maxsize=100_000)
def _names(gpus: tuple[tuple[str, int | None, str], ...]) -> str:
    """A host has the same GPUs in every report."""
    return msgspec.json.encode(gpus).decode()


def _row(state: _State) -> PingRow:
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
        row.window_ms = None if window_ms == _accounted(row) else window_ms


def _accounted(row: PingRow) -> int:
    return (
        (row.up_ms or 0) + (row.degraded_ms or 0) + (row.down_ms or 0) + (row.unknown_ms or 0) + (row.excused_ms or 0)
    )


def _window(row: PingRow, window: Span) -> None:
    until_us, since_us = microseconds(window.until), microseconds(window.since)
    row.until_ms = (until_us - row.pinged_us) // 1000
    row.since_ms = (until_us - since_us) // 1000 - _accounted(row)


def _says_no_more(gpu: GpuReport, host: Seconds, uptime_percent: float | None) -> bool:
    return gpu.state == "up" and not gpu.reasons and gpu.seconds == host and gpu.uptime_percent == uptime_percent


def _scaled(thousandths: float | None) -> int | None:
    """Milliseconds as whole microseconds."""
    if thousandths is None:
        return None
    scaled = round(thousandths * 1000)
    if abs(scaled) > _LARGEST:
        raise BadMessageError(f"{thousandths:g} ms: too large to be a time")
    return scaled


def is_healthy(row: PingRow) -> bool:
    """Most rows: judged good, up throughout, nothing beside it. They take a short road into the database."""
    return (
        row.verdict == "good"
        and row.outcome == "answered"
        and row.uptime_percent == 100.0
        and not (row.degraded_ms or row.down_ms or row.unknown_ms or row.excused_ms)
        and row.degraded_ms is not None
        and row.consecutive_poor == 0
        and row.reason is None
        and row.window_ms is None
    )
