"""What a scheduler knows of the fleet, in memory: entries, states, their revisions, statuses, who is due.

Kept by following the bucket and by the scheduler's own commits; the bucket stays the only truth, and every
write is a compare-and-set against a revision known here. Memory only: no I/O, no clock.
"""

import bisect
import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from bus.contract.messages import AgentEntry, AgentState, Status
from scheduler import policy as rules
from scheduler.policy import Policy


class Tracked:
    """One agent as known here. Revisions are stream sequences; 0: no such key yet."""

    __slots__ = (
        "committed_ns",
        "entry",
        "entry_revision",
        "state",
        "state_revision",
        "status",
        "timer_at",
    )

    def __init__(self) -> None:
        self.entry: AgentEntry | None = None
        self.entry_revision = 0
        self.state: AgentState | None = None
        self.state_revision = 0
        self.committed_ns = 0  # when the last outcome was written, nanoseconds since 1970
        self.timer_at: datetime | None = None  # when the agent's timer fires, where that is known
        self.status: Status | None = None  # as counted; None: not registered

    @property
    def registered(self) -> bool:
        """Known, and not removed."""
        return self.entry is not None and self.entry.removed_at is None

    @property
    def next_seq(self) -> int:
        """The ping_seq of the next outcome."""
        return self.state.ping_seq + 1 if self.state else 1

    def window_from_mark(self) -> bool:
        """Whether the next window starts at the last answered report; else it starts at the enrolment."""
        state, entry = self.state, self.entry
        if (
            state is None
            or entry is None
            or state.since_mark is None
            or state.last_answered_at is None
        ):
            return False
        return state.last_answered_at >= entry.enrolled_at

    def next_ping_at(self, policy: Policy) -> datetime | None:
        """When the next ping is due; None for an agent that is not registered."""
        if self.entry is None or self.entry.removed_at is not None:
            return None
        if self.state is None:
            return rules.first_ping_at(self.entry.enrolled_at, policy)
        return max(self.state.next_ping_at, self.entry.enrolled_at)

    def in_maintenance(self, now: datetime) -> bool:
        """Whether a maintenance window covers `now`."""
        if self.entry is None or not self.entry.maintenance:
            return False
        return any(span.since <= now < span.until for span in self.entry.maintenance)


