"""Puts off the timers of agents that are overdue and known to be so.

A timer that fires costs the server an fsync of its own. Were a backlog's timers all to fire, they would hold up
the very commits that work it off, and the backlog would grow: so they are moved, a thousand in one batch.
A timer that was lost is put back by the same write.
"""

import asyncio
from datetime import datetime, timedelta

import structlog

from bus.clock import utc_now
from bus.errors import BusError
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client
from scheduler.fleet.directory import Directory, Tracked
from scheduler.ping.loop import PingLoop
from scheduler.write.timers import is_overdue, timer

log = structlog.get_logger("scheduler.ping.timer_deferral")

LOOK_SECONDS = 5.0
PUT_OFF = timedelta(minutes=10)
SAFE = timedelta(seconds=30)  # a timer that fires no earlier can wait for the next look
BATCHES_A_LOOK = 50


class Timekeeper:
    """Looks every few seconds; `put_off` counts the timers it moved."""

    def __init__(self, client: Client, directory: Directory, loop: PingLoop) -> None:
        self._client, self._directory, self._loop = client, directory, loop
        self.put_off = 0

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look(utc_now())
            except BusError as error:
                log.warning("timers_wait", detail=str(error))

    async def _look(self, now: datetime) -> None:
        due = self._directory.due(now)
        overdue = [
            agent_id
            for agent_id, at in due.items()
            if is_overdue(at, now)
            and agent_id not in self._loop.active
            and not self._is_safe(agent_id, now)
        ]
        for first in range(0, min(len(overdue), BATCHES_A_LOOK * MAX_MESSAGES), MAX_MESSAGES):
            await self._move(overdue[first : first + MAX_MESSAGES], now)

    def _is_safe(self, agent_id: str, now: datetime) -> bool:
        tracked = self._directory.get(agent_id)
        return (
            tracked is not None and tracked.timer_at is not None and tracked.timer_at - now > SAFE
        )

    async def _move(self, agent_ids: list[str], now: datetime) -> None:
        until = now + PUT_OFF
        moving, writes = list[tuple[Tracked, tuple[int, int]]](), list[Write]()
        for agent_id in agent_ids:
            tracked = self._directory.get(agent_id)
            if tracked and (at := tracked.next_ping_at(self._directory.policy)):
                moving.append((tracked, _revisions(tracked)))
                writes.append(timer(agent_id, tracked.next_seq, at, until))
        if not writes:
            return
        await commit(self._client, writes)
        for (
            tracked,
            revisions,
        ) in moving:  # of two writes that crossed, nobody knows which timer stands
            tracked.timer_at = until if _revisions(tracked) == revisions else None
        self.put_off += len(writes)
        log.warning("timers_put_off", agents=len(writes))


def _revisions(tracked: Tracked) -> tuple[int, int]:
    return tracked.state_revision, tracked.entry_revision
