"""Puts back a timer that was lost: an agent long overdue, while nothing is waiting to be pinged.

No path we know loses one; this is the net below the rope, and it counts what falls into it.
"""

import asyncio
from datetime import timedelta

import structlog

from bus import layout, subjects
from bus.batch import commit
from bus.clock import utc_now
from bus.connection import Client
from bus.errors import BusError
from scheduler.directory import Directory
from scheduler.loop import PingLoop
from scheduler.outcomes import timer

log = structlog.get_logger("scheduler.restore")

LOOK_SECONDS = 30.0
OVERDUE = timedelta(seconds=60)
AT_ONCE = 500


class Restorer:
    """Looks now and then; `restored` counts."""

    def __init__(self, client: Client, directory: Directory, loop: PingLoop) -> None:
        self._client, self._directory, self._loop = client, directory, loop
        self.restored = 0

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except BusError as error:
                log.warning("restore_waits", detail=str(error))

    async def _look(self) -> None:
        now = utc_now()
        overdue = [i for i, at in self._directory.due(now).items() if now - at > OVERDUE and i not in self._loop.active]
        if not overdue or not await self._idle():
            return
        known = ((agent_id, self._directory.get(agent_id)) for agent_id in overdue[:AT_ONCE])
        writes = [timer(agent_id, tracked.next_seq, now) for agent_id, tracked in known if tracked]
        await commit(self._client, writes)
        self.restored += len(writes)
        log.error("timers_restored", agents=len(writes), first=overdue[0])

    async def _idle(self) -> bool:
        """Whether no due message waits anywhere: then the overdue have none."""
        if self._loop.waiting:
            return False
        info = await layout.api(self._client, f"CONSUMER.INFO.{subjects.BUCKET_STREAM}.{subjects.DUE_CONSUMER}")
        return bool(info.get("num_pending") == 0 and info.get("num_ack_pending") == 0)
