"""What lists search and count of each agent's last report, read from it once.

Reading the report of every agent for every question would take a second with 50,000 agents.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from bus.contract.messages import AgentEntry, GpuState, decode
from bus.contract.questions import GpuCounts
from scheduler.fleet.directory import Directory
from scheduler.fleet.lists.views import gpus_of
from scheduler.fleet.tracked import Tracked

# Agents that are read, searched and counted before other tasks get a turn.
READ_STEP = 500
SEARCH_STEP = 10_000
COUNT_STEP = 10_000


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
    """What was read of an agent's entry and last report."""

    states: tuple[GpuState, ...]  # of its GPUs
    text: str  # in lower case, a line a field


class AgentFacts:
    """The facts of all registered agents of a directory.

    A question reads those that changed since the one before. It is the only one that empties the
    directory's `changed`.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._facts: dict[str, Facts] = {}
        self._unread: deque[str] = deque()

    async def all(self) -> dict[str, Facts]:
        """Returns the present facts of every agent; not to be changed. Others get a turn meanwhile.

        Several questions may read side by side, and any may end early: who finds nothing unread has
        what all of them read.
        """
        self._unread.extend(self._directory.changed)
        self._directory.changed.clear()
        read = 0
        while self._unread:
            self._read(self._unread.popleft())
            read += 1
            if read % READ_STEP == 0:
                await asyncio.sleep(0)
        return self._facts

    async def with_words(self, words: Sequence[str]) -> list[str]:
        """Returns the ids of the agents that have all these words, in no order."""
        items = list((await self.all()).items())
        found: list[str] = []
        for first in range(0, len(items), SEARCH_STEP):
            found += _with_words(items[first : first + SEARCH_STEP], words)
            await asyncio.sleep(0)
        return found

    async def count_gpus(self) -> GpuCounts:
        """Counts the GPUs of all registered agents. Other tasks get a turn now and then."""
        counts: dict[GpuState, int] = {"up": 0, "degraded": 0, "down": 0, "unknown": 0}
        hosts_lost_all = 0
        everybody = list((await self.all()).values())
        for examined, facts in enumerate(everybody, 1):
            for state in facts.states:
                counts[state] += 1
            if facts.states and not ({"up", "degraded"} & set(facts.states)):
                hosts_lost_all += 1
            if examined % COUNT_STEP == 0:
                await asyncio.sleep(0)
        return GpuCounts(
            total=sum(counts.values()),
            up=counts["up"],
            degraded=counts["degraded"],
            down=counts["down"],
            unknown=counts["unknown"],
            hosts_lost_all=hosts_lost_all,
        )

    def _read(self, agent_id: str) -> None:
        tracked = self._directory.get(agent_id)
        if tracked is None or not tracked.registered:
            self._facts.pop(agent_id, None)
        else:
            self._facts[agent_id] = _read(agent_id, tracked)


def _with_words(items: Sequence[tuple[str, Facts]], words: Sequence[str]) -> list[str]:
    """Of each word only those are searched that had the words before it."""
    for word in words:
        items = [item for item in items if word in item[1].text]
    return [agent_id for agent_id, _ in items]


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
    return Facts(states, "\n".join(lines).lower())


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
