"""Decodes a batch of messages of the history stream into rows. Pure: no clock, no database.

Healthy messages take the fast path (`fast_path.py`), all others the slow path here. What cannot be
read becomes a `Poisoned` like any other value, so that one bad message never stops ingest.
"""

from collections.abc import Callable
from typing import cast

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from bus.contract.durations import Durations
from bus.contract.messages import (
    AgentState,
    GpuReport,
    GpuTime,
    Incident,
    Outcome,
    Seconds,
    Span,
    UptimeReport,
    Window,
    decode,
)
from bus.contract.questions import SIMULATED
from bus.errors import BadMessageError
from storage.engine.dictionary import Dictionaries
from storage.engine.rows import (
    EXCUSED,
    Arrival,
    Evidence,
    FullRow,
    HealthyRows,
    Poisoned,
    from_microseconds,
    microseconds,
    milliseconds,
)
from storage.ingest.dedup import OutcomeKeys
from storage.ingest.fast_path import read_healthy
from storage.ingest.wire import StoredState

# How far a label of the host's clock may be from the ping and its answer, and is still believed.
LABEL_AGREES_US = 5_000_000
UNREPORTED_GPU = "unreported"  # the reason of a GPU that is expected and not in the report

SIGNATURE_HEADER = "Gpuping-Signature"
TOMBSTONE_HEADER = "KV-Operation"

# A StoredState has some of the fields of an AgentState, under the same names. To the type checker
# it is one.
_decode_state = cast("Callable[[bytes], AgentState]", msgspec.json.Decoder(StoredState).decode)

# What a message that is not an outcome may raise.
_MESSAGE_ERRORS = (
    BadMessageError,
    msgspec.DecodeError,
    ValueError,
    OverflowError,
    RecursionError,
)


class DecodedBatch(Struct, frozen=True):
    """What the messages of a batch say.

    `full` and `poisoned` have the index of their message as key.
    """

    healthy: HealthyRows
    healthy_indices: NDArray[np.int64]  # the message of each healthy row
    full: dict[int, FullRow]
    poisoned: dict[int, Poisoned]

    def outcomes(self) -> OutcomeKeys:
        """Returns the keys of all outcomes: of the healthy rows first, then of the full ones."""
        others = []
        for index, row in self.full.items():
            others.append((row.agent, row.ping_seq, row.pinged_us, index))
        columns = np.array(others, dtype=np.int64).reshape(-1, 4).T
        return OutcomeKeys(
            agent=np.concatenate([self.healthy.agent, columns[0]]),
            ping_seq=np.concatenate([self.healthy.ping_seq, columns[1]]),
            pinged_us=np.concatenate([self.healthy.pinged_us, columns[2]]),
            message_index=np.concatenate([self.healthy_indices, columns[3]]),
        )

    def within(self, part: range) -> "DecodedBatch":
        """Returns what the messages with these indices say."""
        indices = self.healthy_indices
        inside = np.flatnonzero((indices >= part.start) & (indices < part.stop))
        return DecodedBatch(
            self.healthy.take(inside),
            indices[inside],
            {index: row for index, row in self.full.items() if index in part},
            {index: one for index, one in self.poisoned.items() if index in part},
        )


def decode_batch(batch: list[Arrival], names: Dictionaries) -> DecodedBatch:
    """Returns the rows of the outcomes in these messages, and why some have none.

    Names that are new get numbers.
    """
    fast = read_healthy(batch, names)
    full: dict[int, FullRow] = {}
    poisoned: dict[int, Poisoned] = {}
    for index in fast.other_indices:
        arrival = batch[index]
        if arrival.tombstone:
            continue
        try:
            full[index] = full_row(arrival, names)
        except _MESSAGE_ERRORS as error:
            poisoned[index] = Poisoned(arrival, str(error)[:500])
    return DecodedBatch(fast.rows, fast.indices, full, poisoned)


def full_row(arrival: Arrival, names: Dictionaries) -> FullRow:
    """The slow path: returns the row of any outcome.

    Raises one of _MESSAGE_ERRORS where there is none.

    Names get their numbers last, so that a message which is refused leaves none behind.
    """
    state = _decode_state(arrival.data)
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
        response_us=_whole_microseconds(last.response_ms),
        late_us=_whole_microseconds(last.late_ms),
    )
    _set_durations(row, last.seconds, last.window_seconds)
    # A StoredOutcome has its report decoded, where an Outcome has its bytes.
    report = cast("UptimeReport | None", last.report)
    if report is not None and last.since is None:
        _set_labelled_window(row, report.window)
        row.incidents = report.incidents
        host_seconds = last.seconds or Seconds()
        if not _all_like_host(report.gpus, host_seconds, last.uptime_percent):
            row.gpus = report.gpus
    elif last.since is not None:
        row.until_ms = None
        row.since_ms = (pinged_us - microseconds(last.since)) // 1000 - _sum_ms(row)
    if report is not None and last.since is not None:
        row.incidents = _on_our_calendar(report.incidents, report.window, row)
        row.incidents += tuple(_excused_incident(span) for span in last.excused)
        row.gpus = _admitted_gpus(last, report)
    row.remarks = _remarks(last, report)
    if last.enrolled_at is not None:
        row.enrolled_us = microseconds(last.enrolled_at) // 1000 * 1000
    row.evidence = _evidence(arrival, last)
    row.agent = names.agents[state.agent_id]
    if report is not None and report.gpus:
        gpu_names = tuple([(gpu.uuid, gpu.index, gpu.name) for gpu in report.gpus])
        row.gpu_set = names.gpu_set(gpu_names)
    return row


