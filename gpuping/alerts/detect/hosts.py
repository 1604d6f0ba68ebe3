"""What an outcome shows to be wrong with a host. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from bus.contract.alerts import Condition, Labels, RuleName
from bus.contract.maintenance import used_in_month
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    GpuReport,
    Incident,
    MaintenanceWindow,
    UptimeReport,
    report_of,
)
from bus.contract.remarks import CLOCK_DISAGREES
from gpuping.alerts.detect.findings import Event, Findings

LONGEST_LABEL = 128
_NO_REPORT: frozenset[RuleName] = frozenset(
    {"poor", "gpu-incident", "gpu-set-changed", "twin", "clock"}
)
_EVERYTHING: frozenset[RuleName] = frozenset(
    {*_NO_REPORT, "missing", "escalated", "recovered"},
)
_NOT_WELL = frozenset({"down", "degraded"})


class HostFacts(Struct, frozen=True):
    """What alerts need of a registry entry."""

    labels: Labels
    expected_gpus: frozenset[str]
    maintenance: tuple[MaintenanceWindow, ...]
    is_removed: bool

    @classmethod
    def of(cls, entry: AgentEntry) -> "HostFacts":
        """The facts of an entry."""
        return cls(
            labels=labels_of(entry.agent_id, entry.described),
            expected_gpus=frozenset(entry.expected_gpus),
            maintenance=entry.maintenance,
            is_removed=entry.removed_at is not None,
        )


def labels_of(agent_id: str, metadata: Mapping[str, Any]) -> Labels:
    """The labels of a host: its id, and every field of its metadata that is one short value."""
    labels = {}
    for name, value in metadata.items():
        if isinstance(value, str | int | float | bool) and len(str(value)) <= LONGEST_LABEL:
            labels[name] = str(value)
    return labels | {"agent_id": agent_id}


def judge(
    state: AgentState,
    facts: HostFacts | None,
    max_interval_seconds: float,
) -> Findings:
    """What is wrong by this outcome, and what it says nothing about."""
    last = state.last
    if facts is not None and facts.is_removed:
        return Findings(is_gone=True)
    if last.verdict == "excused":
        return Findings(kept=_EVERYTHING)
    active = _standing(state, max_interval_seconds)
    report = None
    if last.outcome == "answered":
        report = report_of(last)
    if report is None:
        return Findings(active, kept=_NO_REPORT)
    if last.verdict == "poor" or state.no_gpu:
        active["poor"] = _poor(state)
    if state.conflicting_boot_ids or state.conflicting_sessions or state.conflicting_gpus:
        detail = "two hosts, or two agents, answer under this id"
        active["twin"] = Condition(rule="twin", since=last.pinged_at, detail=detail)
    if CLOCK_DISAGREES in last.remarks:
        detail = "its clock runs at another speed than the scheduler's"
        active["clock"] = Condition(rule="clock", since=last.pinged_at, detail=detail)
    active |= _gpu_set(report, facts, last.pinged_at)
    active |= dict(_unwell_gpus(report, last.pinged_at))
    events = tuple(_past_incidents(report, active))
    kept: frozenset[RuleName] = frozenset()
    if report.failure is not None:
        kept = frozenset({"gpu-set-changed"})  # nothing was looked at
    return Findings(active, kept, events)


def _standing(state: AgentState, max_interval_seconds: float) -> dict[str, Condition]:
    """What is wrong by the policy's state, with or without a report."""
    last = state.last
    active: dict[str, Condition] = {}
    if state.recovering:
        active["recovered"] = Condition(rule="recovered", since=last.pinged_at)
    if state.consecutive_poor and state.interval_seconds >= max_interval_seconds:
        wait = _in_words(state.interval_seconds)
        detail = f"{state.consecutive_poor} poor pings in a row; the next one is in {wait}"
        active["escalated"] = Condition(rule="escalated", since=last.pinged_at, detail=detail)
    if last.outcome == "missed" and state.answered:
        since = last.pinged_at
        if state.silence is not None:
            since = state.silence.first
        active["missing"] = Condition(rule="missing", since=since, detail=last.reason or "")
    return active


