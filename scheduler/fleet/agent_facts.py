"""What lists search and count of each agent's last report, read from it once.

Reading the report of every agent for every question would take a second with 50,000 agents.
"""

import asyncio
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from bus.contract.messages import AgentEntry, AgentState, GpuState, decode
from bus.contract.questions import GpuCounts
from scheduler.fleet.directory import Directory, Tracked
from scheduler.fleet.views import gpus_of

READ_STEP = 2000  # agents read before other tasks get a turn


class _ReportedGpu(Struct, frozen=True, gc=False):
    """The fields of a reported GPU that are searched or counted."""

    uuid: str
    name: str = ""
    state: GpuState = "unknown"
    reasons: tuple[str, ...] = ()


class _Report(Struct, frozen=True, gc=False):
    """The GPUs of a report. Its other fields are skipped, which is three times as fast."""

    gpus: tuple[_ReportedGpu, ...] = ()


class Facts(NamedTuple):
    """What was read of an agent. They hold while it has this entry and this state."""

    entry: AgentEntry | None
    state: AgentState | None
    states: tuple[GpuState, ...]  # of its GPUs
    text: str  # in lower case, a line a field


class AgentFacts:
    """The facts of all agents of a directory, read when they are asked for."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._facts: dict[str, Facts] = {}

    def of(self, agent_id: str, tracked: Tracked) -> Facts:
        """Returns the present facts of an agent."""
        facts = self._facts.get(agent_id)
        if facts is None or facts.entry is not tracked.entry or facts.state is not tracked.state:
            facts = _read(agent_id, tracked)
            self._facts[agent_id] = facts
        return facts

    async def count_gpus(self) -> GpuCounts:
        """Counts the GPUs of all registered agents. Other tasks get a turn now and then."""
        counts: dict[GpuState, int] = {"up": 0, "degraded": 0, "down": 0, "unknown": 0}
        hosts_lost_all = 0
        for examined, agent_id in enumerate(self._directory.registered_ids(), 1):
            tracked = self._directory.get(agent_id)
            if tracked is not None:
                states = self.of(agent_id, tracked).states
                for state in states:
                    counts[state] += 1
                if states and not ({"up", "degraded"} & set(states)):
                    hosts_lost_all += 1
            if examined % READ_STEP == 0:
                await asyncio.sleep(0)
        return GpuCounts(
            total=sum(counts.values()),
            up=counts["up"],
            degraded=counts["degraded"],
            down=counts["down"],
            unknown=counts["unknown"],
            hosts_lost_all=hosts_lost_all,
        )


def _read(agent_id: str, tracked: Tracked) -> Facts:
    lines = [agent_id]
    entry = tracked.entry
    state = tracked.state
    if entry is not None:
        lines.append(entry.agent_url or "")
        lines.extend(entry.capabilities)
        for name, value in entry.described.items():
            lines.append(f"{name}:{_as_text(value)}")
    gpus: tuple[Any, ...] = ()
    report = None
    if state is not None:
        report = bytes(state.last.report)
        if state.last.reason:
            lines.append(f"reason:{state.last.reason}")
        lines.extend(f"reason:{remark}" for remark in state.last.remarks)
    if report and report != b"null":
        gpus = _with_expected(decode(report, _Report).gpus, entry)
    else:
        gpus = gpus_of(tracked, None)
    for gpu in gpus:
        lines.append(gpu.name)
        lines.append(gpu.uuid)
        lines.extend(f"reason:{reason}" for reason in gpu.reasons)
    states = tuple(gpu.state for gpu in gpus)
    return Facts(entry, state, states, "\n".join(lines).lower())


def _with_expected(
    reported: tuple[_ReportedGpu, ...], entry: AgentEntry | None
) -> tuple[_ReportedGpu, ...]:
    """Returns the GPUs that count: the expected ones, those down that the report lacks."""
    if entry is None or not entry.expected_gpus:
        return reported
    by_uuid = {gpu.uuid: gpu for gpu in reported}
    gpus = []
    for uuid in entry.expected_gpus:
        lacking = _ReportedGpu(uuid, state="down", reasons=("unreported",))
        gpus.append(by_uuid.get(uuid, lacking))
    return tuple(gpus)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
