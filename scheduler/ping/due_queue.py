"""Who flies next: who must fly again, who was asked for by hand, whose timer fired, and whoever is due.

Who is due is read from the directory, in which every scheduler has every next_ping_at; the agent's timer in
the bucket fires only where that did not happen. Each agent has at most one flight here at a time.
"""

import heapq
from collections import deque
from collections.abc import Callable
from datetime import datetime

import structlog
from nats.aio.msg import Msg

from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import Timer, decode
from bus.errors import BadMessageError
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory, Tracked
from scheduler.ping.attempt import Flight
from scheduler.ping.next_state import MIN_SECONDS_BETWEEN_OUTCOMES
from scheduler.ping.pinger import new_ping_ids
from scheduler.write.timers import is_overdue

log = structlog.get_logger("scheduler.ping.due_queue")

OFFER_SECONDS = 1.0


class Due:
    """A timer that fired, and waits for its turn."""

    __slots__ = ("ack", "agent_id", "due_at", "seq")

    def __init__(self, agent_id: str, seq: int, due_at: datetime, ack: str) -> None:
        self.agent_id, self.seq, self.due_at, self.ack = agent_id, seq, due_at, ack


class Queue:
    """Makes flights in the order in which they shall leave; `active` holds them until their outcome is written."""

    def __init__(
        self,
        directory: Directory,
        peers: Peers,
        limit: int,
        acknowledge: Callable[[list[str]], None],
    ) -> None:
        self._directory, self._peers = directory, peers
        self._limit, self._acknowledge = limit, acknowledge
        self._next_id = new_ping_ids()
        self.active: dict[str, Flight] = {}
        self._again: deque[Flight] = deque()
        self._by_hand: deque[Flight] = deque()
        self._fired: deque[Due] = deque()
        self._held: list[tuple[float, str]] = []  # heap: too soon after the agent's last outcome
        self._others: dict[
            str, None
        ] = {}  # due, and in flight or another scheduler's: offered again every second
        self._offered_at = 0.0
        self.bad_messages = 0

    @property
    def waiting(self) -> int:
        """Agents that are due and not in flight."""
        return max(0, len(self._directory.due(utc_now())) - len(self.active))

    def room(self) -> int:
        """How many due messages may be asked for."""
        return max(0, self._limit - len(self._fired))

    def take(self, message: Msg) -> None:
        """A due message from the shared consumer."""
        try:
            agent_id = subjects.last_token(message.subject)
            timer = decode(message.data, Timer)
        except BadMessageError as error:
            self.bad_messages += 1
            log.warning("bad_due_message", subject=message.subject, detail=str(error))
            self._acknowledge([message.reply])
            return
        self._fired.append(Due(agent_id, timer.seq, timer.due_at, message.reply))

    def by_hand(self, agent_id: str, tracked: Tracked) -> Flight:
        """A flight that leaves before whoever is due."""
        flight = self._flight(agent_id, tracked, None)
        self._by_hand.append(flight)
        return flight

    def again(self, flight: Flight) -> None:
        """A flight that leaves once more, before all others."""
        self._again.append(flight)

    def next(self, now: datetime) -> Flight | None:
        """The next flight, if there is one now."""
        if self._again:
            return self._again.popleft()
        if self._by_hand:
            return self._by_hand.popleft()
        while self._fired:
            if flight := self._admit(self._fired.popleft(), now):
                return flight
        while agent_id := self._directory.take_due(now):
            if flight := self._due_flight(agent_id):
                return flight
        return None

    def offer(self, now: float) -> None:
        """Offers again who was passed over: held until now (BOOTTIME), or left to somebody else who may be gone."""
        released = []
        while self._held and self._held[0][0] <= now:
            released.append(heapq.heappop(self._held)[1])
        if now - self._offered_at >= OFFER_SECONDS:
            self._offered_at = now
            released += self._others
            self._others = {}
        self._directory.offer_again(released)

    def seconds_until_next(self, now: float, turn: datetime) -> float:
        """How long nothing can be due. Whose time came since the turn began is next, not past."""
        pause = OFFER_SECONDS
        if next_at := self._directory.next_ping_at(turn):
            pause = min(pause, max(0.0, (next_at - utc_now()).total_seconds()))
        if self._held:
            pause = min(pause, max(0.0, self._held[0][0] - now))
        return pause

    def too_soon(self, tracked: Tracked) -> float:
        """Seconds until this agent may have another outcome."""
        since = utc_now().timestamp() - tracked.committed_ns / 1e9
        return (
            MIN_SECONDS_BETWEEN_OUTCOMES - since
            if 0 <= since < MIN_SECONDS_BETWEEN_OUTCOMES
            else 0.0
        )

    def _due_flight(self, agent_id: str) -> Flight | None:
        """A flight for an agent whose time has come; None when it is in flight, or another scheduler's."""
        tracked = self._directory.get(agent_id)
        if tracked is None:
            return None
        if agent_id in self.active or not self._peers.is_mine(agent_id):
            self._others[agent_id] = None
            return None
        if (wait := self.too_soon(tracked)) > 0:
            heapq.heappush(self._held, (boottime() + wait, agent_id))
            return None
        due_at = tracked.next_ping_at(self._directory.policy)
        return self._flight(agent_id, tracked, due_at) if due_at else None

    def _admit(self, due: Due, now: datetime) -> Flight | None:
        """A flight for a due that still counts. One that was overtaken, or whose agent is gone, is acknowledged."""
        if flight := self.active.get(due.agent_id):
            _join(flight, due)  # delivered again, or joined to a ping by hand
            return None
        tracked = self._directory.get(due.agent_id)
        due_at = self._still_due_at(due, tracked, now) if tracked else None
        if tracked is None or due_at is None:
            self._acknowledge([due.ack])
            return None
        flight = self._flight(due.agent_id, tracked, due_at)
        _join(flight, due)
        return flight

    def _still_due_at(self, due: Due, tracked: Tracked, now: datetime) -> datetime | None:
        """Since when the ping is due that this timer stands for; None where it was overtaken.

        A timer that stood through several outcomes names an early one of them: it counts if the agent waits for long.
        """
        next_at = tracked.next_ping_at(self._directory.policy)
        if next_at is None:
            return None
        if due.seq >= tracked.next_seq:
            return due.due_at
        return next_at if is_overdue(next_at, now) else None

    def _flight(self, agent_id: str, tracked: Tracked, due_at: datetime | None) -> Flight:
        flight = self.active[agent_id] = Flight(agent_id, tracked, self._next_id(), due_at)
        return flight


def _join(flight: Flight, due: Due) -> None:
    flight.acks.append(due.ack)
    flight.due_seq = max(flight.due_seq, due.seq)
