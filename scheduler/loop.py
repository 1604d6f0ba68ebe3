"""The ping loop: take who is due, launch, hand what landed to the committer, settle.

Who is due is read from the directory, in which every scheduler has every next_ping_at; the agent's timer in
the bucket fires only where that did not happen, and its due message is acknowledged when the outcome stands
in the bucket. Each agent has at most one flight here, which a ping by hand joins.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from datetime import datetime

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus import subjects
from bus.clock import boottime, utc_now
from bus.connection import Client
from bus.errors import BadMessageError
from bus.messages import AgentState, Timer, decode
from bus.questions import Ping, ping_of
from scheduler.committer import Committer
from scheduler.directory import Directory, Tracked
from scheduler.flight import Flight
from scheduler.outcomes import MIN_SECONDS_BETWEEN_OUTCOMES
from scheduler.peers import Peers
from scheduler.pinger import Pinger, new_ping_ids
from scheduler.policy import Event
from scheduler.registry import unknown

log = structlog.get_logger("scheduler.loop")

OFFER_SECONDS = 1.0
MOST_AT_ONCE = 50  # pings sent in one go: 1 ms
UNWRITTEN_LIMIT = 1000  # outcomes that may wait for the bucket before no more pings are sent


class Due:
    """A timer that fired, and waits for its turn."""

    __slots__ = ("ack", "agent_id", "due_at", "seq")

    def __init__(self, agent_id: str, seq: int, due_at: datetime, ack: str) -> None:
        self.agent_id, self.seq, self.due_at, self.ack = agent_id, seq, due_at, ack


class PingLoop:
    """At most `limit` pings are in flight at once (PING_MAX_CONCURRENT_AGENTS); by-hand pings go first."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        peers: Peers,
        limit: int,
        settled: Callable[[Flight, AgentState], None],
    ) -> None:
        self._client, self._directory, self._peers = client, directory, peers
        self._limit, self._on_settled = limit, settled
        directory.changed = self._wake
        self._next_id = new_ping_ids()
        self._waiting: deque[Due] = deque()
        self._held: list[tuple[float, str]] = []  # heap: too soon after the agent's last outcome
        self._by_hand: deque[Flight] = deque()
        self._active: dict[str, Flight] = {}
        self._again: deque[Flight] = deque()
        self._acks: list[str] = []
        self._work = asyncio.Event()
        # set by the composition, which joins the parts in a ring
        self.pinger: Pinger
        self.committer: Committer
        self.more: Callable[[], None]
        self.bad_messages = 0
        self.held_back_seconds = 0.0
        self._held_back_since: float | None = None
        self._offered_at = 0.0
        self._others: dict[str, None] = {}  # due, and in flight or another scheduler's: offered again every second
        self._ready: Flight | None = None  # the next to launch, taken while there was no place below the limit

    @property
    def waiting(self) -> int:
        """Agents that are due and not in flight."""
        return max(0, len(self._directory.due(utc_now())) - len(self._active))

    def _wake(self) -> None:
        self._work.set()

    @property
    def active(self) -> dict[str, Flight]:
        """Flights from launch to commit, by agent."""
        return self._active

    def room(self) -> int:
        """How many due messages may be asked for."""
        return max(0, self._limit - len(self._waiting))

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
        self._waiting.append(Due(agent_id, timer.seq, timer.due_at, message.reply))
        self._work.set()

    async def run(self) -> None:
        """Launches what is due until cancelled. A newcomer greets first, or it would ping what others look after."""
        await self._peers.greeted.wait()
        while True:
            now = boottime()
            self._release_held(now)
            self._offer_overdue(now)
            await self._send_acks()
            turn = utc_now()
            if flights := self._departing(turn):
                await self.pinger.launch(flights)
            else:
                await self._until_work(turn)

    async def ping_now(self, agent_id: str) -> Ping:
        """A ping by hand, which counts. Joins one in flight; within a second of an outcome, returns that one."""
        tracked = self._directory.get(agent_id)
        if tracked is None or not tracked.registered:
            raise unknown(agent_id)
        flight = self._active.get(agent_id)
        if flight is None:
            if tracked.state and self._too_soon(tracked) > 0:
                return ping_of(tracked.state)
            flight = self._new_flight(agent_id, tracked, None)
            self._by_hand.append(flight)
            self._work.set()
        waiter: asyncio.Future[Ping] = asyncio.get_running_loop().create_future()
        flight.waiters.append(waiter)
        return await waiter

    def landed(self, flight: Flight, event: Event) -> None:
        """A ping came to its end: its outcome goes to the committer, its place to the next."""
        self.committer.submit(flight, event)
        self._work.set()

    def settled(self, flight: Flight, state: AgentState, ours: bool) -> None:
        """The outcome stands in the bucket: acknowledges, tells who waits, makes room."""
        self._active.pop(flight.agent_id, None)
        self._acknowledge(flight.acks)
        if flight.waiters:
            ping = ping_of(state)
            for waiter in flight.waiters:
                if not waiter.done():
                    waiter.set_result(ping)
        if ours:
            self._on_settled(flight, state)
        self._work.set()
        self.more()

    def fly_again(self, flight: Flight) -> None:
        """The state under a flight changed before its outcome was written: pings anew, from the state there is."""
        self._again.append(flight)
        self._work.set()

    def _departing(self, now: datetime) -> list[Flight]:
        """The next flights, as many as there is room for below the limit; notes when nothing else holds one back."""
        flights: list[Flight] = []
        room = min(self._limit - self.pinger.in_flight, MOST_AT_ONCE)
        while flight := self._ready or self._next_flight(now):
            self._ready = None
            if len(flights) >= room or len(self._active) > self._limit + UNWRITTEN_LIMIT:
                self._ready = flight
                break
            flights.append(flight)
        self._note_held_back(held_back=self._ready is not None and not flights)
        return flights

    def _next_flight(self, now: datetime) -> Flight | None:
        if self._again:
            return self._again.popleft()
        if self._by_hand:
            return self._by_hand.popleft()
        while self._waiting:
            if flight := self._admit(self._waiting.popleft()):
                return flight
        while agent_id := self._directory.take_due(now):
            if flight := self._due_flight(agent_id):
                return flight
        return None

    def _due_flight(self, agent_id: str) -> Flight | None:
        """A flight for an agent whose time has come; None when it is in flight, or another scheduler's."""
        tracked = self._directory.get(agent_id)
        if tracked is None:
            return None
        if agent_id in self._active or not self._peers.is_mine(agent_id):
            self._others[agent_id] = None
            return None
        if (wait := self._too_soon(tracked)) > 0:
            heapq.heappush(self._held, (boottime() + wait, agent_id))
            return None
        due_at = tracked.next_ping_at(self._directory.policy)
        return self._new_flight(agent_id, tracked, due_at) if due_at else None

    def _offer_overdue(self, now: float) -> None:
        """Those that were left to another flight or another scheduler are offered again: that one may be gone."""
        if now - self._offered_at < OFFER_SECONDS:
            return
        self._offered_at = now
        others, self._others = self._others, {}
        self._directory.offer_again(others)

    def _admit(self, due: Due) -> Flight | None:
        """A flight for a due that still counts. One that was overtaken, or whose agent is gone, is acknowledged."""
        if flight := self._active.get(due.agent_id):
            self._join(flight, due)  # delivered again, or joined to a ping by hand
            return None
        tracked = self._directory.get(due.agent_id)
        if tracked is None or not tracked.registered or due.seq < tracked.next_seq:
            self._acknowledge([due.ack])
            self.more()
            return None
        flight = self._new_flight(due.agent_id, tracked, due.due_at)
        self._join(flight, due)
        return flight

    def _join(self, flight: Flight, due: Due) -> None:
        flight.acks.append(due.ack)
        flight.due_seq = max(flight.due_seq, due.seq)

    def _new_flight(self, agent_id: str, tracked: Tracked, due_at: datetime | None) -> Flight:
        flight = self._active[agent_id] = Flight(agent_id, tracked, self._next_id(), due_at)
        return flight

    def _too_soon(self, tracked: Tracked) -> float:
        """Seconds until this agent may have another outcome."""
        since = utc_now().timestamp() - tracked.committed_ns / 1e9
        return MIN_SECONDS_BETWEEN_OUTCOMES - since if 0 <= since < MIN_SECONDS_BETWEEN_OUTCOMES else 0.0

    def _release_held(self, now: float) -> None:
        released = []
        while self._held and self._held[0][0] <= now:
            released.append(heapq.heappop(self._held)[1])
        self._directory.offer_again(released)

    async def _until_work(self, turn: datetime) -> None:
        """Until something changes, or the next agent is due. Whose time came since the turn began is next, not past."""
        now = boottime()
        self._work.clear()
        pause = OFFER_SECONDS
        if self._ready is None and (next_at := self._directory.next_ping_at(turn)):
            pause = min(pause, max(0.0, (next_at - utc_now()).total_seconds()))
        if self._held:
            pause = min(pause, max(0.0, self._held[0][0] - now))
        try:
            async with asyncio.timeout(pause):
                await self._work.wait()
        except TimeoutError:
            return

    def _note_held_back(self, *, held_back: bool) -> None:
        """Adds up the time in which a ping waited for nothing but the limit."""
        now = boottime()
        if self._held_back_since is not None:
            self.held_back_seconds += now - self._held_back_since
        self._held_back_since = now if held_back else None

    def _acknowledge(self, replies: list[str]) -> None:
        self._acks += replies
        self._work.set()

    async def _send_acks(self) -> None:
        """What is not acknowledged for want of a bus is delivered again, and then found overtaken."""
        acks, self._acks = self._acks, []
        for reply in acks:
            try:
                await self._client.publish(reply, b"+ACK")
            except nats.errors.Error:
                return