def _set_durations(
    row: FullRow,
    seconds: Seconds | None,
    window_seconds: float | None,
) -> None:
    """Sets the times by state, and `window_ms` where it is not their sum."""
    window_ms = None
    if window_seconds is not None:
        window_ms = milliseconds(window_seconds)
    if seconds is None:
        row.up_ms = None
        row.degraded_ms = None
        row.down_ms = None
        row.unknown_ms = None
        row.excused_ms = None
        row.window_ms = window_ms
        return
    row.up_ms = milliseconds(seconds.up)
    not_up = seconds.degraded or seconds.down or seconds.unknown or seconds.excused
    if seconds.up != window_seconds or not_up:
        row.degraded_ms = milliseconds(seconds.degraded)
        row.down_ms = milliseconds(seconds.down)
        row.unknown_ms = milliseconds(seconds.unknown)
        row.excused_ms = milliseconds(seconds.excused)
        if window_ms != _sum_ms(row):
            row.window_ms = window_ms


def _sum_ms(row: FullRow) -> int:
    """The sum of the times by state. Zero where nothing was reported."""
    times = (row.up_ms, row.degraded_ms, row.down_ms, row.unknown_ms, row.excused_ms)
    return sum(time or 0 for time in times)


def _evidence(arrival: Arrival, last: Outcome) -> Evidence | None:
    """Returns what can be shown to a third party: a signed report, or one that was refused."""
    if last.refused_report is not None:
        return Evidence(arrival.signature or "", last.refused_report)
    if arrival.signature is None:
        return None
    payload = bytes(decode(arrival.data, AgentState).last.report).decode()
    return Evidence(arrival.signature, payload)


def _remarks(last: Outcome, report: UptimeReport | None) -> str | None:
    """Returns what is said about the window, as a list in JSON; None where it is nothing."""
    remarks = last.remarks
    if report is not None and report.simulated:
        remarks = (*remarks, SIMULATED)
    if not remarks:
        return None
    return msgspec.json.encode(remarks).decode()


def _excused_incident(span: Span) -> Incident:
    """Maintenance is kept beside the incidents, so that a window can be divided where it was."""
    return Incident(state=EXCUSED, reason="maintenance", since=span.since, until=span.until)


def _on_our_calendar(
    incidents: tuple[Incident, ...],
    window: Window,
    row: FullRow,
) -> tuple[Incident, ...]:
    """Returns the incidents by the scheduler's clock.

    Their times are labels of the host's clock. They are believed where the label of the window's
    end is near the ping or its answer; otherwise they are moved by as much as that label is off.
    A time that cannot be moved because it would be before 1970 or after 9998 stays as it is.
    """
    ended_us = microseconds(window.until)
    answered_us = row.pinged_us + (row.response_us or 0)
    if row.pinged_us - LABEL_AGREES_US <= ended_us <= answered_us + LABEL_AGREES_US:
        return incidents
    shift_us = row.pinged_us - ended_us
    moved = []
    for incident in incidents:
        since_us = microseconds(incident.since) + shift_us
        until = incident.until
        try:
            if until is not None:
                until = from_microseconds(microseconds(until) + shift_us)
            moved.append(replace(incident, since=from_microseconds(since_us), until=until))
        except (ValueError, OverflowError, OSError):
            moved.append(incident)
    return tuple(moved)


def _admitted_gpus(last: Outcome, report: UptimeReport) -> tuple[GpuReport, ...]:
    """Returns the GPUs with their admitted time, where they say more than the host's row does.

    Without times of their own, all GPUs have the host's.
    """
    reported = {gpu.uuid: gpu for gpu in report.gpus}
    if last.gpus:
        return tuple([_admitted_gpu(time, reported.get(time.uuid)) for time in last.gpus])
    if all(gpu.state == "up" and not gpu.reasons for gpu in report.gpus):
        return ()
    seconds = last.seconds or Seconds()
    gpus = []
    for gpu in reported.values():
        gpus.append(replace(gpu, seconds=seconds, uptime_percent=last.uptime_percent))
    return tuple(gpus)


def _admitted_gpu(time: GpuTime, reported: GpuReport | None) -> GpuReport:
    """Returns a GPU with its admitted time. One that is not in the report is down."""
    percent = Durations.from_seconds(time.seconds).uptime_percent
    if reported is None:
        return GpuReport(
            uuid=time.uuid,
            state="down",
            reasons=(UNREPORTED_GPU,),
            uptime_percent=percent,
            seconds=time.seconds,
        )
    return replace(reported, seconds=time.seconds, uptime_percent=percent)


def _set_labelled_window(row: FullRow, window: Window) -> None:
    """Sets the window of an outcome of before: where the host's clock labels it."""
    until_us = microseconds(window.until)
    since_us = microseconds(window.since)
    row.until_ms = (until_us - row.pinged_us) // 1000
    row.since_ms = (until_us - since_us) // 1000 - _sum_ms(row)


def _all_like_host(
    gpus: tuple[GpuReport, ...],
    host: Seconds,
    uptime_percent: float | None,
) -> bool:
    """Whether each GPU is up now, with the times and the uptime of the host."""
    for gpu in gpus:
        if gpu.state != "up" or gpu.reasons:
            return False
        if gpu.seconds != host or gpu.uptime_percent != uptime_percent:
            return False
    return True


def _whole_microseconds(time_ms: float | None) -> int | None:
    if time_ms is None:
        return None
    return round(time_ms * 1000)
