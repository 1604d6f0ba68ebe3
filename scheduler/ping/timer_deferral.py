"""Defers the timers of agents that are overdue, so that they do not all fire.

A timer that fires costs the server one fsync. If the timers of a whole backlog fired, they would
delay the very commits that reduce the backlog, and it would grow. A scheduler that knows that its
agents are overdue needs no timer to tell it, so it moves their timers, a thousand in one batch. The
same write restores a timer that was lost. The agents of other schedulers are left alone: their
timers are there for the case that those schedulers hang.
"""

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from bus.errors import BusError
from bus.transport.batch import MAX_MESSAGES, commit
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory
from scheduler.fleet.tracked import Tracked
from scheduler.ping.loop import PingLoop
from scheduler.write.timers import is_overdue, timer

log = structlog.get_logger("scheduler.ping.timer_deferral")

INTERVAL_SECONDS = 5.0
DEFERRED_BY = timedelta(minutes=10)
# A timer that fires later than this from now can wait for the next turn.
MIN_REMAINING = timedelta(seconds=30)
MAX_BATCHES = 50  # in one turn


class _Revisions(NamedTuple):
    """The revisions from which a timer is computed."""

    state: int
    entry: int


class TimerDeferral:
    """Defers timers every INTERVAL_SECONDS; `deferred` counts them."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        peers: Peers,
        loop: PingLoop,
        bus_clock: BusClock,
    ) -> None:
        self._client = client
        self._directory = directory
        self._peers = peers
        self._loop = loop
        self._bus_clock = bus_clock
        self.deferred = 0

    async def run(self) -> None:
        """Defers timers until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self._defer_all(self._bus_clock.now())
            except BusError as error:
                log.warning("timer_deferral_failed", detail=str(error))

    async def _defer_all(self, now: datetime) -> None:
        overdue = []
        for agent_id, due_at in self._directory.due(now).items():
            if is_overdue(due_at, now) and self._fires_soon(agent_id, now):
                overdue.append(agent_id)
        del overdue[MAX_BATCHES * MAX_MESSAGES :]
        for first in range(0, len(overdue), MAX_MESSAGES):
            await self._defer(overdue[first : first + MAX_MESSAGES], now)

    def _fires_soon(self, agent_id: str, now: datetime) -> bool:
        """Returns whether the timer may fire before the next turn.

        An agent with an active attempt needs no deferral: its outcome replaces the timer.
        """
        if agent_id in self._loop.active:
            return False
        tracked = self._directory.get(agent_id)
        if not self._peers.is_mine(agent_id):
            return False
        if tracked is None or tracked.timer_at is None:
            return True
        return tracked.timer_at - now <= MIN_REMAINING

    async def _defer(self, agent_ids: list[str], now: datetime) -> None:
        fires_at = now + DEFERRED_BY
        deferred = []
        writes = []
        for agent_id in agent_ids:
            tracked = self._directory.get(agent_id)
            if tracked is None:
                continue
            due_at = tracked.next_ping_at(self._directory.policy)
            if due_at is not None:
                deferred.append((tracked, _revisions(tracked)))
                writes.append(timer(agent_id, tracked.next_seq, due_at, fires_at))
        if not writes:
            return
        await commit(self._client, writes)
        for tracked, revisions in deferred:
            if _revisions(tracked) == revisions:
                tracked.timer_at = fires_at
            else:
                # Another write was made meanwhile; which of the two timers is the later is unknown.
                tracked.timer_at = None
        self.deferred += len(writes)
        log.warning("timers_deferred", agents=len(writes))


def _revisions(tracked: Tracked) -> _Revisions:
    return _Revisions(tracked.state_revision, tracked.entry_revision)
