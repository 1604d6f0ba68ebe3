"""Which events a stream gets: all of them in full, or what one page shows. Pure.

A page shows some rows and sums over the whole fleet. A fleet of 50,000 has a hundred outcomes a
second, of which one or none is of a row on the screen; so the slim view has the events of those
agents only, and once a second the totals of all.
"""

from collections import Counter
from datetime import datetime

from msgspec import Struct

from bus.contract.dashboard import PLACE_LABEL
from bus.contract.fleet_map import STATE_LETTERS, STATUS_LETTERS, tenths
from bus.contract.messages import Status
from bus.contract.questions import Agent, GpuCounts, LiveEvent, Ping

MOST_CHANGES = 20  # status changes that one `totals` event tells
MOST_UPDATES = 2_000  # agents of one `map` event


class LiveView(Struct, frozen=True):
    """What a stream wants. `agents` counts in the slim view only, `map` adds its updates to it."""

    is_slim: bool = False
    agents: frozenset[str] = frozenset()
    has_map: bool = False

    def wants(self, name: str, agent_id: str) -> bool:
        """Returns whether an event belongs to the view. A `status` repeats what a `ping` says."""
        if not self.is_slim:
            return True
        return name != "status" and agent_id in self.agents


FULL = LiveView()


class StatusChange(Struct, kw_only=True, frozen=True):
    """An outcome after which an agent's status is another one. `site` is its label of that name."""

    agent_id: str
    site: str | None
    status: Status
    previous_status: Status
    ping: Ping


class FleetTotals(Struct, kw_only=True, frozen=True):
    """The whole fleet at a moment, and the status changes since the last such event.

    Of many changes the first are listed; `changes_total` counts them all.
    """

    as_of: datetime
    agents: int
    by_status: dict[str, int]
    pings: int
    missed: int
    due: int
    next_ping_at: datetime | None
    gpus: GpuCounts
    changes: tuple[StatusChange, ...]
    changes_total: int


class MapUpdates(Struct, kw_only=True, frozen=True):
    """Agents with a new outcome, as the fleet map packs them: `[id, status, uptime, poor, GPUs]`.

    `removed` and `registered` are ids. `is_cut` says that there were more than fit.
    """

    agents: tuple[tuple[str, str, int, int, str], ...]
    removed: tuple[str, ...]
    registered: tuple[str, ...]
    is_cut: bool


class Digest:
    """What happened since the last second, for slim views."""

    def __init__(self) -> None:
        self._changes: list[StatusChange] = []
        self._changes_total = 0
        self._updated: dict[str, Agent] = {}
        self._removed: list[str] = []
        self._registered: list[str] = []
        self.by_status: Counter[Status] = Counter()  # how many more agents have each, or fewer
        self.pings = 0
        self.missed = 0

    @property
    def has_other_agents(self) -> bool:
        """Whether agents came or went, so that the totals have to be asked for."""
        return bool(self._removed or self._registered)

    def add(self, event: LiveEvent) -> None:
        """Counts an event in."""
        if event.kind == "removed":
            self._removed.append(event.agent_id)
            self._updated.pop(event.agent_id, None)
        if event.kind == "registered":
            self._registered.append(event.agent_id)
        agent = event.agent
        if agent is None:
            return
        if event.kind == "ping" and len(self._updated) <= MOST_UPDATES:
            self._updated[event.agent_id] = agent
        if event.ping is None:
            return
        self.pings += 1
        self.missed += event.ping.outcome == "missed"
        before = event.previous_status
        if before is None or before == agent.status:
            return
        self.by_status[before] -= 1
        self.by_status[agent.status] += 1
        self._changes_total += 1
        if len(self._changes) < MOST_CHANGES:
            site = agent.metadata.get(PLACE_LABEL)
            change = StatusChange(
                agent_id=event.agent_id,
                site=site if isinstance(site, str) else None,
                status=agent.status,
                previous_status=before,
                ping=event.ping,
            )
            self._changes.append(change)

    def changes(self) -> tuple[tuple[StatusChange, ...], int]:
        """Returns the first status changes, and how many there were."""
        return tuple(self._changes), self._changes_total

    def map_updates(self) -> MapUpdates | None:
        """Returns the updates of the map; None where nothing changed on it."""
        if not (self._updated or self._removed or self._registered):
            return None
        packed = [_packed(agent) for agent in self._updated.values()]
        return MapUpdates(
            agents=tuple(packed[:MOST_UPDATES]),
            removed=tuple(self._removed[:MOST_UPDATES]),
            registered=tuple(self._registered[:MOST_UPDATES]),
            is_cut=len(packed) > MOST_UPDATES,
        )


def _packed(agent: Agent) -> tuple[str, str, int, int, str]:
    letters = [STATE_LETTERS[gpu.state] for gpu in agent.gpus if gpu.expected]
    status = STATUS_LETTERS[agent.status]
    uptime = tenths(agent.uptime_percent)
    return agent.agent_id, status, uptime, agent.consecutive_poor_uptime, "".join(letters)
