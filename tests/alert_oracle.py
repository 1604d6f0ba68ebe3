"""What should be told by a history, worked out from the history alone and in the plainest way."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from bus.contract.messages import AgentState, UptimeReport, report_of

Wrong = tuple[str, str, str]  # a rule, a GPU and a reason


class Told(NamedTuple):
    """One change, as a receiver can tell it from others."""

    about: str
    rule: str
    kind: str
    gpu: str
    reason: str
    at: datetime


def told(change: dict[str, Any]) -> Told:
    """A change as a webhook brought it."""
    labels = change["labels"]
    return Told(
        change["about"],
        change["rule"],
        change["kind"],
        labels.get("gpu", ""),
        labels.get("reason", ""),
        datetime.fromisoformat(change["at"]),
    )


def expected(states: Iterable[AgentState]) -> Counter[Told]:
    """The changes of one agent's outcomes by the ready-made rules; ends are told of GPUs only."""
    found: Counter[Told] = Counter()
    before: set[Wrong] = set()
    numbers: set[int] = set()
    for state in states:
        if state.ping_seq in numbers or state.last.verdict == "excused":
            continue
        numbers.add(state.ping_seq)
        now = wrong_at(state, before)
        found.update(changes(state, before, now))
        before = now
    return found


def changes(state: AgentState, before: set[Wrong], now: set[Wrong]) -> Iterator[Told]:
    """What one outcome has to be told for."""
    about, at = state.agent_id, state.last.pinged_at
    for rule, gpu, reason in now - before:
        if rule != "recovered":
            yield Told(about, rule, "began", gpu, reason, at)
    for rule, gpu, reason in before - now:
        if rule == "recovered":
            yield Told(about, rule, "happened", "", "", at)
        if rule == "gpu-incident":
            yield Told(about, rule, "ended", gpu, reason, at)
    report = report_of(state.last)
    for gpu, reason, until in passing(report) if report else ():
        if ("gpu-incident", gpu, reason) not in now | before:
            yield Told(about, "gpu-incident", "happened", gpu, reason, until)


def wrong_at(state: AgentState, before: set[Wrong]) -> set[Wrong]:
    """What is wrong by an outcome; a miss says nothing of GPUs and uptime."""
    last = state.last
    report = report_of(last)
    if report is None:
        now = {one for one in before if one[0] in {"poor", "gpu-incident"}}
    else:
        now = unwell(report)
        if last.verdict == "poor" or state.no_gpu:
            now.add(("poor", "", ""))
    if last.outcome == "missed" and state.answered:
        now.add(("missing", "", ""))
    if state.recovering:
        now.add(("recovered", "", ""))
    return now


def unwell(report: UptimeReport) -> set[Wrong]:
    """The GPUs that are not up at a report, with each reason."""
    found = set()
    if report.failure is not None:
        found.add(("gpu-incident", "host", report.failure))
    for gpu in report.gpus:
        if gpu.state in {"down", "degraded"}:
            found |= {("gpu-incident", gpu.uuid, reason) for reason in gpu.reasons or (gpu.state,)}
    return found


def passing(report: UptimeReport) -> set[tuple[str, str, datetime]]:
    """The incidents that began and ended between two reports."""
    found = set()
    for one in report.incidents:
        is_inside = one.until is not None and one.since >= report.window.since
        if is_inside and one.state in {"down", "degraded"}:
            found.add((one.gpu or "host", one.reason, one.until))
    return found
