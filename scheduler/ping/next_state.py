"""Turns the result of a ping into the writes of its outcome: the next state and the next timer.

Pure: it applies the policy and shapes what is written. The first report of an agent also sets the
GPUs that are expected from then on.
"""

import base64
from datetime import datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.durations import Interval
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
from bus.contract.questions import MAX_EXPECTED_GPUS
from bus.contract.remarks import BY_HTTP, LEDGER_EDITED, RESTORED, TWO_UNDER_ONE_ID
from bus.identity.signed_report import HEADER, Checked
from bus.transport.batch import Write
from scheduler.fleet.rules import duplicate_ids
from scheduler.ping.accounting.admission import Admitted
from scheduler.ping.accounting.silence import (
    heard_late,
    is_last_miss,
    of_enrolment,
    silence_after_miss,
    silence_interrupted,
)
from scheduler.ping.accounting.timestamps import milliseconds, whole_millisecond
from scheduler.ping.accounting.window import excused_intervals, gpu_times, is_mark_refused
from scheduler.ping.attempt import PingAttempt
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
    assert attempt.pinged_at  # noqa: S101  # an attempt with a result was started
    state = _with_identities(attempt)
    are_two = duplicate_ids.is_conflicting(state)
    # Most of a state's thirty fields stay as they are. Python passes more than fifteen arguments by
    # name through a dictionary, which costs 1 us a ping, so the others are set in two steps.
    state = replace(
        state,
        answered=standing.answered,
        consecutive_poor=standing.consecutive_poor,
        good_streak=standing.good_streak,
        recovering=standing.recovering,
        no_gpu=standing.no_gpu,
        last_judged=standing.last_judged,
        last_outcome=standing.last_outcome,
        uptime_percent=standing.uptime_percent,
        unjudged=standing.unjudged,
        ping_seq=attempt.seq,
        interval_seconds=step.interval_seconds,
        next_ping_at=_next_ping_at(attempt.pinged_at, result, step, now),
        silence=_silence(attempt, result, step),
        last=_outcome(attempt, attempt.pinged_at, result, step, are_two=are_two),
    )
    if report is None:
        was_refused = is_mark_refused(before, attempt.enrolled_at)
        state = replace(
            state,
            missed=state.missed + isinstance(result, Missed),
            mark_refused=was_refused or attempt.refused_report is not None,
            gpus_before=_gpus_before(before),
        )
    else:
        state = replace(
            state,
            since_mark=report.window.mark,
            last_answered_at=attempt.pinged_at,
            answered_ping=attempt.sent,
            mark_refused=False,
            gpus_before=(),
        )
    if attempt.signature is not None:
        state = _with_signature(state, attempt, attempt.signature)
    return state


def _with_identities(attempt: PingAttempt) -> AgentState:
    """Returns the state before this outcome, with what the report shows of who answered."""
    before = attempt.base_state
    report = attempt.report
    tracked = attempt.tracked
    state = before or _state_of_none(attempt)
    if tracked.two_connections != state.conflicting_connections:
        state = replace(state, conflicting_connections=tracked.two_connections)
    if report is not None and not duplicate_ids.is_as_before(before, tracked.entry, report):
        identities = duplicate_ids.identities(before, tracked.entry, report)
        state = replace(state, **identities._asdict())
    return state


def _state_of_none(attempt: PingAttempt) -> AgentState:
    """Returns what stands for the state of an agent that was never pinged."""
    assert attempt.pinged_at  # noqa: S101  # an attempt with a result was started
    nothing = Outcome(
        ping_id="", ping_seq=0, pinged_at=attempt.pinged_at, outcome="excused", verdict="excused"
    )
    return AgentState(
        agent_id=attempt.agent_id,
        ping_seq=0,
        interval_seconds=0.0,
        next_ping_at=attempt.pinged_at,
        last=nothing,
    )


def _with_signature(
    state: AgentState,
    attempt: PingAttempt,
    checked: Checked,
) -> AgentState:
    """Returns the state with the chains of reports and of the ledger as they are after this one."""
    if attempt.report is not None:
        return replace(
            state,
            report_hash=checked.record_hash,
            report_key=checked.signature.key,
            ledger_heads=checked.ledger_heads_after(attempt.ledger_heads),
        )
    if attempt.ledger_remark == LEDGER_EDITED:
        # It is said once; the next report goes on from the ledger as it is now.
        return replace(state, ledger_heads=checked.ledger_heads_after(()))
    return state


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


def _gpus_before(before: AgentState | None) -> tuple[KnownGpu, ...]:
    """Returns what the last report called the GPUs, for a state whose outcome has no report."""
    if before is None:
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
    booked: tuple[Interval, ...] = ()
    if attempt.excused and attempt.pinged_at is not None:
        booked = excused_intervals(attempt.excused, milliseconds(attempt.pinged_at))
    silence = None
    if attempt.base_state is not None:
        silence = of_enrolment(attempt.base_state.silence, attempt.enrolled_at)
        answered_late = is_last_miss(attempt.base_state, attempt.tracked.late_ping_id)
        silence = heard_late(silence, answered_late=answered_late, booked=booked)
    if isinstance(result, Excused):
        return silence_interrupted(silence, booked)
    is_billed = step.verdict == "poor"
    if not is_billed or attempt.pinged_at is None:
        return silence
    nonce = attempt.nonce if attempt.may_be_answered_late else None
    return silence_after_miss(silence, attempt.pinged_at, nonce)


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
        if attempt.follows_restore:
            remarks = (*remarks, RESTORED)
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
            enrolled_at=attempt.enrolled_at,
        )
    admitted = attempt.admitted
    assert admitted is not None  # noqa: S101  # a report that counts was admitted
    host = admitted.host
    uptime_percent = None
    if step.verdict in {"good", "poor"}:
        uptime_percent = host.uptime_percent
    report_json = NO_REPORT
    if attempt.report_bytes:
        report_json = Raw(attempt.report_bytes)
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
        remarks=_remarks(attempt, admitted, are_two=are_two),
        excused=attempt.excused_spans,
        response_ms=attempt.response_ms,
        late_ms=attempt.late_ms(),
        enrolled_at=attempt.enrolled_at,
        report=report_json,
    )


def _remarks(
    attempt: PingAttempt,
    admitted: Admitted,
    *,
    are_two: bool,
) -> tuple[str, ...]:
    """What is to be known of a report that counts."""
    found = admitted.remarks
    if are_two:
        found |= {TWO_UNDER_ONE_ID}
    if attempt.ledger_remark is not None:
        found |= {attempt.ledger_remark}
    if attempt.is_by_http and attempt.signature is None:
        found |= {BY_HTTP}
    if attempt.follows_restore:
        found |= {RESTORED}
    if not found:
        return ()
    return tuple(sorted(found))


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
    # A host may name a GPU twice, or more than an operator can; an operator could then add none.
    uuids = tuple(dict.fromkeys(gpu.uuid for gpu in report.gpus))
    return replace(
        entry,
        expected_gpus=uuids[:MAX_EXPECTED_GPUS],
        expects_simulated=report.simulated,
    )
