"""The map of the whole fleet: the state of every GPU, in about four bytes a GPU.

The answer has columns, not rows: a letter for each GPU and each host. Live events keep a map up to
date once it is there.
"""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from bus.contract.messages import AgentId, GpuState, Message, Status
from bus.contract.questions import PastHours

STATUS_LETTERS: dict[Status, str] = {
    "healthy": "h",
    "recovering": "r",
    "pending": "n",
    "maintenance": "m",
    "poor": "p",
    "missing": "x",
}
STATE_LETTERS: dict[GpuState, str] = {"up": "u", "degraded": "g", "down": "d", "unknown": "n"}
NOT_JUDGED = -1
PAGE_LIMIT = 5_000  # agents; a page of hosts with sixteen GPUs each stays below a message

LabelName = Annotated[str, Meta(min_length=1, max_length=64)]


class FleetMapRequest(Message, kw_only=True, frozen=True):
    """Asks for the agents after `cursor`. `label` names the metadata field that groups them."""

    cursor: AgentId | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_LIMIT)] = PAGE_LIMIT
    label: LabelName | None = None


class FleetColumns(Struct, kw_only=True, frozen=True):
    """Agents in order of their ids, a column each.

    statuses: a letter an agent (STATUS_LETTERS).
    gpu_counts: how many letters of `gpu_states` are an agent's.
    gpu_states: a letter a GPU (STATE_LETTERS), in the order of the agents.
    uptimes: of the last judged ping, in tenths of a percent; -1 where none was judged.
    uptimes_24h: of the last 24 hours by time, likewise. Storage knows them, so the scheduler's
    pages have none, and the whole map has none while storage does not answer.
    escalations: consecutive poor pings.
    groups: an index into `group_names`; empty where no label was asked for.
    """

    agent_ids: tuple[str, ...] = ()
    statuses: str = ""
    gpu_counts: tuple[int, ...] = ()
    gpu_states: str = ""
    uptimes: tuple[int, ...] = ()
    uptimes_24h: tuple[int, ...] = ()
    escalations: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    group_names: tuple[str, ...] = ()


class FleetMapPage(Message, kw_only=True, frozen=True):
    """One page. `next_cursor` asks for the one after it; None for no more."""

    columns: FleetColumns
    next_cursor: str | None = None


class FleetUptimesRequest(Message, kw_only=True, frozen=True):
    """Asks for the time-weighted uptime of every agent over the last `hours`.

    Agents that were judged for less than `judged_seconds` are left out: it is too early to tell.
    """

    hours: PastHours = 24.0
    judged_seconds: Annotated[float, Meta(ge=0)] = 0.0


class FleetUptimes(Message, kw_only=True, frozen=True):
    """Agents with judged time, in no order, and their uptimes in tenths of a percent."""

    agent_ids: tuple[str, ...]
    uptimes: tuple[int, ...]


class FleetMap(Message, kw_only=True, frozen=True):
    """The whole map, as REST shows it."""

    generated_at: datetime
    total: int
    gpus: int
    label: str | None
    columns: FleetColumns


def tenths(percent: float | None) -> int:
    """Returns an uptime as the map packs it, rounded down: 99.99 % is not 100 %."""
    if percent is None:
        return NOT_JUDGED
    return int(percent * 10)


def joined(pages: list[FleetColumns]) -> FleetColumns:
    """Returns the pages one after the other, with one list of group names."""
    names: dict[str, int] = {}
    groups: list[int] = []
    agent_ids: list[str] = []
    gpu_counts: list[int] = []
    uptimes: list[int] = []
    escalations: list[int] = []
    for page in pages:
        agent_ids += page.agent_ids
        gpu_counts += page.gpu_counts
        uptimes += page.uptimes
        escalations += page.escalations
        for group in page.groups:
            name = page.group_names[group]
            groups.append(names.setdefault(name, len(names)))
    return FleetColumns(
        agent_ids=tuple(agent_ids),
        statuses="".join(page.statuses for page in pages),
        gpu_counts=tuple(gpu_counts),
        gpu_states="".join(page.gpu_states for page in pages),
        uptimes=tuple(uptimes),
        escalations=tuple(escalations),
        groups=tuple(groups),
        group_names=tuple(names),
    )
