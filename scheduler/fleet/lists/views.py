"""Makes what the REST interface shows of an agent from what the scheduler knows. Pure."""

from datetime import datetime

from msgspec.structs import replace

from bus.contract.messages import (
    AgentState,
    Enrolment,
    KnownGpu,
    UnopenedGpu,
    UptimeReport,
    report_of,
)
from bus.contract.questions import Agent, GpuSummary
from scheduler import policy as rules
from scheduler.fleet.tracked import Tracked
from scheduler.policy import Policy


def agent_view(
    tracked: Tracked,
    policy: Policy,
    now: datetime,
    report: UptimeReport | None = None,
) -> Agent:
    """Returns the view of one registered agent.

    `report` is the decoded report of the last outcome, if the caller has it; otherwise it is
    decoded from the state. `uptime_24h_percent` stays None: only the history knows it.
    """
    entry = tracked.entry
    state = tracked.state
    assert entry is not None  # noqa: S101  # callers show registered agents only
    if report is None and state is not None:
        report = report_of(state.last)
    view = Agent(
        agent_id=entry.agent_id,
        agent_url=entry.agent_url,
        capabilities=entry.capabilities,
        metadata=entry.described,
        labels=entry.labels,
        status=rules.status(state, maintenance=tracked.in_maintenance(now)),
        registered_at=entry.registered_at,
        uptime_percent=None,
        uptime_24h_percent=None,
        consecutive_poor_uptime=0,
        good_streak=0,
        current_interval_minutes=rules.interval_seconds(0, policy) / 60.0,
        next_ping_at=tracked.next_ping_at(policy),
        last_ping_at=None,
        last_answered_at=None,
        total_pings=0,
        missed_pings=0,
        last_response_ms=None,
        connected=None if entry.by_http else tracked.connected,
        gpus=gpus_of(tracked, report),
        expected_gpus=entry.expected_gpus,
        enrolled_at=entry.enrolled_at,
        enrolments=(*entry.earlier, Enrolment(entry.enrolled_at, entry.removed_at)),
        conflicting_connections=tracked.two_connections,
        simulated=entry.expects_simulated or (report is not None and report.simulated),
        by_http=entry.by_http,
    )
    if state is None:
        return view
    return replace(
        view,
        uptime_percent=state.uptime_percent,
        consecutive_poor_uptime=state.consecutive_poor,
        good_streak=state.good_streak,
        current_interval_minutes=state.interval_seconds / 60.0,
        last_ping_at=state.last.pinged_at,
        last_answered_at=state.last_answered_at,
        total_pings=state.ping_seq,
        missed_pings=state.missed,
        last_response_ms=state.last.response_ms,
        connected=_connected(tracked, state),
        conflicting_boot_ids=state.conflicting_boot_ids,
        conflicting_sessions=state.conflicting_sessions,
        conflicting_gpus=state.conflicting_gpus,
        last_reason=state.last.reason,
        remarks=state.last.remarks,
    )


def _connected(tracked: Tracked, state: AgentState) -> bool | None:
    """Returns whether the agent is connected to the bus, as the server says.

    Where the scheduler does not hear the server's announcements: whether the agent was subscribed
    at the last ping; None when that ping was excused. None also for one that is asked by HTTP: it
    has no such connection.
    """
    if tracked.entry is not None and tracked.entry.by_http:
        return None
    if tracked.connected is not None:
        return tracked.connected
    if state.last.outcome == "excused":
        return None
    return state.last.reason != "no_responders"


def gpus_of(tracked: Tracked, report: UptimeReport | None) -> tuple[GpuSummary, ...]:
    """Returns the GPUs of the last outcome's report, and the expected ones that it lacks.

    Those are down, as they are accounted. Without a report all expected GPUs are `unknown`, under
    the names that the last report gave them: an older state is never shown as the present one.
    """
    entry = tracked.entry
    expected: tuple[str, ...] = ()
    if entry is not None:
        expected = entry.expected_gpus
    if report is None:
        return _unreported_gpus(tracked)
    gpus = []
    for gpu in report.gpus:
        gpus.append(
            GpuSummary(
                uuid=gpu.uuid,
                index=gpu.index,
                name=gpu.name,
                state=gpu.state,
                reasons=gpu.reasons,
                expected=not expected or gpu.uuid in expected,
            )
        )
    reported = {gpu.uuid for gpu in report.gpus}
    for uuid in expected:
        if uuid not in reported:
            gpus.append(
                GpuSummary(
                    uuid=uuid,
                    index=None,
                    name="",
                    state="down",
                    reasons=("unreported",),
                )
            )
    for unopened in report.unopened:
        gpus.append(_unopened_gpu(unopened))
    return tuple(gpus)


def _unopened_gpu(gpu: UnopenedGpu) -> GpuSummary:
    """A GPU whose UUID nobody could read is shown by its place, and is not accounted."""
    place = gpu.pci or f"index {gpu.index}"
    return GpuSummary(
        uuid=f"unopened:{place.replace(' ', '-')}",
        index=gpu.index,
        name=f"not opened, {place}",
        state="down",
        reasons=(gpu.reason,),
        expected=False,
    )


def _unreported_gpus(tracked: Tracked) -> tuple[GpuSummary, ...]:
    expected: tuple[str, ...] = ()
    if tracked.entry is not None:
        expected = tracked.entry.expected_gpus
    known: dict[str, KnownGpu] = {}
    if tracked.state is not None:
        for gpu in tracked.state.gpus_before:
            known[gpu.uuid] = gpu
    gpus = []
    for uuid in expected or known:
        gpu = known.get(uuid, KnownGpu(uuid))
        summary = GpuSummary(
            uuid=uuid,
            index=gpu.index,
            name=gpu.name,
            state="unknown",
            reported=False,
        )
        gpus.append(summary)
    return tuple(gpus)