def _in_words(seconds: float) -> str:
    """A time between two pings: `45 s`, `15 min`, `1.5 h`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def _poor(state: AgentState) -> Condition:
    last = state.last
    detail = last.reason or ""
    if last.uptime_percent is not None:
        detail = f"{last.uptime_percent:.2f} % up since the ping before"
    if state.no_gpu:
        detail = "no GPU is available"
    return Condition(rule="poor", since=last.pinged_at, detail=detail)


def _gpu_set(
    report: UptimeReport,
    facts: HostFacts | None,
    at: datetime,
) -> dict[str, Condition]:
    if facts is None or not facts.expected_gpus or report.failure is not None:
        return {}
    present = {gpu.uuid for gpu in report.gpus if gpu.index is not None}
    gone = sorted(facts.expected_gpus - present)
    new = sorted(present - facts.expected_gpus)
    if not gone and not new:
        return {}
    parts = []
    if gone:
        parts.append(f"gone: {', '.join(gone[:8])}")
    if new:
        parts.append(f"not expected: {', '.join(new[:8])}")
    condition = Condition(rule="gpu-set-changed", since=at, detail="; ".join(parts))
    return {"gpu-set-changed": condition}


def _unwell_gpus(report: UptimeReport, at: datetime) -> Iterator[tuple[str, Condition]]:
    """One condition for each GPU and reason."""
    began = {(one.gpu, one.reason): one.since for one in report.incidents if one.until is None}
    for gpu in report.gpus:
        if gpu.state not in _NOT_WELL:
            continue
        for reason in gpu.reasons or (gpu.state,):
            since = began.get((gpu.uuid, reason)) or began.get((None, reason)) or at
            yield (
                f"gpu-incident/{gpu.uuid}/{reason}",
                _incident(gpu.uuid, _name(gpu), gpu.state, reason, since),
            )
    if report.failure is not None:
        yield (
            f"gpu-incident/host/{report.failure}",
            _incident(None, "all GPUs", "down", report.failure, at),
        )


def _past_incidents(report: UptimeReport, active: Mapping[str, Condition]) -> Iterator[Event]:
    """The incidents of the window that are over: those that nothing else tells."""
    names = {gpu.uuid: _name(gpu) for gpu in report.gpus}
    told: set[tuple[str, datetime]] = set()
    for one in report.incidents:
        if one.until is None or one.since < report.window.since:
            continue
        key = f"gpu-incident/{one.gpu or 'host'}/{one.reason}"
        if key in active or one.state not in {*_NOT_WELL, "event"} or (key, one.since) in told:
            continue
        told.add((key, one.since))
        name = names.get(one.gpu or "", one.gpu or "all GPUs")
        yield Event(key, _incident(one.gpu, name, one.state, one.reason, one.since), _end(one))


def _end(incident: Incident) -> datetime:
    return incident.until or incident.since


def _incident(
    uuid: str | None,
    name: str,
    state: str,
    reason: str,
    since: datetime,
) -> Condition:
    return Condition(
        rule="gpu-incident",
        since=since,
        detail=f"{name}: {reason} ({state})",
        labels={"gpu": uuid or "host", "reason": reason, "state": state},
    )


def _name(gpu: GpuReport) -> str:
    if gpu.index is None:
        return gpu.uuid
    return f"GPU {gpu.index} ({gpu.uuid})"


def judge_budget(
    facts: HostFacts,
    now: datetime,
    budget: timedelta,
    percent: float,
) -> Findings:
    """Whether most of this month's maintenance budget is booked."""
    if facts.is_removed:
        return Findings(is_gone=True)
    used = used_in_month(facts.maintenance, now)
    if used < budget * percent / 100 or not used:
        return Findings()
    hours, limit = used.total_seconds() / 3600, budget.total_seconds() / 3600
    detail = f"{hours:g} of {limit:g} hours of this month are booked"
    return Findings(
        {"budget": Condition(rule="maintenance-budget", since=now, detail=detail)},
    )
