"""Turns what came of a ping into what is written: the next state, the next timer, and the fleet's expectations.

Pure: the step of the policy, and the shape of the keys.
"""

from datetime import datetime, timedelta

from msgspec import Raw
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.messages import (
    NO_REPORT,
    AgentEntry,
    AgentState,
    Outcome,
    Result,
    Standing,
    UptimeReport,
    encode,
)
from bus.transport.batch import Write
from scheduler import policy as rules
from scheduler.fleet import duplicate_ids
from scheduler.ping.attempt import Flight
from scheduler.policy import Answer, Event, Excuse, Miss, Policy, Step
from scheduler.write.timers import timer

MIN_SECONDS_BETWEEN_OUTCOMES = (
    1.0  # the history stream must be able to follow each revision of a state
)
MOST_WRITES = 3  # state, timer, expected GPUs
_STANDING_FIELDS = Standing.__struct_fields__


def next_state(flight: Flight, event: Event, now: datetime, policy: Policy) -> AgentState:
    """The agent's state after this outcome."""
    before = flight.base
    step = rules.advance(before or Standing(), event, policy)
    report = flight.answer
    assert flight.pinged_at  # noqa: S101  # a flight that landed has departed
    return AgentState(
        **{name: getattr(step.standing, name) for name in _STANDING_FIELDS},
        agent_id=flight.agent_id,
        ping_seq=flight.seq,
        missed=(before.missed if before else 0) + isinstance(event, Miss),
        interval_seconds=step.interval_seconds,
        next_ping_at=_next_ping_at(flight.pinged_at, event, step, now),
        since_mark=report.window.mark if report else (before.since_mark if before else None),
        last_answered_at=_answered_at(flight),
        boot_ids=duplicate_ids.boots(before, report),
        conflicting_boot_ids=duplicate_ids.conflict(before, report),
        last=_outcome(flight, event, step, report),
    )


def writes(flight: Flight, state: AgentState, fires_at: datetime | None = None) -> list[Write]:
    """State, next timer, and on the first report the GPUs that are expected from now on; state first.

    No timer where the one that stands shall fire at `fires_at` already.
    """
    tracked = flight.tracked
    batch = [Write(subjects.state_key(state.agent_id), encode(state), expected=flight.revision)]
    if tracked.registered and tracked.entry is not None:
        if fires_at is None or fires_at != tracked.timer_at:
            batch.append(timer(state.agent_id, state.ping_seq + 1, state.next_ping_at, fires_at))
        if entry := _expecting(tracked.entry, flight.answer):
            batch.append(
                Write(
                    subjects.agent_key(state.agent_id),
                    encode(entry),
                    expected=tracked.entry_revision,
                )
            )
    return batch


def most_writes(flight: Flight) -> int:
    """How many `writes` there will be, at most: only a fleet's first reports bring a third."""
    entry = flight.tracked.entry
    return MOST_WRITES if entry is not None and not entry.expected_gpus else MOST_WRITES - 1


def _next_ping_at(pinged_at: datetime, event: Event, step: Step, now: datetime) -> datetime:
    if isinstance(event, Excuse):  # asked again as soon as an outcome may follow this one
        return now + timedelta(seconds=MIN_SECONDS_BETWEEN_OUTCOMES)
    return rules.next_ping_at(pinged_at, step.interval_seconds, now)


def _answered_at(flight: Flight) -> datetime | None:
    """When the last answered ping was made; when the answer came, if the agent was enrolled anew in between.

    Such an answer covers the beginning of the new enrolment, so the next window must begin at its mark.
    """
    if flight.answer is None or flight.pinged_at is None:
        return flight.base.last_answered_at if flight.base else None
    entry = flight.tracked.entry
    if entry is None or flight.pinged_at >= entry.enrolled_at:
        return flight.pinged_at
    landed = flight.pinged_at + timedelta(milliseconds=flight.response_ms or 0.0)
    return landed if entry.enrolled_at <= landed else flight.pinged_at


def _outcome(flight: Flight, event: Event, step: Step, report: UptimeReport | None) -> Outcome:
    assert flight.pinged_at  # noqa: S101
    judged = report is not None and step.verdict in {"good", "poor"}
    return Outcome(
        ping_id=flight.ping_id,
        ping_seq=flight.seq,
        pinged_at=flight.pinged_at,
        outcome=_result(event),
        verdict=step.verdict,
        reason=step.reason,
        uptime_percent=report.uptime_percent if report and judged else None,
        seconds=report.seconds if report else None,
        window_seconds=report.window.seconds if report else None,
        response_ms=flight.response_ms if report else None,
        late_ms=flight.late_ms(),
        report=Raw(flight.report) if report and flight.report else NO_REPORT,
    )


def _result(event: Event) -> Result:
    match event:
        case Answer():
            return "answered"
        case Miss():
            return "missed"
        case Excuse():
            return "excused"


def _expecting(entry: AgentEntry, report: UptimeReport | None) -> AgentEntry | None:
    """The entry with the GPUs of the first report that shows any; None when there is nothing to note."""
    if entry.expected_gpus or report is None:
        return None
    uuids = tuple(gpu.uuid for gpu in report.gpus)
    return replace(entry, expected_gpus=uuids) if uuids else None