class Directory:
    """All agents by id."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._agents: dict[str, Tracked] = {}
        self._ids: list[str] = []  # sorted, registered or not; see _sorted_ids
        self._ids_dirty = False
        self._upcoming: list[tuple[datetime, str]] = []  # heap, entries may be out of date
        self._due: dict[str, datetime] = {}
        self._fresh: deque[str] = deque()  # due and not yet taken, oldest first
        self.changed: Callable[[], None] = lambda: None  # called when an agent may have become due
        self.crossed: Callable[[str], None] = lambda _agent_id: (
            None
        )  # called for an entry older than the known state
        self.by_status: dict[Status, dict[str, None]] = {}
        self.totals: Counter[str] = Counter()

    def __len__(self) -> int:
        return self.totals["agents"]

    def get(self, agent_id: str) -> Tracked | None:
        """The agent, or None when nothing was ever heard of it."""
        return self._agents.get(agent_id)

    def apply_entry(self, agent_id: str, entry: AgentEntry, revision: int) -> bool:
        """A revision of `agent.<id>`; false when a newer one is known already."""
        tracked = self._tracked(agent_id)
        if revision <= tracked.entry_revision:
            return False
        crossed = tracked.entry is not None and revision < tracked.state_revision
        tracked.entry, tracked.entry_revision, tracked.timer_at = entry, revision, None
        self._refresh(agent_id, tracked)
        if crossed:
            self.crossed(agent_id)
        return True

    def apply_state(self, agent_id: str, state: AgentState, revision: int, time_ns: int) -> bool:
        """A revision of `state.<id>`; false when a newer one is known already."""
        tracked = self._tracked(agent_id)
        if revision <= tracked.state_revision:
            return False
        self._set_state(agent_id, tracked, state, revision)
        tracked.committed_ns = time_ns
        return True

    def replace_state(self, agent_id: str, state: AgentState | None, revision: int) -> None:
        """What is in the bucket at `revision` is no state: goes on from `state`, and overwrites that revision."""
        self._set_state(agent_id, self._tracked(agent_id), state, revision)

    def settle(self) -> None:
        """Forgets what loading queued before a state was read: a million agents would take the first turn seconds."""
        known = (
            (tracked.next_ping_at(self.policy), agent_id)
            for agent_id, tracked in self._agents.items()
        )
        self._upcoming = [(at, agent_id) for at, agent_id in known if at is not None]
        heapq.heapify(self._upcoming)

    def due(self, now: datetime) -> dict[str, datetime]:
        """Those whose time has come, by id, with the time it came. The caller does not change it."""
        while self._upcoming and self._upcoming[0][0] <= now:
            _, agent_id = heapq.heappop(self._upcoming)
            next_at = self._agents[agent_id].next_ping_at(self.policy)
            if next_at is not None and next_at <= now and agent_id not in self._due:
                self._due[agent_id] = next_at
                self._fresh.append(agent_id)
        return self._due

    def take_due(self, now: datetime) -> str | None:
        """The next agent that is due, oldest first; each is handed out once, until it is offered again."""
        due = self.due(now)
        while self._fresh:
            agent_id = self._fresh.popleft()
            if agent_id in due:
                return agent_id
        return None

    def offer_again(self, agent_ids: Iterable[str]) -> None:
        """Hands out these once more."""
        self._fresh.extend(agent_ids)

    def next_ping_at(self, now: datetime) -> datetime | None:
        """The earliest time that is still to come."""
        self.due(now)
        while self._upcoming:
            at, agent_id = self._upcoming[0]
            if self._agents[agent_id].next_ping_at(self.policy) == at:
                return at
            heapq.heappop(self._upcoming)
        return None

    def ids_after(self, cursor: str | None) -> Iterator[str]:
        """Registered ids in order, after `cursor`."""
        ids = self._sorted_ids()
        for index in range(_after(ids, cursor), len(ids)):
            if self._agents[ids[index]].registered:
                yield ids[index]

    def status_of(self, tracked: Tracked, now: datetime) -> Status:
        """The status now: the standing's, or maintenance."""
        return rules.status(tracked.state, maintenance=tracked.in_maintenance(now))

    def _tracked(self, agent_id: str) -> Tracked:
        tracked = self._agents.get(agent_id)
        if tracked is None:
            tracked = self._agents[agent_id] = Tracked()
            self._ids.append(agent_id)
            self._ids_dirty = True
        return tracked

    def _refresh(self, agent_id: str, tracked: Tracked) -> None:
        """Counts and queues follow what is known now."""
        status = rules.status(tracked.state, maintenance=False) if tracked.registered else None
        if status != tracked.status:
            if tracked.status is not None:
                del self.by_status[tracked.status][agent_id]
                self.totals["agents"] -= 1
            if status is not None:
                self.by_status.setdefault(status, {})[agent_id] = None
                self.totals["agents"] += 1
            tracked.status = status
        self._due.pop(agent_id, None)
        next_at = tracked.next_ping_at(self.policy)
        if next_at is not None:
            heapq.heappush(self._upcoming, (next_at, agent_id))
            self.changed()

    def _set_state(
        self, agent_id: str, tracked: Tracked, state: AgentState | None, revision: int
    ) -> None:
        pings, missed = _counted(tracked.state)
        tracked.state, tracked.state_revision, tracked.timer_at = state, revision, None
        pings_now, missed_now = _counted(state)
        self.totals["pings"] += pings_now - pings
        self.totals["missed"] += missed_now - missed
        self._refresh(agent_id, tracked)

    def _sorted_ids(self) -> list[str]:
        if self._ids_dirty:
            self._ids.sort()
            self._ids_dirty = False
        return self._ids


def _counted(state: AgentState | None) -> tuple[int, int]:
    return (state.ping_seq, state.missed) if state else (0, 0)


def _after(ids: list[str], cursor: str | None) -> int:
    return 0 if cursor is None else bisect.bisect_right(ids, cursor)
