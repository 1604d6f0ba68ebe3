"""What a scheduler knows of the fleet, in memory: entries, states, statuses and due times.

The directory is updated by watching the bucket and by the scheduler's own commits. The bucket alone
is the truth: every write is a compare-and-set against a revision that is known here. Memory only:
no I/O and no clock.

What was written by a scheduler whose clock was wrong is corrected by the server's timestamp of the
revision. No enrolment begins after it was written, and no ping is due later than its interval
after the outcome was written; otherwise an agent would not be pinged for as long as that clock was
ahead.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice

from msgspec.structs import replace

from bus.contract.messages import AgentEntry, AgentState, Status
from scheduler import policy as rules
from scheduler.fleet.rules import duplicate_ids
from scheduler.fleet.tracked import CLOCK_TOLERANCE, Tracked
from scheduler.policy import Policy

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ignore() -> None:
    """The default of `on_due_change`."""


def _ignore_agent(_agent_id: str) -> None:
    """The default of `on_timer_suspect`."""


class Directory:
    """All agents by id.

    `on_due_change` is called when an agent may have become due. `on_timer_suspect` is called with
    an agent whose timer may be wrong, because an entry was written before a state that was known
    already.
    """

    def __init__(
        self,
        policy: Policy,
        on_due_change: Callable[[], None] = _ignore,
        on_timer_suspect: Callable[[str], None] = _ignore_agent,
    ) -> None:
        self.policy = policy
        self._on_due_change = on_due_change
        self.on_timer_suspect = on_timer_suspect
        self._agents: dict[str, Tracked] = {}
        self._ids: list[str] = []  # of all agents, registered or not; read by _sorted_ids
        self._ids_dirty = False
        # Heap of due times and agents; entries may be out of date. Seconds since 1970 are compared
        # several times as fast as datetimes, and each ping compares some twenty of them.
        self._upcoming: list[tuple[float, str]] = []
        self._due: dict[str, datetime] = {}
        self._untaken: deque[str] = deque()  # due and not yet taken, oldest first
        # By the standing alone: maintenance begins and ends without a message.
        self.by_status: dict[Status, dict[str, None]] = {}
        # Agents with a connection to the bus; None while nobody knows who has one.
        self._connected: set[str] | None = None
        self._booked: dict[str, None] = {}  # agents with maintenance in their entry
        self.totals: Counter[str] = Counter()
        self.duplicate_ids: set[str] = set()  # registered agents under whose id two answer
        # Agents whose entry or state is another one since somebody last emptied it (`AgentFacts`).
        self.changed: dict[str, None] = {}
        self.restored_through = 0  # the last sequence of the bucket that came from a backup

    def __len__(self) -> int:
        return self.totals["agents"]

    def get(self, agent_id: str) -> Tracked | None:
        """Returns the agent; None when neither an entry nor a state of it was ever seen."""
        return self._agents.get(agent_id)

    def apply_entry(
        self,
        agent_id: str,
        entry: AgentEntry,
        revision: int,
        time_ns: int | None = None,
    ) -> bool:
        """Applies a revision of `agent.<id>`, written at `time_ns` (nanoseconds since 1970).

        Returns False when a newer one is known already. None for a time that is not known.
        """
        tracked = self._tracked(agent_id)
        if revision <= tracked.entry_revision:
            return False
        if time_ns is not None:
            entry = _begun(entry, _timestamp(time_ns))
        suspect = tracked.entry is not None and revision < tracked.state_revision
        tracked.entry = entry
        tracked.entry_revision = revision
        if self._connected is not None:
            tracked.connected = agent_id in self._connected
        if entry.maintenance:
            self._booked[agent_id] = None
        else:
            self._booked.pop(agent_id, None)
        tracked.timer_at = None
        self._refresh(agent_id, tracked)
        if suspect:
            self.on_timer_suspect(agent_id)
        return True

    def apply_state(
        self,
        agent_id: str,
        state: AgentState,
        revision: int,
        time_ns: int,
    ) -> bool:
        """Applies a revision of `state.<id>`, written at `time_ns` (nanoseconds since 1970).

        Returns False when a newer one is known already.
        """
        tracked = self._tracked(agent_id)
        if revision <= tracked.state_revision:
            return False
        state = _due_in_time(state, _timestamp(time_ns), self.policy)
        self._set_state(agent_id, tracked, state, revision)
        tracked.committed_ns = time_ns
        return True

    def apply_late_answer(self, agent_id: str, ping_id: str) -> None:
        """Notes that a missed ping was answered after its time-out.

        One that answers the last ping stays: another that comes from the bucket is older.
        """
        tracked = self._agents.get(agent_id)
        if tracked is None:
            return
        state = tracked.state
        if state is None or tracked.late_ping_id != state.last.ping_id:
            tracked.late_ping_id = ping_id

    def replace_entry(
        self,
        agent_id: str,
        entry: AgentEntry | None,
        revision: int,
    ) -> None:
        """Continues from `entry` where the bucket holds no valid entry at `revision`."""
        tracked = self._tracked(agent_id)
        tracked.entry = entry
        tracked.entry_revision = revision
        self._refresh(agent_id, tracked)

    def replace_state(
        self,
        agent_id: str,
        state: AgentState | None,
        revision: int,
    ) -> None:
        """Continues from `state` where the bucket holds no valid state at `revision`.

        The agent's next outcome then overwrites that revision.
        """
        self._set_state(agent_id, self._tracked(agent_id), state, revision)

    def clear(self) -> None:
        """Forgets everything: the bucket that it was read from is gone."""
        self.changed.update(dict.fromkeys(self._agents))
        self._agents.clear()
        self._ids.clear()
        self._ids_dirty = False
        self._upcoming.clear()
        self._due.clear()
        self._untaken.clear()
        self._booked.clear()
        self.by_status.clear()
        self.totals.clear()

    def rebuild_schedule(self) -> None:
        """Forgets the due times that were queued before all states were read.

        With a million agents, the first turn of the loop would take seconds to skip them.
        """
        upcoming = []
        for agent_id, tracked in self._agents.items():
            next_at = tracked.next_ping_at(self.policy)
            if next_at is not None:
                upcoming.append((next_at.timestamp(), agent_id))
        heapq.heapify(upcoming)
        self._upcoming = upcoming

    def due(self, now: datetime) -> dict[str, datetime]:
        """Returns the due times of the agents that are due by `now`; not to be changed."""
        due_until = now.timestamp()
        while self._upcoming and self._upcoming[0][0] <= due_until:
            _, agent_id = heapq.heappop(self._upcoming)
            next_at = self._agents[agent_id].next_ping_at(self.policy)
            if next_at is not None and next_at <= now and agent_id not in self._due:
                self._due[agent_id] = next_at
                self._untaken.append(agent_id)
        return self._due

    def take_due(self, now: datetime) -> str | None:
        """Returns the next due agent, oldest first; None when there is none.

        Each agent is returned once, until `offer_again` names it.
        """
        due = self.due(now)
        while self._untaken:
            agent_id = self._untaken.popleft()
            if agent_id in due:
                return agent_id
        return None

    def offer_again(self, agent_ids: Iterable[str]) -> None:
        """Lets `take_due` return these agents once more."""
        self._untaken.extend(agent_ids)

    def next_ping_at(self, now: datetime) -> datetime | None:
        """Returns the earliest due time after `now`; None when there is none."""
        self.due(now)
        while self._upcoming:
            at, agent_id = self._upcoming[0]
            next_at = self._agents[agent_id].next_ping_at(self.policy)
            if next_at is not None and next_at.timestamp() == at:
                return next_at
            heapq.heappop(self._upcoming)
        return None

    def registered_ids(self) -> Iterator[str]:
        """Yields the ids of all registered agents in order.

        The caller may await in between; agents that are added meanwhile are left out.
        """
        ids = self._sorted_ids()
        for agent_id in islice(ids, len(ids)):
            if self._agents[agent_id].registered:
                yield agent_id

    def status_of(self, tracked: Tracked, now: datetime) -> Status:
        """Returns the agent's status at `now`, maintenance included."""
        if tracked.in_maintenance(now):
            return "maintenance"
        if tracked.status is not None:
            return tracked.status
        return rules.status(tracked.state, maintenance=False)

    def ids_that_may_have(self, status: Status) -> list[str]:
        """Returns the registered agents that may have a status, some of which have another.

        Maintenance begins and ends without a message: whoever is booked may have either.
        """
        if status == "maintenance":
            return [agent_id for agent_id in self._booked if self._agents[agent_id].registered]
        return list(self.by_status.get(status, ()))

    def ids_with(self, status: Status, now: datetime) -> list[str]:
        """Returns the registered agents that have a status at `now`, maintenance included."""
        agent_ids = self.ids_that_may_have(status)
        if not self._booked:
            return agent_ids
        found = []
        for agent_id in agent_ids:
            if self.status_of(self._agents[agent_id], now) == status:
                found.append(agent_id)
        return found

    def ids(self) -> list[str]:
        """Returns the ids of all registered agents, in no order."""
        found: list[str] = []
        for agent_ids in self.by_status.values():
            found += agent_ids
        return found

    def know_connected(self, agent_ids: Iterable[str]) -> None:
        """Says that exactly these agents are connected to the bus now."""
        self._connected = set(agent_ids)
        for agent_id, tracked in self._agents.items():
            tracked.connected = agent_id in self._connected

    def set_connected(self, agent_id: str, connected: bool) -> bool:
        """Notes a connection or the end of the last one; returns whether that is shown anywhere."""
        if self._connected is None:
            return False
        if connected:
            self._connected.add(agent_id)
        else:
            self._connected.discard(agent_id)
        tracked = self._agents.get(agent_id)
        if tracked is None:
            return False
        tracked.connected = connected
        return tracked.registered

    def answered_unseen(self, agent_id: str) -> None:
        """Notes an answer of an agent that has no connection to a server of ours.

        It is behind a leaf node, whose connections are not announced here.
        """
        tracked = self._agents.get(agent_id)
        if tracked is not None and tracked.connected is False:
            tracked.connected = None

    def set_two_connections(self, agent_id: str, hosts: tuple[str, ...]) -> bool:
        """Notes two hosts under one identity, or none; returns whether that is shown anywhere."""
        tracked = self._agents.get(agent_id)
        if tracked is None:
            return False
        tracked.two_connections = hosts
        self._count_conflict(agent_id, tracked)
        return tracked.registered

    def counts_by_status(self, now: datetime) -> Counter[Status]:
        """Returns how many registered agents have each status at `now`, maintenance included."""
        counts: Counter[Status] = Counter()
        for status, agent_ids in self.by_status.items():
            counts[status] = len(agent_ids)
        for agent_id in self._booked:
            tracked = self._agents[agent_id]
            if tracked.status is not None and tracked.in_maintenance(now):
                counts[tracked.status] -= 1
                counts["maintenance"] += 1
        return counts

    def _tracked(self, agent_id: str) -> Tracked:
        tracked = self._agents.get(agent_id)
        if tracked is None:
            tracked = Tracked()
            self._agents[agent_id] = tracked
            self._ids.append(agent_id)
            self._ids_dirty = True
        return tracked

    def _refresh(self, agent_id: str, tracked: Tracked) -> None:
        """Updates the counts and the queue of due times after a change of `tracked`."""
        self.changed[agent_id] = None
        status = None
        if tracked.registered:
            status = rules.status(tracked.state, maintenance=False)
        if status != tracked.status:
            self._recount(agent_id, tracked.status, status)
            tracked.status = status
        self._count_conflict(agent_id, tracked)
        self._due.pop(agent_id, None)
        next_at = tracked.next_ping_at(self.policy)
        if next_at is not None:
            heapq.heappush(self._upcoming, (next_at.timestamp(), agent_id))
            self._on_due_change()

    def _count_conflict(self, agent_id: str, tracked: Tracked) -> None:
        are_two = bool(tracked.two_connections) or duplicate_ids.is_conflicting(tracked.state)
        if tracked.registered and are_two:
            self.duplicate_ids.add(agent_id)
        else:
            self.duplicate_ids.discard(agent_id)

    def _recount(
        self,
        agent_id: str,
        before: Status | None,
        after: Status | None,
    ) -> None:
        """Moves the agent from one status to another; None stands for "not registered"."""
        if before is not None:
            del self.by_status[before][agent_id]
            self.totals["agents"] -= 1
        if after is not None:
            self.by_status.setdefault(after, {})[agent_id] = None
            self.totals["agents"] += 1

    def _set_state(
        self,
        agent_id: str,
        tracked: Tracked,
        state: AgentState | None,
        revision: int,
    ) -> None:
        new_pings = 0
        new_missed = 0
        if state is not None:
            new_pings = state.ping_seq
            new_missed = state.missed
        if tracked.state is not None:
            new_pings -= tracked.state.ping_seq
            new_missed -= tracked.state.missed
        self.totals["pings"] += new_pings
        self.totals["missed"] += new_missed
        tracked.state = state
        tracked.state_revision = revision
        tracked.timer_at = None
        self._refresh(agent_id, tracked)

    def _sorted_ids(self) -> list[str]:
        if self._ids_dirty:
            self._ids.sort()
            self._ids_dirty = False
        return self._ids


@lru_cache(maxsize=64)
def _timestamp(time_ns: int) -> datetime:
    """All outcomes of a batch have one time, so most results are known already."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def _begun(entry: AgentEntry, written_at: datetime) -> AgentEntry:
    """Returns the entry with an enrolment that began no later than it was written."""
    if entry.enrolled_at <= written_at + CLOCK_TOLERANCE:
        return entry
    return replace(entry, enrolled_at=written_at)


def _due_in_time(
    state: AgentState,
    written_at: datetime,
    policy: Policy,
) -> AgentState:
    """Returns the state with a due time no later than its interval after it was written."""
    seconds_ahead = (state.next_ping_at - written_at).total_seconds()
    if seconds_ahead <= min(state.interval_seconds, policy.max_seconds):
        return state
    latest = rules.latest_due_time(written_at, state.interval_seconds, policy)
    if state.next_ping_at <= latest + CLOCK_TOLERANCE:
        return state
    return replace(state, next_ping_at=latest)
