"""Makes the map of the fleet from the directory, page by page."""

import asyncio
from datetime import datetime

from bus.contract.fleet_map import (
    NOT_JUDGED,
    STATE_LETTERS,
    STATUS_LETTERS,
    FleetColumns,
    FleetMapPage,
    FleetMapRequest,
    tenths,
)
from scheduler.fleet.directory import Directory
from scheduler.fleet.lists.agent_facts import AgentFacts
from scheduler.fleet.tracked import Tracked

READ_STEP = 1_000  # agents read before other tasks get a turn
NO_GROUP = "-"  # of an agent without the label


async def page(
    directory: Directory,
    facts: AgentFacts,
    request: FleetMapRequest,
    now: datetime,
) -> FleetMapPage:
    """Returns the agents after the cursor. Other tasks get a turn now and then."""
    agent_ids: list[str] = []
    statuses: list[str] = []
    gpu_counts: list[int] = []
    gpu_states: list[str] = []
    uptimes: list[int] = []
    escalations: list[int] = []
    groups: list[int] = []
    group_names: dict[str, int] = {}
    next_cursor = None
    all_facts = await facts.all()
    for agent_id in directory.registered_ids():
        if request.cursor is not None and agent_id <= request.cursor:
            continue
        if len(agent_ids) == request.limit:
            next_cursor = agent_ids[-1]
            break
        tracked = directory.get(agent_id)
        read = all_facts.get(agent_id)
        if tracked is None or read is None:
            continue
        states = read.states
        agent_ids.append(agent_id)
        statuses.append(STATUS_LETTERS[directory.status_of(tracked, now)])
        gpu_counts.append(len(states))
        gpu_states.extend(STATE_LETTERS[state] for state in states)
        uptimes.append(_uptime(tracked))
        escalations.append(0 if tracked.state is None else tracked.state.consecutive_poor)
        if request.label is not None:
            name = _group(tracked, request.label)
            groups.append(group_names.setdefault(name, len(group_names)))
        if len(agent_ids) % READ_STEP == 0:
            await asyncio.sleep(0)
    columns = FleetColumns(
        agent_ids=tuple(agent_ids),
        statuses="".join(statuses),
        gpu_counts=tuple(gpu_counts),
        gpu_states="".join(gpu_states),
        uptimes=tuple(uptimes),
        escalations=tuple(escalations),
        groups=tuple(groups),
        group_names=tuple(group_names),
    )
    return FleetMapPage(columns=columns, next_cursor=next_cursor)


def _uptime(tracked: Tracked) -> int:
    if tracked.state is None:
        return NOT_JUDGED
    return tenths(tracked.state.uptime_percent)


def _group(tracked: Tracked, label: str) -> str:
    if tracked.entry is None:
        return NO_GROUP
    described = tracked.entry.described
    if label not in described:
        return NO_GROUP
    return str(described[label])[:64]
