"""Selects and orders the agents of a list."""

import asyncio
import heapq
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from bus.contract.messages import Status
from bus.contract.questions import ListRequest
from scheduler.fleet.directory import Directory, Tracked

SCAN_STEP = 5000  # agents examined before other tasks get a turn
WORST_SCAN = 20_000  # agents of one status that are compared
WORST_FIRST: tuple[Status, ...] = (
    "missing",
    "poor",
    "recovering",
    "pending",
    "maintenance",
    "healthy",
)
NEVER_JUDGED_PERCENT = 101.0  # such an agent is listed after all that have an uptime


class Listing(NamedTuple):
    """The agents of one page. `total` counts all pages; `more` tells that a page follows."""

    agents: Sequence[Tracked]
    total: int
    more: bool


async def by_id(directory: Directory, request: ListRequest, now: datetime) -> Listing:
    """Lists the agents in order of their ids, after the cursor.

    Counting the agents of all pages takes a look at every agent, so other tasks get a turn now and
    then.
    """
    page: list[Tracked] = []
    total = 0
    more = False
    for examined, agent_id in enumerate(directory.registered_ids(), 1):
        tracked = directory.get(agent_id)
        if tracked is not None and _matches(directory, tracked, request, now):
            total += 1
            if request.cursor is None or agent_id > request.cursor:
                if len(page) < request.limit:
                    page.append(tracked)
                else:
                    more = True
        if examined % SCAN_STEP == 0:
            await asyncio.sleep(0)
    return Listing(page, total, more)


def by_due_time(directory: Directory, request: ListRequest, now: datetime) -> Listing:
    """Lists the agents that are due, the longest overdue first."""
    due = []
    for agent_id, due_at in directory.due(now).items():
        tracked = directory.get(agent_id)
        if tracked is not None and _matches(directory, tracked, request, now):
            due.append((due_at, agent_id, tracked))
    first = heapq.nsmallest(request.limit, due, key=_due_at)
    agents = [tracked for _, _, tracked in first]
    return Listing(agents, total=len(due), more=False)


def by_badness(directory: Directory, request: ListRequest) -> Listing:
    """Lists the agents by status, the worst first, and by uptime within a status.

    Of a very large group only WORST_SCAN agents are compared.
    """

    def uptime(agent_id: str) -> tuple[float, str]:
        tracked = directory.get(agent_id)
        if tracked is None or tracked.state is None or tracked.state.uptime_percent is None:
            return NEVER_JUDGED_PERCENT, agent_id
        return tracked.state.uptime_percent, agent_id

    worst: list[Tracked] = []
    for status in WORST_FIRST:
        room = request.limit - len(worst)
        if room <= 0:
            break
        group = islice(directory.by_status.get(status, ()), WORST_SCAN)
        for agent_id in heapq.nsmallest(room, group, key=uptime):
            tracked = directory.get(agent_id)
            if tracked is not None:
                worst.append(tracked)
    return Listing(worst, len(directory), more=False)


def _due_at(due: tuple[datetime, str, Tracked]) -> datetime:
    return due[0]


def _matches(directory: Directory, tracked: Tracked, request: ListRequest, now: datetime) -> bool:
    """Returns whether the agent has the status and the capability that the request asks for."""
    if request.status and directory.status_of(tracked, now) != request.status:
        return False
    if not request.capability:
        return True
    return tracked.entry is not None and request.capability in tracked.entry.capabilities
