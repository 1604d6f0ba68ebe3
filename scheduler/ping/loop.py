"""The ping loop: launch who is next in the queue, hand what landed to the committer, settle.

A due message is acknowledged when its outcome stands in the bucket. Each agent has at most one flight here,
which a ping by hand joins.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import nats.errors
from nats.aio.msg import Msg

from bus.clock import boottime, utc_now
from bus.contract.messages import AgentState
from bus.contract.questions import Ping, ping_of
from bus.transport.connection import Client
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory
from scheduler.fleet.registry import unknown
from scheduler.ping.attempt import Flight
from scheduler.ping.committer import Committer
from scheduler.ping.due_queue import OFFER_SECONDS, Queue
from scheduler.ping.pinger import Pinger
from scheduler.policy import Event

MOST_AT_ONCE = 50  # pings sent in one go: 1 ms
UNWRITTEN_LIMIT = 2000  # outcomes that may wait for the bucket before no more pings are sent


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
        self.queue = Queue(directory, peers, limit, self._acknowledge)
        self._acks: list[str] = []
        self._work = asyncio.Event()
        directory.changed = self._work.set
        # set by the composition, which joins the parts in a ring
        self.pinger: Pinger
        self.committer: Committer
        self.more: Callable[[], None]
        self.held_back_seconds = 0.0
        self._held_back_since: float | None = None
        self._ready: Flight | None = (
            None  # the next to launch, taken while there was no place below the limit
        )

    @property
    def active(self) -> dict[str, Flight]:
        """Flights from launch to commit, by agent."""
        return self.queue.active

    def take(self, message: Msg) -> None:
        """A due message from the shared consumer."""
        self.queue.take(message)
        self._work.set()

    async def run(self) -> None:
        """Launches what is due until cancelled. A newcomer greets first, or it would ping what others look after."""
        await self._peers.greeted.wait()
        while True:
            self.queue.offer(boottime())
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
        flight = self.active.get(agent_id)
        if flight is None:
            if tracked.state and self.queue.too_soon(tracked) > 0:
                return ping_of(tracked.state)
            flight = self.queue.by_hand(agent_id, tracked)
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
        self.active.pop(flight.agent_id, None)
        if flight.acks:
            self._acknowledge(flight.acks)
        if flight.waiters:
            ping = ping_of(state)
            for waiter in flight.waiters:
                if not waiter.done():
                    waiter.set_result(ping)
        if ours:
            self._on_settled(flight, state)
        self._work.set()

    def fly_again(self, flight: Flight) -> None:
        """The state under a flight changed before its outcome was written: pings anew, from the state there is."""
        self.queue.again(flight)
        self._work.set()

    def _departing(self, now: datetime) -> list[Flight]:
        """The next flights, as many as there is room for below the limit; notes when nothing else holds one back."""
        flights: list[Flight] = []
        room = min(self._limit - self.pinger.in_flight, MOST_AT_ONCE)
        while flight := self._ready or self.queue.next(now):
            self._ready = None
            if len(flights) >= room or len(self.active) > self._limit + UNWRITTEN_LIMIT:
                self._ready = flight
                break
            flights.append(flight)
        self._note_held_back(held_back=self._ready is not None and not flights)
        return flights

    def _note_held_back(self, *, held_back: bool) -> None:
        """Adds up the time in which a ping waited for nothing but the limit."""
        now = boottime()
        if self._held_back_since is not None:
            self.held_back_seconds += now - self._held_back_since
        self._held_back_since = now if held_back else None

    async def _until_work(self, turn: datetime) -> None:
        """Until something changes, or the next agent is due."""
        self._work.clear()
        pause = OFFER_SECONDS if self._ready else self.queue.seconds_until_next(boottime(), turn)
        try:
            async with asyncio.timeout(pause):
                await self._work.wait()
        except TimeoutError:
            return

    def _acknowledge(self, replies: list[str]) -> None:
        self._acks += replies
        self._work.set()
        self.more()

    async def _send_acks(self) -> None:
        """What is not acknowledged for want of a bus is delivered again, and then found overtaken."""
        acks, self._acks = self._acks, []
        for reply in acks:
            try:
                await self._client.publish(reply, b"+ACK")
            except nats.errors.Error:
                return
