"""The ping loop: launches what is due, has the outcomes written, and settles what waited for them.

A due message is acknowledged once its outcome is in the bucket. Each agent has at most one attempt
at a time here, which a ping by hand joins.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import nats.errors
from nats.aio.msg import Msg

from bus.background import StartTask, wait_at_most
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import AgentState
from bus.contract.questions import Ping, ping_of
from bus.errors import UnavailableError
from bus.transport.connection import Client
from bus.transport.consumers.pull_consumer import PullConsumer
from scheduler.cluster.cluster import Cluster
from scheduler.fleet.directory import Directory
from scheduler.fleet.registry import unknown
from scheduler.fleet.tracked import Tracked
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.committer import Committer
from scheduler.ping.due_queue import OFFER_SECONDS, DueQueue
from scheduler.ping.late_answers import LateAnswers
from scheduler.ping.outages.bus_monitor import BusMonitor
from scheduler.ping.outages.server_monitor import ServerMonitor
from scheduler.ping.pinger import TICK_SECONDS, Pinger, PingLimits
from scheduler.policy import PingResult

LAUNCHED_AT_ONCE = 50  # pings sent in one go; 50 take 1 ms
LAST_PING_MARGIN_SECONDS = 2.0  # beyond the time-out, for the outcome to be written
UNWRITTEN_LIMIT = 2000  # outcomes that may wait for the bucket before no more pings are sent


class PingLoop:
    """Keeps at most `limits.in_flight` pings in flight; pings by hand go first.

    `wake` is set by the directory when an agent may have become due. `on_recorded` is called with
    every outcome that this scheduler wrote. `on_consumer_lost` is awaited when the consumer of due
    messages is gone, and makes it again.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        cluster: Cluster,
        wake: asyncio.Event,
        *,
        limits: PingLimits,
        on_recorded: Callable[[PingAttempt, AgentState], None],
        on_consumer_lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._client = client
        self._directory = directory
        self._peers = cluster.peers
        self._wake = wake
        self._limit = limits.in_flight
        self._timeout_seconds = limits.timeout_seconds
        self._bus_clock = cluster.bus_clock
        self._on_recorded = on_recorded
        self.queue = DueQueue(
            directory,
            cluster.peers,
            cluster.history,
            self._limit,
            self._acknowledge,
            cluster.bus_clock.now,
        )
        self._bus_monitor = BusMonitor(client, limits.timeout_seconds)
        self._server_monitor = ServerMonitor(client)
        self.late_answers = LateAnswers(
            client,
            directory,
            cluster.peers,
            self.queue.active,
            limits,
            cluster.bus_clock.now,
        )
        self.pinger = Pinger(
            client,
            cluster.peers.instance,
            self._bus_monitor,
            self._server_monitor,
            cluster.bus_clock,
            limits,
            self._on_result,
            self.late_answers.receive,
        )
        self.committer = Committer(
            client,
            directory,
            directory.policy,
            self._on_settled,
            self._retry,
            cluster.bus_clock.now,
            cluster.bus_clock.server_now,
        )
        self._due_messages = PullConsumer(
            client,
            subjects.BUCKET_STREAM,
            subjects.DUE_CONSUMER,
            self._on_due_message,
            self.queue.room,
            on_consumer_lost,
        )
        self._acks: list[str] = []
        # The next attempt, taken from the queue while the limit left no room for it.
        self._ready: PingAttempt | None = None
        self.is_paused = False  # no ping is sent
        self.held_back_seconds = 0.0
        self._held_back_since: float | None = None

    @property
    def active(self) -> dict[str, PingAttempt]:
        """The attempts whose outcome is not written yet, by agent_id."""
        return self.queue.active

    def start(self, start: StartTask) -> None:
        """Starts the loop and its parts in the background."""
        self._client.on_reconnect(self._due_messages.pull_again)
        start(self._bus_monitor.run())
        start(self._server_monitor.run())
        start(self.committer.run())
        start(self.pinger.run())
        start(self.late_answers.run())
        start(self._due_messages.run())
        start(self.run())

    async def run(self) -> None:
        """Launches due pings until cancelled.

        First the peers are greeted: a new scheduler would otherwise ping the agents of the others.
        """
        await self._peers.greeted.wait()
        while True:
            self.queue.offer_again(boottime())
            await self._send_acks()
            turn = self._bus_clock.now()
            attempts = self._take_attempts(turn)
            if attempts:
                await self.pinger.launch(attempts)
            else:
                await self._wait_for_work(turn)

    def abandon(self) -> None:
        """Drops every attempt: the fleet is loaded anew. Requests by hand fail."""
        for attempt in self.active.values():
            for waiter in attempt.waiters:
                if not waiter.done():
                    waiter.set_exception(UnavailableError("the bucket was lost: try again"))
        self.queue.abandon()
        self.pinger.abandon()
        self.late_answers.abandon()
        self._ready = None
        self._acks = []

    def wake(self) -> None:
        """Lets the loop look for work at once."""
        self._wake.set()

    async def ping_now(self, agent_id: str) -> Ping:
        """Pings the agent by hand and returns the outcome, which counts like any other.

        Joins an active attempt. Within MIN_SECONDS_BETWEEN_OUTCOMES of the agent's last outcome,
        returns that one. Raises RefusedError 404 when no such agent is registered.
        """
        tracked = self._directory.get(agent_id)
        if tracked is None or not tracked.registered:
            raise unknown(agent_id)
        attempt = self._attempt_by_hand(agent_id, tracked)
        if attempt is None:
            assert tracked.state is not None  # noqa: S101  # an outcome a moment ago left one
            return ping_of(tracked.state)
        return await _outcome_of(attempt)

    async def last_ping(self, agent_id: str) -> Ping | None:
        """Pings an agent that is about to be removed, as `ping_now` does.

        Returns None where that would only wait for a host that is gone: the last outcome was a
        miss, nobody listens at this moment, or the time-out is over. The outcome of a ping that was
        sent is recorded all the same.
        """
        tracked = self._directory.get(agent_id)
        if tracked is None or not tracked.registered:
            return None
        if tracked.state is not None and tracked.state.last.outcome == "missed":
            return None
        attempt = self._attempt_by_hand(agent_id, tracked)
        if attempt is None:
            assert tracked.state is not None  # noqa: S101  # an outcome a moment ago left one
            return ping_of(tracked.state)
        outcome = _outcome_of(attempt)
        give_up_at = boottime() + self._timeout_seconds + LAST_PING_MARGIN_SECONDS
        while not outcome.done() and not attempt.no_responders and boottime() < give_up_at:
            await asyncio.wait({outcome}, timeout=TICK_SECONDS)
        if outcome.done():
            return outcome.result()
        return None

    def _attempt_by_hand(self, agent_id: str, tracked: Tracked) -> PingAttempt | None:
        """Returns the attempt that a request by hand waits for, an active one or a new one.

        Returns None within MIN_SECONDS_BETWEEN_OUTCOMES of the agent's last outcome.
        """
        attempt = self.active.get(agent_id)
        if attempt is None:
            if tracked.state and self.queue.seconds_too_soon(tracked, self._bus_clock.now()) > 0:
                return None
            attempt = self.queue.add_by_hand(agent_id, tracked)
            self._wake.set()
        return attempt

    def _on_due_message(self, message: Msg) -> None:
        self.queue.add_due_message(message)
        self._wake.set()

    def _on_result(self, attempt: PingAttempt, result: PingResult) -> None:
        self.committer.submit(attempt, result)
        self._wake.set()

    def _on_settled(
        self,
        attempt: PingAttempt,
        state: AgentState,
        ours: bool,
    ) -> None:
        """Handles an outcome that is in the bucket, be it this scheduler's or another's."""
        if attempt.is_abandoned:
            return
        self.active.pop(attempt.agent_id, None)
        if attempt.acks and state.ping_seq >= attempt.due_seq:
            self._acknowledge(attempt.acks)  # otherwise they ask for the next ping, and come again
        if attempt.waiters:
            ping = ping_of(state)
            for waiter in attempt.waiters:
                if not waiter.done():
                    waiter.set_result(ping)
        if ours:
            self._on_recorded(attempt, state)
        self._wake.set()

    def _retry(self, attempt: PingAttempt) -> None:
        """Pings once more, because the state changed before the outcome was written."""
        if attempt.is_abandoned:
            return
        if attempt.due_at is not None:
            attempt.due_at = attempt.tracked.next_ping_at(self._directory.policy)
        self.queue.add_retry(attempt)
        self._wake.set()

    def _take_attempts(self, now: datetime) -> list[PingAttempt]:
        """Takes as many attempts from the queue as the limit leaves room for."""
        attempts: list[PingAttempt] = []
        if self.is_paused:
            return attempts
        room = min(self._limit - self.pinger.in_flight, LAUNCHED_AT_ONCE)
        while attempt := self._ready or self.queue.next(now):
            self._ready = None
            if len(attempts) >= room or len(self.active) > self._limit + UNWRITTEN_LIMIT:
                self._ready = attempt
                break
            attempts.append(attempt)
        self._measure_held_back(held_back=self._ready is not None and not attempts)
        return attempts

    def _measure_held_back(self, *, held_back: bool) -> None:
        """Adds up the time during which only the limit kept a ping from being sent."""
        now = boottime()
        if self._held_back_since is not None:
            self.held_back_seconds += now - self._held_back_since
        self._held_back_since = now if held_back else None

    async def _wait_for_work(self, turn: datetime) -> None:
        """Returns when something has changed, or when the next agent is due."""
        self._wake.clear()
        pause = OFFER_SECONDS
        if self._ready is None:
            pause = self.queue.seconds_until_next(boottime(), turn)
        await wait_at_most(self._wake, pause)

    def _acknowledge(self, replies: list[str]) -> None:
        self._acks += replies
        self._wake.set()
        self._due_messages.room_freed()

    async def _send_acks(self) -> None:
        """Acknowledges due messages.

        If the bus is away the acknowledgements are dropped. The messages are then delivered again,
        and found to be out of date.
        """
        acks = self._acks
        self._acks = []
        for reply in acks:
            try:
                await self._client.publish(reply, b"+ACK")
            except nats.errors.Error:
                return


def _outcome_of(attempt: PingAttempt) -> asyncio.Future[Ping]:
    """Returns the outcome to come."""
    waiter: asyncio.Future[Ping] = asyncio.get_running_loop().create_future()
    attempt.waiters.append(waiter)
    return waiter
