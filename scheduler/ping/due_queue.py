"""Decides which agent is pinged next.

In this order: attempts that must be started anew, pings requested by hand, agents whose timer
fired, and all other agents that are due.

The directory knows the due time of every agent, in every scheduler. An agent's timer in the bucket
fires only if no scheduler has pinged it in time. Each agent has at most one attempt at a time here.

No attempt is handed out while the agent's last state is not in the history stream: its outcome
would overwrite that state in the bucket (`scheduler.cluster.history_position`).
"""

import heapq
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import structlog
from nats.aio.msg import Msg

from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.messages import Timer, decode
from bus.errors import BadMessageError
from scheduler.cluster.history_position import HistoryPosition
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory
from scheduler.fleet.tracked import Tracked
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import MIN_SECONDS_BETWEEN_OUTCOMES
from scheduler.ping.pinger import new_ping_ids
from scheduler.write.timers import is_overdue

log = structlog.get_logger("scheduler.ping.due_queue")

OFFER_SECONDS = 1.0


class FiredTimer(NamedTuple):
    """A due message; `ack` is the reply subject that acknowledges it."""

    agent_id: str
    seq: int
    due_at: datetime
    ack: str


class DueQueue:
    """Makes attempts in the order in which they shall be launched.

    `active` holds each of them until its outcome is written. `acknowledge` is called with the reply
    subjects of due messages that need no ping. `now` is the schedulers' clock.
    """

    def __init__(
        self,
        directory: Directory,
        peers: Peers,
        history: HistoryPosition,
        limit: int,
        acknowledge: Callable[[list[str]], None],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._directory = directory
        self._peers = peers
        self._history = history
        self._limit = limit
        self._acknowledge = acknowledge
        self._now = now
        self._next_id = new_ping_ids(peers.instance)
        self.active: dict[str, PingAttempt] = {}  # by agent_id
        self._retries: deque[PingAttempt] = deque()
        self._by_hand: deque[PingAttempt] = deque()
        self._fired: deque[FiredTimer] = deque()
        # Due, but too soon after the agent's last outcome: heap by the end of that time (BOOTTIME).
        self._held: list[tuple[float, str]] = []
        # Due, but active already or another scheduler's. A dict, because it keeps the order.
        self._passed_over: dict[str, None] = {}
        # Held until the history stream has their agent's last state.
        self._held_due: dict[str, None] = {}
        self._held_attempts: list[PingAttempt] = []
        self._held_fired: list[FiredTimer] = []
        self._released_at_sequence = history.sequence
        self._offered_at = 0.0
        self.bad_messages = 0

    @property
    def waiting(self) -> int:
        """How many agents are due and have no active attempt."""
        due = self._directory.due(self._now())
        return max(0, len(due) - len(self.active))

    @property
    def held(self) -> int:
        """How many pings wait until the history stream has their agent's last state."""
        return len(self._held_due) + len(self._held_attempts) + len(self._held_fired)

    def room(self) -> int:
        """Returns how many more due messages may be requested."""
        return max(0, self._limit - len(self._fired) - len(self._held_fired))

    def add_due_message(self, message: Msg) -> None:
        """Adds a due message of the consumer that all schedulers share."""
        try:
            agent_id = subjects.last_token(message.subject)
            timer = decode(message.data, Timer)
        except BadMessageError as error:
            self.bad_messages += 1
            log.warning("due_message_rejected", subject=message.subject, detail=str(error))
            self._acknowledge([message.reply])
            return
        fired = FiredTimer(agent_id, timer.seq, timer.due_at, message.reply)
        self._fired.append(fired)

    def add_by_hand(self, agent_id: str, tracked: Tracked) -> PingAttempt:
        """Returns a new attempt, which is launched before the agents that are due."""
        attempt = self._new_attempt(agent_id, tracked, None)
        self._by_hand.append(attempt)
        return attempt

    def add_retry(self, attempt: PingAttempt) -> None:
        """Queues an attempt that must be started anew; it is launched before all others."""
        self._retries.append(attempt)

    def abandon(self) -> None:
        """Forgets everything: the fleet is loaded anew."""
        for attempt in self.active.values():
            attempt.is_abandoned = True
        self.active.clear()
        self._retries.clear()
        self._by_hand.clear()
        self._fired.clear()
        self._held.clear()
        self._passed_over.clear()
        self._held_due.clear()
        self._held_attempts.clear()
        self._held_fired.clear()

    def next(self, now: datetime) -> PingAttempt | None:
        """Returns the next attempt; None when no agent is to be pinged now."""
        for requested in (self._retries, self._by_hand):
            while requested:
                wanted = requested.popleft()
                if self._history.has(wanted.tracked.state_revision):
                    return wanted
                self._held_attempts.append(wanted)
        while self._fired:
            attempt = self._attempt_for_timer(self._fired.popleft(), now)
            if attempt is not None:
                return attempt
        while agent_id := self._directory.take_due(now):
            attempt = self._attempt_for_due(agent_id, now)
            if attempt is not None:
                return attempt
        return None

    def offer_again(self, now: float) -> None:
        """Reconsiders the agents that were held until `now` (CLOCK_BOOTTIME, seconds).

        Once every OFFER_SECONDS it also reconsiders those that were passed over: the scheduler that
        should have pinged them may be gone.
        """
        released = []
        while self._held:
            released_at, agent_id = self._held[0]
            if released_at > now:
                break
            heapq.heappop(self._held)
            released.append(agent_id)
        if now - self._offered_at >= OFFER_SECONDS:
            self._offered_at = now
            released += self._passed_over
            self._passed_over = {}
        if self._history.sequence != self._released_at_sequence:
            self._released_at_sequence = self._history.sequence
            released += self._release_held()
        self._directory.offer_again(released)
        self._history.note_held(self.held)

    def seconds_until_next(self, now: float, turn: datetime) -> float:
        """Returns how long no agent can become due, OFFER_SECONDS at most.

        `turn` is the time for which `next` returned None. An agent that became due since then
        counts as the next one.
        """
        self._history.note_held(self.held)
        pause = OFFER_SECONDS
        next_at = self._directory.next_ping_at(turn)
        if next_at is not None:
            until_due = next_at - self._now()
            pause = min(pause, until_due.total_seconds())
        if self._held:
            released_at, _ = self._held[0]
            pause = min(pause, released_at - now)
        return max(0.0, pause)

    def seconds_too_soon(self, tracked: Tracked, now: datetime) -> float:
        """Returns the seconds until this agent may have another outcome; 0 when it may now."""
        since_last = now.timestamp() - tracked.committed_ns / 1e9
        if 0 <= since_last < MIN_SECONDS_BETWEEN_OUTCOMES:
            return MIN_SECONDS_BETWEEN_OUTCOMES - since_last
        return 0.0

    def _release_held(self) -> list[str]:
        """Reconsiders what was held for the history; returns the agents that were due.

        Those that must wait further are held again when they are taken.
        """
        self._retries.extend(self._held_attempts)
        self._held_attempts = []
        self._fired.extend(self._held_fired)
        self._held_fired = []
        released = []
        for agent_id in self._held_due:
            tracked = self._directory.get(agent_id)
            if tracked is None or self._history.has(tracked.state_revision):
                released.append(agent_id)
        for agent_id in released:
            del self._held_due[agent_id]
        return released

    def _attempt_for_due(self, agent_id: str, now: datetime) -> PingAttempt | None:
        """Returns an attempt for a due agent; None when the agent must not be pinged here now."""
        tracked = self._directory.get(agent_id)
        if tracked is None:
            return None
        if not self._is_for_us_now(agent_id, tracked, now):
            return None
        wait = self.seconds_too_soon(tracked, now)
        if wait > 0:
            heapq.heappush(self._held, (boottime() + wait, agent_id))
            return None
        due_at = tracked.next_ping_at(self._directory.policy)
        if due_at is None:
            return None
        return self._new_attempt(agent_id, tracked, due_at)

    def _is_for_us_now(
        self,
        agent_id: str,
        tracked: Tracked,
        now: datetime,
    ) -> bool:
        """Returns False after setting the agent aside, to be reconsidered later."""
        if agent_id in self.active:
            self._passed_over[agent_id] = None
            return False
        is_in_history = self._history.has(tracked.state_revision)
        owner = self._peers.owner(agent_id)
        if owner != self._peers.instance:
            self._passed_over[agent_id] = None
            if is_in_history:
                self._judge_owner(owner, tracked, now)
            return False
        if not is_in_history:
            self._held_due[agent_id] = None
        return is_in_history

    def _judge_owner(
        self,
        owner: str,
        tracked: Tracked,
        now: datetime,
    ) -> None:
        """Tells the peers how late the ping is that one of them should make."""
        due_at = tracked.next_ping_at(self._directory.policy)
        if due_at is not None:
            late = now - due_at
            self._peers.agent_waits(owner, late.total_seconds())

    def _attempt_for_timer(self, fired: FiredTimer, now: datetime) -> PingAttempt | None:
        """Returns an attempt for a timer that fired.

        Returns None when the agent has an active attempt, which then settles the due message too.
        Also returns None when the timer is out of date or the agent is gone; the due message is
        acknowledged then.
        """
        active = self.active.get(fired.agent_id)
        if active is not None:
            _join(active, fired)
            return None
        tracked = self._directory.get(fired.agent_id)
        due_at = None
        if tracked is not None:
            due_at = self._due_at(fired, tracked, now)
        if tracked is None or due_at is None:
            self._acknowledge([fired.ack])
            return None
        if not self._history.has(tracked.state_revision):
            self._held_fired.append(fired)
            return None
        attempt = self._new_attempt(fired.agent_id, tracked, due_at)
        _join(attempt, fired)
        return attempt

    def _due_at(
        self,
        fired: FiredTimer,
        tracked: Tracked,
        now: datetime,
    ) -> datetime | None:
        """Returns the due time of the ping for which the timer fired; None if it was made already.

        A timer that was kept through several outcomes names an earlier ping. It counts if the
        agent's present ping is overdue.
        """
        next_at = tracked.next_ping_at(self._directory.policy)
        if next_at is None:
            return None
        if fired.seq >= tracked.next_seq:
            return fired.due_at
        if is_overdue(next_at, now):
            return next_at
        return None

    def _new_attempt(
        self,
        agent_id: str,
        tracked: Tracked,
        due_at: datetime | None,
    ) -> PingAttempt:
        attempt = PingAttempt(agent_id, tracked, self._next_id(), due_at)
        attempt.restored_through = self._directory.restored_through
        self.active[agent_id] = attempt
        return attempt


def _join(attempt: PingAttempt, fired: FiredTimer) -> None:
    attempt.acks.append(fired.ack)
    attempt.due_seq = max(attempt.due_seq, fired.seq)
