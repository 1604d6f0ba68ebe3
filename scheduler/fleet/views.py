"""What the REST interface shows of an agent, made from what the scheduler knows. Pure."""

from datetime import datetime

from bus.contract.messages import AgentEntry, AgentState, Enrolment, UptimeReport, report_of
from bus.contract.questions import Agent, GpuSummary
from scheduler import policy as rules
from scheduler.fleet.directory import Tracked
from scheduler.policy import Policy


def agent_view(
    tracked: Tracked, policy: Policy, now: datetime, report: UptimeReport | None = None
) -> Agent:
    """One registered agent. `uptime_24h_percent` is history's to say, and is left empty here.

    `report` spares reading it from the state once more.
    """
    entry, state = tracked.entry, tracked.state
    assert entry is not None  # noqa: S101  # callers show registered agents only
    interval = state.interval_seconds if state else rules.interval_seconds(0, policy)
    return Agent(
        agent_id=entry.agent_id,
        agent_url=entry.agent_url,
        capabilities=entry.capabilities,
        metadata=entry.metadata,
        status=rules.status(state, maintenance=tracked.in_maintenance(now)),
        registered_at=entry.registered_at,
        uptime_percent=state.uptime_percent if state else None,
        uptime_24h_percent=None,
        consecutive_poor_uptime=state.consecutive_poor if state else 0,
        good_streak=state.good_streak if state else 0,
        current_interval_minutes=interval / 60.0,
        next_ping_at=tracked.next_ping_at(policy),
        last_ping_at=state.last.pinged_at if state else None,
        last_answered_at=state.last_answered_at if state else None,
        total_pings=state.ping_seq if state else 0,
        missed_pings=state.missed if state else 0,
        last_response_ms=state.last.response_ms if state else None,
        connected=_connected(state),
        gpus=_gpus(entry, report or (report_of(state.last) if state else None)),
        expected_gpus=entry.expected_gpus,
        enrolled_at=entry.enrolled_at,
        enrolments=(*entry.earlier, Enrolment(entry.enrolled_at, entry.removed_at)),
        conflicting_boot_ids=state.conflicting_boot_ids if state else (),
    )


def _connected(state: AgentState | None) -> bool | None:
    """Whether somebody listened at the last ping; unknown before one, and after an outage of our own."""
    if state is None or state.last.outcome == "excused":
        return None
    return state.last.reason != "no_responders"


def _gpus(entry: AgentEntry, report: UptimeReport | None) -> tuple[GpuSummary, ...]:
    """As last reported; expected GPUs are `unknown` after an outcome without a report, never as they were before."""
    if report is None:
        return tuple(
            GpuSummary(uuid=uuid, index=None, name="", state="unknown")
            for uuid in entry.expected_gpus
        )
    return tuple(
        GpuSummary(
            uuid=gpu.uuid, index=gpu.index, name=gpu.name, state=gpu.state, reasons=gpu.reasons
        )
        for gpu in report.gpus
    )
