"""Selects and orders the agents of a list."""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from bus.contract.messages import AgentState, Status
from bus.contract.questions import AgentOrder, ListRequest
from scheduler.fleet.directory import Directory
from scheduler.fleet.lists.agent_facts import AgentFacts
from scheduler.fleet.rules.maintenance import has_label
from scheduler.fleet.tracked import Tracked
from scheduler.policy import Policy

SCAN_STEP = 5000  # agents examined before other tasks get a turn
WORST_SCAN = 100_000  # agents of one status that are compared
SORTED_FROM = 1_000  # a page that ends later is cut from the whole list, put in order
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


# Whether an agent has what is asked for.
Check = Callable[[str, Tracked], bool]


class Matching:
    """The agents that a request asks for, and their order.

    What a request does not ask for costs nothing, because a list looks at every agent.
    """

    def __init__(
        self,
        directory: Directory,
        facts: AgentFacts,
        request: ListRequest,
        now: datetime,
    ) -> None:
        self.directory = directory
        self.facts = facts
        self.request = request
        self.now = now
        self._checks = tuple(_checks(directory, request, now))
        self._rank = _rank_of(directory, request.order, now)

    def places(self, agent_ids: Iterable[str]) -> list[Place]:
        """Returns the places of those of the agents that match, in no order."""
        agent_at = self.directory.get
        rank_of = self._rank
        found: list[Place] = []
        for agent_id in agent_ids:
            tracked = agent_at(agent_id)
            if tracked is None or tracked.status is None:  # removed meanwhile
                continue
            if not self._checks or self.matches(agent_id, tracked):
                found.append((rank_of(tracked), agent_id))
        return found

    def matches(self, agent_id: str, tracked: Tracked) -> bool:
        """Returns whether a registered agent has all that is asked for."""
        for check in self._checks:  # noqa: SIM110  # `all` with a generator takes three times as long
            if not check(agent_id, tracked):
                return False
        return True

    def place(self, agent_id: str, tracked: Tracked) -> Place:
        """Returns the place of an agent in the order that the request asks for."""
        return self._rank(tracked), agent_id


def _checks(
    directory: Directory,
    request: ListRequest,
    now: datetime,
) -> Iterator[Check]:
    """Yields a check for each filter of the request but its words, which `_candidates` has."""
    if request.status is not None:
        status = request.status
        yield lambda _, tracked: directory.status_of(tracked, now) == status
    if request.capability:
        capability = request.capability
        yield lambda _, tracked: _has_capability(tracked, capability)
    if request.has_url:
        yield lambda _, tracked: tracked.entry is not None and bool(tracked.entry.agent_url)
    if request.label:
        label = request.label
        yield lambda _, tracked: _has_label(tracked, label)


def _has_capability(tracked: Tracked, capability: str) -> bool:
    return tracked.entry is not None and capability in tracked.entry.capabilities


def _has_label(tracked: Tracked, label: str) -> bool:
    return tracked.entry is not None and has_label(tracked.entry, label)


def is_plain(request: ListRequest) -> bool:
    """Returns whether a request asks for the worst agents only: no filter, page or direction."""
    filters = (
        request.status,
        request.capability,
        request.search,
        request.cursor,
        request.offset,
        request.agent_ids,
        request.has_url,
        request.label,
    )
    return request.order == "worst" and not request.reverse and not any(filters)


async def in_order(matching: Matching) -> Listing:
    """Lists the agents after the cursor in the order that the request asks for.

    Counting them takes a look at every agent, so other tasks get a turn now and then.
    """
    directory = matching.directory
    request = matching.request
    places = await _places(matching, await _candidates(matching))
    rest = _after_cursor(matching, places)
    page = []
    for _, agent_id in _on_page(request, rest):
        tracked = directory.get(agent_id)
        if tracked is not None:
            page.append(tracked)
    more = len(rest) > request.offset + request.limit
    return Listing(page, len(places), more=more)


async def _places(matching: Matching, agent_ids: Sequence[str]) -> list[Place]:
    """Returns the places of the agents that match. Other tasks get a turn now and then."""
    places: list[Place] = []
    for first in range(0, len(agent_ids), SCAN_STEP):
        places += matching.places(agent_ids[first : first + SCAN_STEP])
        await asyncio.sleep(0)
    return places


