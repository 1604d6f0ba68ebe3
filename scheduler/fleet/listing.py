"""Selects and orders the agents of a list."""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from bus.contract.messages import AgentState, Status
from bus.contract.questions import AgentOrder, ListRequest
from scheduler.fleet.agent_facts import AgentFacts
from scheduler.fleet.directory import Directory, Tracked
from scheduler.fleet.maintenance import has_label
from scheduler.policy import Policy

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
_SEVERITY: dict[Status, int] = {status: severity for severity, status in enumerate(WORST_FIRST)}
NEVER_JUDGED_PERCENT = 101.0  # such an agent is listed after all that have an uptime


class Listing(NamedTuple):
    """The agents of one page. `total` counts all pages; `more` tells that a page follows."""

    agents: Sequence[Tracked]
    total: int
    more: bool


# Where an agent stands in an order: its rank, and its id among those of equal rank. A plain tuple,
# because a list of 50,000 agents makes and compares one for each.
Place = tuple[tuple[float, ...], str]


class Matching:
    """The agents that a request asks for."""

    def __init__(
        self,
        directory: Directory,
        facts: AgentFacts,
        request: ListRequest,
        now: datetime,
    ) -> None:
        self.directory = directory
        self.request = request
        self.now = now
        self._facts = facts
        self._words = (request.search or "").lower().split()

    def matches(self, agent_id: str, tracked: Tracked) -> bool:
        """Returns whether the agent has all that is asked for."""
        request = self.request
        if request.status and self.directory.status_of(tracked, self.now) != request.status:
            return False
        if request.capability and not _has_capability(tracked, request.capability):
            return False
        if request.has_url and not (tracked.entry is not None and tracked.entry.agent_url):
            return False
        if request.label and not _has_label(tracked, request.label):
            return False
        if not self._words:
            return True
        return _has_words(self._facts.of(agent_id, tracked).text, self._words)

    def place(self, agent_id: str, tracked: Tracked) -> Place:
        """Returns the place of an agent in the order that the request asks for."""
        return _rank(self.directory, tracked, self.request.order, self.now), agent_id


def _has_capability(tracked: Tracked, capability: str) -> bool:
    return tracked.entry is not None and capability in tracked.entry.capabilities


def _has_label(tracked: Tracked, label: str) -> bool:
    return tracked.entry is not None and has_label(tracked.entry, label)


def _has_words(text: str, words: Sequence[str]) -> bool:
    for word in words:  # noqa: SIM110  # `all` with a generator takes three times as long
        if word not in text:
            return False
    return True


def is_plain(request: ListRequest) -> bool:
    """Returns whether a request asks for the worst agents only: no filter, page or direction."""
    filters = (
        request.status,
        request.capability,
        request.search,
        request.cursor,
        request.agent_ids,
        request.has_url,
        request.label,
    )
    return request.order == "worst" and not request.reverse and not any(filters)


async def in_order(matching: Matching) -> Listing:
    """Lists the agents after the cursor in the order that the request asks for.

    Counting them takes a look at every agent, so other tasks get a turn now and then. Of those that
    match only the ones on the page are put in order.
    """
    directory = matching.directory
    request = matching.request
    places: list[Place] = []
    for examined, agent_id in enumerate(_candidates(matching), 1):
        tracked = directory.get(agent_id)
        if tracked is not None and matching.matches(agent_id, tracked):
            places.append(matching.place(agent_id, tracked))
        if examined % SCAN_STEP == 0:
            await asyncio.sleep(0)
    rest = _after_cursor(matching, places)
    first = heapq.nlargest if request.reverse else heapq.nsmallest
    page = []
    for _, agent_id in first(request.limit, rest):
        tracked = directory.get(agent_id)
        if tracked is not None:
            page.append(tracked)
    return Listing(page, len(places), more=len(rest) > request.limit)


