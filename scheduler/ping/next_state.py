"""Turns the result of a ping into the writes of its outcome: the next state and the next timer.

Pure: it applies the policy and shapes what is written. The first report of an agent also sets the
GPUs that are expected from then on.
"""

import base64
from datetime import datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.messages import (
    NO_REPORT,
    AgentEntry,
    AgentState,
    KnownGpu,
    Outcome,
    OutcomeWord,
    Silence,
    Standing,
    UptimeReport,
    encode,
    report_of,
)
from bus.contract.statements import TWO_UNDER_ONE_ID
from bus.identity.ledger_heads import LEDGER_EDITED
from bus.identity.signed_report import HEADER
from bus.transport.batch import Write
from scheduler.fleet import duplicate_ids
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.silence import heard_late, silence_after_miss, silence_interrupted
from scheduler.ping.timestamps import whole_millisecond
from scheduler.ping.window import (
    gpu_times,
)
from scheduler.policy import (
    Answered,
    Excused,
    Missed,
    PingResult,
    Policy,
    Step,
    advance,
    next_ping_at,
)
from scheduler.write.timers import timer

# Of one agent. The server copies states to the history stream, and must not skip a revision.
MIN_SECONDS_BETWEEN_OUTCOMES = 1.0
MAX_WRITES = 3  # of one outcome: state, timer, expected GPUs


def next_state(
    attempt: PingAttempt,
    result: PingResult,
    now: datetime,
    policy: Policy,
) -> AgentState:
    """Returns the agent's state after this result."""
    before = attempt.base_state
    report = attempt.report
    step = advance(_standing(before), result, policy)
    standing = step.standing
    missed = 0
    since_mark = None
    last_answered_at = None
    answered_ping = None
    mark_refused = False
    report_hash = None
    report_key = None
    ledger_heads: tuple[str, ...] = ()
    if before is not None:
        ledger_heads = before.ledger_heads
        report_hash = before.report_hash
        report_key = before.report_key
        missed = before.missed
        since_mark = before.since_mark
        last_answered_at = before.last_answered_at
        answered_ping = before.answered_ping
        mark_refused = before.mark_refused
    if isinstance(result, Missed):
        missed += 1
    if report is not None:
        since_mark = report.window.mark
        last_answered_at = attempt.pinged_at
        answered_ping = attempt.sent
        mark_refused = False
        if attempt.signature is not None:
            report_hash = attempt.signature.record_hash
            report_key = attempt.signature.signature.key
            ledger_heads = attempt.signature.ledger_heads_after(attempt.ledger_heads)
    elif attempt.refused_report is not None:
        mark_refused = True
    if attempt.ledger_remark == LEDGER_EDITED and attempt.signature is not None:
        # It is said once; the next report goes on from the ledger as it is now.
        ledger_heads = attempt.signature.ledger_heads_after(())
    identities = duplicate_ids.identities(before, attempt.tracked.entry, report)
    are_two = identities.are_conflicting or bool(attempt.tracked.two_connections)
    assert attempt.pinged_at  # noqa: S101  # an attempt with a result was started
    # Each field by its name: through a dictionary this takes 2 us more a ping.
    return AgentState(
        answered=standing.answered,
        consecutive_poor=standing.consecutive_poor,
        good_streak=standing.good_streak,
        recovering=standing.recovering,
        no_gpu=standing.no_gpu,
        last_judged=standing.last_judged,
        last_outcome=standing.last_outcome,
        uptime_percent=standing.uptime_percent,
        unjudged=standing.unjudged,
        agent_id=attempt.agent_id,
        ping_seq=attempt.seq,
        missed=missed,
        interval_seconds=step.interval_seconds,
        next_ping_at=_next_ping_at(attempt.pinged_at, result, step, now),
        since_mark=since_mark,
        last_answered_at=last_answered_at,
        boot_ids=identities.boot_ids,
        conflicting_boot_ids=identities.conflicting_boot_ids,
        session_ids=identities.session_ids,
        conflicting_sessions=identities.conflicting_sessions,
        gpu_sets=identities.gpu_sets,
        conflicting_gpus=identities.conflicting_gpus,
        conflicting_connections=attempt.tracked.two_connections,
        answered_ping=answered_ping,
        silence=_silence(attempt, result, step),
        mark_refused=mark_refused,
        gpus_before=_gpus_before(before, report),
        report_hash=report_hash,
        report_key=report_key,
        ledger_heads=ledger_heads,
        last=_outcome(attempt, attempt.pinged_at, result, step, are_two=are_two),
    )


def _standing(before: AgentState | None) -> Standing:
    """Returns the policy's part of a state alone, which costs less to copy than the whole."""
    if before is None:
        return Standing()
    return Standing(
        answered=before.answered,
        consecutive_poor=before.consecutive_poor,
        good_streak=before.good_streak,
        recovering=before.recovering,
        no_gpu=before.no_gpu,
        last_judged=before.last_judged,
        last_outcome=before.last_outcome,
        uptime_percent=before.uptime_percent,
        unjudged=before.unjudged,
    )


def _gpus_before(before: AgentState | None, report: UptimeReport | None) -> tuple[KnownGpu, ...]:
    """Returns what the last report called the GPUs, for a state whose outcome has no report."""
    if report is not None or before is None:
        return ()
    last_report = report_of(before.last)
    if last_report is None:
        return before.gpus_before
    return tuple(KnownGpu(gpu.uuid, gpu.index, gpu.name) for gpu in last_report.gpus)