def _on_page(request: ListRequest, places: list[Place]) -> list[Place]:
    """Returns the places on the page in their order.

    On a page near the beginning the others need not be put in order.
    """
    end = request.offset + request.limit
    if end > SORTED_FROM:
        return sorted(places, reverse=request.reverse)[request.offset : end]
    first = heapq.nlargest if request.reverse else heapq.nsmallest
    return first(end, places)[request.offset :]


async def _candidates(matching: Matching) -> Sequence[str]:
    """Returns the ids of the registered agents that have to be looked at, in no order."""
    request = matching.request
    words = (request.search or "").lower().split()
    if words:
        found = await matching.facts.with_words(words)
        if request.agent_ids:
            return list(set(found).intersection(request.agent_ids))
        return found
    if request.agent_ids:
        return list(dict.fromkeys(request.agent_ids))
    if request.status is not None:
        return matching.directory.ids_that_may_have(request.status)
    return matching.directory.ids()


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


def _rank_of(
    directory: Directory,
    order: AgentOrder,
    now: datetime,
) -> Callable[[Tracked], tuple[float, ...]]:
    """Returns the function that gives an agent's rank in an order."""
    if order == "worst":
        return lambda tracked: _by_status(directory, tracked, now)
    policy = directory.policy
    if order == "next":
        return lambda tracked: _by_next_ping(tracked, policy)
    if order in _STATE_RANKS:
        rank = _STATE_RANKS[order]
        return lambda tracked: (rank(tracked.state, policy),)
    return lambda _: ()


def _by_status(directory: Directory, tracked: Tracked, now: datetime) -> tuple[float, ...]:
    """The worst status first, and the most escalated first within a status."""
    status = tracked.status
    if status is None or (tracked.entry is not None and tracked.entry.maintenance):
        status = directory.status_of(tracked, now)
    state = tracked.state
    if state is None:
        return (_SEVERITY[status], 0.0, NEVER_JUDGED_PERCENT)
    uptime = state.uptime_percent
    if uptime is None:
        uptime = NEVER_JUDGED_PERCENT
    return (_SEVERITY[status], -state.consecutive_poor, uptime)


def _by_next_ping(tracked: Tracked, policy: Policy) -> tuple[float, ...]:
    next_at = tracked.next_ping_at(policy)
    if next_at is None:
        return (math.inf,)
    return (next_at.timestamp(),)


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


async def by_due_time(matching: Matching) -> Listing:
    """Lists the agents that are due, the longest overdue first."""
    directory = matching.directory
    request = matching.request
    candidates = set(await _candidates(matching))
    due = []
    for agent_id, due_at in directory.due(matching.now).items():
        tracked = directory.get(agent_id)
        if tracked is None or agent_id not in candidates:
            continue
        if matching.matches(agent_id, tracked):
            due.append((due_at, agent_id, tracked))
    end = request.offset + request.limit
    first = heapq.nsmallest(end, due, key=_due_at)
    agents = [tracked for _, _, tracked in first[request.offset :]]
    return Listing(agents, total=len(due), more=False)


async def by_badness(matching: Matching) -> Listing:
    """Lists the agents as the order "worst" does, for a request that has no filter.

    Only the statuses that reach the page are looked at. Of a group larger than WORST_SCAN only so
    many agents are compared.
    """
    directory = matching.directory
    limit = matching.request.limit
    worst: dict[str, Tracked] = {}  # an agent whose status changes meanwhile is listed once
    for status in WORST_FIRST:
        if len(worst) >= limit:
            break
        group = directory.ids_with(status, matching.now)[:WORST_SCAN]
        places = await _places(matching, group)
        for _, agent_id in heapq.nsmallest(limit - len(worst), places):
            tracked = directory.get(agent_id)
            if tracked is not None:
                worst[agent_id] = tracked
    return Listing(list(worst.values()), len(directory), more=len(directory) > len(worst))


def _due_at(due: tuple[datetime, str, Tracked]) -> datetime:
    return due[0]
