"""Puts off the timers of agents that are overdue and known to be so.

A timer that fires costs the server an fsync of its own. Were a backlog's timers all to fire, they would hold up
the very commits that work it off, and the backlog would grow: so they are moved, a thousand in one batch.
A timer that was lost is put back by the same write.
"""

import asyncio
from datetime import datetime, timedelta

import structlog

from bus.batch import MAX_MESSAGES, commit
from bus.clock import utc_now
from bus.connection import Client
from bus.errors import BusError
from scheduler.directory import Directory
from scheduler.loop import PingLoop
from scheduler.outcomes import TIMER_PATIENCE, timer

log = structlog.get_logger("scheduler.timekeeper")

LOOK_SECONDS = 5.0
OVERDUE = TIMER_PATIENCE / 2
PUT_OFF = timedelta(minutes=10)
BATCHES_A_LOOK = 50


class Timekeeper:
    """Looks every few seconds; `put_off` counts the timers it moved."""

    def __init__(self, client: Client, directory: Directory, loop: PingLoop) -> None:
        self._client, self._directory, self._loop = client, directory, loop
        self._moved: dict[str, datetime] = {}  # when the moved timer of an agent will fire
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
        self._moved = {agent_id: until for agent_id, until in self._moved.items() if agent_id in due}
        overdue = [
            agent_id
            for agent_id, at in due.items()
            if now - at > OVERDUE and agent_id not in self._loop.active and not self._is_safe(agent_id, now)
        ]
        for first in range(0, min(len(overdue), BATCHES_A_LOOK * MAX_MESSAGES), MAX_MESSAGES):
            await self._move(overdue[first : first + MAX_MESSAGES], now)

    def _is_safe(self, agent_id: str, now: datetime) -> bool:
        until = self._moved.get(agent_id)
        return until is not None and until - now > OVERDUE

    async def _move(self, agent_ids: list[str], now: datetime) -> None:
        known = ((agent_id, self._directory.get(agent_id)) for agent_id in agent_ids)
        writes = [
            timer(agent_id, tracked.next_seq, at, now + PUT_OFF - at)
            for agent_id, tracked in known
            if tracked and (at := tracked.next_ping_at(self._directory.policy))
        ]
        if not writes:
            return
        await commit(self._client, writes)
        self._moved.update((agent_id, now + PUT_OFF) for agent_id in agent_ids)
        self.put_off += len(writes)
        log.warning("timers_put_off", agents=len(writes))