def _candidates(matching: Matching) -> Iterable[str]:
    """Returns the ids of the registered agents that have to be looked at."""
    request = matching.request
    if request.agent_ids:
        asked = set(request.agent_ids)
        registered = matching.directory.registered_ids()
        return [agent_id for agent_id in registered if agent_id in asked]
    if request.status is not None:
        return matching.directory.ids_that_may_have(request.status)
    return matching.directory.registered_ids()


def _after_cursor(matching: Matching, places: list[Place]) -> list[Place]:
    """Returns the places after the cursor, by where the cursor's agent stands now."""
    cursor = matching.request.cursor
    if cursor is None:
        return places
    tracked = matching.directory.get(cursor)
    if tracked is None:
        tracked = Tracked()
    reached = matching.place(cursor, tracked)
    if matching.request.reverse:
        return [place for place in places if place < reached]
    return [place for place in places if place > reached]


def _rank(
    directory: Directory,
    tracked: Tracked,
    order: AgentOrder,
    now: datetime,
) -> tuple[float, ...]:
    if order == "worst":
        return (_SEVERITY[directory.status_of(tracked, now)], *_badness(tracked))
    if order == "next":
        next_at = tracked.next_ping_at(directory.policy)
        return (math.inf if next_at is None else next_at.timestamp(),)
    if order in _STATE_RANKS:
        return (_STATE_RANKS[order](tracked.state, directory.policy),)
    return ()


def _by_uptime(state: AgentState | None, _policy: Policy) -> float:
    if state is None or state.uptime_percent is None:
        return NEVER_JUDGED_PERCENT
    return state.uptime_percent


def _by_interval(state: AgentState | None, policy: Policy) -> float:
    if state is None:
        return -policy.base_seconds
    return -state.interval_seconds


def _by_response(state: AgentState | None, _policy: Policy) -> float:
    if state is None or state.last.response_ms is None:
        return 1.0  # after all that answered
    return -state.last.response_ms


_STATE_RANKS: dict[str, Callable[[AgentState | None, Policy], float]] = {
    "uptime": _by_uptime,
    "interval": _by_interval,
    "response": _by_response,
}


def _badness(tracked: Tracked) -> tuple[float, float]:
    """Returns the rank of an agent among those of its status: the most escalated first."""
    state = tracked.state
    if state is None:
        return (0.0, NEVER_JUDGED_PERCENT)
    if state.uptime_percent is None:
        return (-state.consecutive_poor, NEVER_JUDGED_PERCENT)
    return (-state.consecutive_poor, state.uptime_percent)


def by_due_time(matching: Matching) -> Listing:
    """Lists the agents that are due, the longest overdue first."""
    directory = matching.directory
    request = matching.request
    due = []
    for agent_id, due_at in directory.due(matching.now).items():
        tracked = directory.get(agent_id)
        if tracked is not None and matching.matches(agent_id, tracked):
            due.append((due_at, agent_id, tracked))
    first = heapq.nsmallest(request.limit, due, key=_due_at)
    agents = [tracked for _, _, tracked in first]
    return Listing(agents, total=len(due), more=False)


def by_badness(directory: Directory, request: ListRequest) -> Listing:
    """Lists the agents by status, the worst first, the most escalated first within a status.

    Of a very large group only WORST_SCAN agents are compared.
    """

    def badness(agent_id: str) -> Place:
        return _badness(directory.get(agent_id) or Tracked()), agent_id

    worst: list[Tracked] = []
    for status in WORST_FIRST:
        room = request.limit - len(worst)
        if room <= 0:
            break
        group = islice(directory.by_status.get(status, ()), WORST_SCAN)
        for agent_id in heapq.nsmallest(room, group, key=badness):
            tracked = directory.get(agent_id)
            if tracked is not None:
                worst.append(tracked)
    return Listing(worst, len(directory), more=len(directory) > len(worst))


def _due_at(due: tuple[datetime, str, Tracked]) -> datetime:
    return due[0]