def writes(
    attempt: PingAttempt,
    state: AgentState,
    fires_at: datetime | None = None,
) -> list[Write]:
    """Returns the writes of one outcome; the state comes first.

    The timer is set to fire at `fires_at`, or at its usual time if that is None. It is not written
    when the timer in the bucket fires at `fires_at` already.
    """
    tracked = attempt.tracked
    state_key = subjects.state_key(state.agent_id)
    headers = {}
    if attempt.signature is not None:
        headers[HEADER] = attempt.signature.signature.to_header()
    batch = [Write(state_key, encode(state), headers, expected=attempt.base_revision)]
    if not tracked.registered or tracked.entry is None:
        return batch
    if fires_at is None or fires_at != tracked.timer_at:
        batch.append(timer(state.agent_id, state.ping_seq + 1, state.next_ping_at, fires_at))
    entry = _expecting_gpus(tracked.entry, attempt.report)
    if entry is not None:
        agent_key = subjects.agent_key(state.agent_id)
        batch.append(Write(agent_key, encode(entry), expected=tracked.entry_revision))
    return batch


def max_writes(attempt: PingAttempt) -> int:
    """Returns an upper limit for the number of `writes`.

    Only an agent without expected GPUs, or with simulated ones, may need the third write.
    """
    entry = attempt.tracked.entry
    if entry is not None and (entry.expects_simulated or not entry.expected_gpus):
        return MAX_WRITES
    return MAX_WRITES - 1


def _next_ping_at(
    pinged_at: datetime,
    result: PingResult,
    step: Step,
    now: datetime,
) -> datetime:
    if isinstance(result, Excused) and result.retries:
        # Nothing was learned about the agent, so it is pinged again as soon as that is allowed.
        return now + timedelta(seconds=MIN_SECONDS_BETWEEN_OUTCOMES)
    return next_ping_at(pinged_at, step.interval_seconds, now)


def _silence(
    attempt: PingAttempt,
    result: PingResult,
    step: Step,
) -> Silence | None:
    """Returns the billed misses since the last answered ping, this one included."""
    if isinstance(result, Answered):
        return None
    silence = None
    if attempt.base_state is not None:
        silence = heard_late(attempt.base_state.silence, attempt.tracked.late_answer_at)
    if isinstance(result, Excused):
        return silence_interrupted(silence)
    is_billed = step.verdict == "poor"
    if not is_billed or attempt.pinged_at is None:
        return silence
    return silence_after_miss(silence, attempt.pinged_at)


def _outcome(
    attempt: PingAttempt,
    pinged_at: datetime,
    result: PingResult,
    step: Step,
    *,
    are_two: bool,
) -> Outcome:
    report = attempt.report
    if report is None:
        remarks: tuple[str, ...] = ()
        if isinstance(result, Missed):
            remarks = _remarks_of_miss(attempt)
        return Outcome(
            ping_id=attempt.ping_id,
            ping_seq=attempt.seq,
            pinged_at=pinged_at,
            outcome=_outcome_word(result),
            verdict=step.verdict,
            reason=step.reason,
            late_ms=attempt.late_ms(),
            since=_window_since(attempt, pinged_at),
            remarks=remarks,
            refused_report=_as_text(attempt.refused_report),
        )
    admitted = attempt.admitted
    assert admitted is not None  # noqa: S101  # a report that counts was admitted
    host = admitted.host
    uptime_percent = None
    if step.verdict in {"good", "poor"}:
        uptime_percent = host.uptime_percent
    found = admitted.remarks
    if are_two:
        found |= {TWO_UNDER_ONE_ID}
    if attempt.ledger_remark is not None:
        found |= {attempt.ledger_remark}
    report_json = NO_REPORT
    if attempt.report_bytes:
        report_json = Raw(attempt.report_bytes)
    remarks = ()
    if found:
        remarks = tuple(sorted(found))
    return Outcome(
        ping_id=attempt.ping_id,
        ping_seq=attempt.seq,
        pinged_at=pinged_at,
        outcome=_outcome_word(result),
        verdict=step.verdict,
        reason=step.reason,
        uptime_percent=uptime_percent,
        since=_window_since(attempt, pinged_at),
        seconds=host.to_seconds(),
        window_seconds=host.window / 1000,
        gpus=gpu_times(admitted, report),
        remarks=remarks,
        response_ms=attempt.response_ms,
        late_ms=attempt.late_ms(),
        report=report_json,
    )


def _remarks_of_miss(attempt: PingAttempt) -> tuple[str, ...]:
    if attempt.ledger_remark == LEDGER_EDITED:
        return (LEDGER_EDITED,)
    if attempt.rejected_as:
        return (attempt.rejected_as,)
    return ()


def _window_since(attempt: PingAttempt, pinged_at: datetime) -> datetime:
    return whole_millisecond(attempt.window_since or pinged_at)


def _as_text(refused: bytes | None) -> str | None:
    """Returns a refused answer as text that JSON can hold; what is no UTF-8 comes as base64."""
    if refused is None:
        return None
    try:
        return refused.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(refused).decode()


def _outcome_word(result: PingResult) -> OutcomeWord:
    match result:
        case Answered():
            return "answered"
        case Missed():
            return "missed"
        case Excused():
            return "excused"


def _expecting_gpus(entry: AgentEntry, report: UptimeReport | None) -> AgentEntry | None:
    """Returns the entry with the GPUs of the agent's first report that lists any.

    Simulated GPUs are never expected of a host that shows real ones. Returns None when the entry
    stays as it is.
    """
    if report is None or not report.gpus:
        return None
    shows_real_ones = entry.expects_simulated and not report.simulated
    if entry.expected_gpus and not shows_real_ones:
        return None
    uuids = tuple(gpu.uuid for gpu in report.gpus)
    return replace(entry, expected_gpus=uuids, expects_simulated=report.simulated)
