"""Puts the timer right where an outcome crossed a registration or a removal on the way to the bucket.

An outcome's batch writes the next timer by what its scheduler knew of the registry then. To have the server check
that for each outcome cost it a seventh more CPU; crossings are rare, and told by the order of the revisions.
"""

import asyncio

import structlog

from bus.contract import subjects
from bus.errors import StaleError, UnavailableError
from bus.transport.batch import commit, only_if
from bus.transport.connection import Client
from scheduler.fleet.directory import Directory
from scheduler.write.timers import cancel_timer, timer

log = structlog.get_logger("scheduler.fleet.timer_reconciler")

RETRY_SECONDS = 1.0


class Mender:
    """`crossed` names an agent; what its timer should be is decided when its turn comes."""

    def __init__(self, client: Client, directory: Directory) -> None:
        self._client, self._directory = client, directory
        self._crossed: asyncio.Queue[str] = asyncio.Queue()

    def crossed(self, agent_id: str) -> None:
        """An outcome of this agent may have been written with a timer that is none of its any more."""
        self._crossed.put_nowait(agent_id)

    async def run(self) -> None:
        """Mends until cancelled."""
        while True:
            agent_id = await self._crossed.get()
            try:
                await self._mend(agent_id)
            except StaleError:
                log.debug("mended_by_a_newer_outcome", agent_id=agent_id)
            except UnavailableError as error:
                log.warning(
                    "timer_not_mended", agent_id=agent_id, detail=str(error), action="trying again"
                )
                self.crossed(agent_id)
                await asyncio.sleep(RETRY_SECONDS)

    async def _mend(self, agent_id: str) -> None:
        tracked = self._directory.get(agent_id)
        if tracked is None or tracked.state is None:
            return
        due_at = tracked.next_ping_at(self._directory.policy)
        write = timer(agent_id, tracked.next_seq, due_at) if due_at else cancel_timer(agent_id)
        await commit(
            self._client, [only_if(write, subjects.state_key(agent_id), tracked.state_revision)]
        )
        log.info("timer_mended", agent_id=agent_id, registered=tracked.registered)
