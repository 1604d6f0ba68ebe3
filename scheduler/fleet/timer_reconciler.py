"""Corrects the timer of an agent whose registration changed while an outcome was being written.

The batch of an outcome writes the next timer from what its scheduler knew of the registry. A
registration or removal by another scheduler may reach the bucket first, and the timer is then
wrong. Letting the server check this for every outcome cost it a seventh more CPU. Such cases are
rare, and the order of the revisions shows them, so they are corrected afterwards.
"""

import asyncio

import structlog

from bus.contract import subjects
from bus.errors import BusError, StaleError
from bus.transport.batch import commit, only_if
from bus.transport.connection import Client
from scheduler.fleet.directory import Directory
from scheduler.write.timers import cancel_timer, timer

log = structlog.get_logger("scheduler.fleet.timer_reconciler")

RETRY_SECONDS = 1.0


class TimerReconciler:
    """Rewrites the timers of the agents in `suspects`, from what the directory knows then."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        suspects: asyncio.Queue[str],
    ) -> None:
        self._client = client
        self._directory = directory
        self._suspects = suspects

    async def run(self) -> None:
        """Reconciles until cancelled."""
        while True:
            agent_id = await self._suspects.get()
            try:
                await self._reconcile(agent_id)
            except StaleError:
                # A newer outcome was written, and a correct timer with it.
                log.debug("timer_reconcile_superseded", agent_id=agent_id)
            except BusError as error:
                log.warning(
                    "timer_reconcile_failed",
                    agent_id=agent_id,
                    detail=str(error),
                    action="trying again",
                )
                self._suspects.put_nowait(agent_id)
                await asyncio.sleep(RETRY_SECONDS)

    def discard_suspects(self) -> None:
        """Ignores the agents named so far.

        While the directory loads, entries and states arrive in any order, which is no sign of a
        wrong timer.
        """
        while not self._suspects.empty():
            self._suspects.get_nowait()

    async def _reconcile(self, agent_id: str) -> None:
        tracked = self._directory.get(agent_id)
        if tracked is None or tracked.state is None:
            return
        due_at = tracked.next_ping_at(self._directory.policy)
        if due_at is None:
            write = cancel_timer(agent_id)
        else:
            write = timer(agent_id, tracked.next_seq, due_at)
        guarded = only_if(write, subjects.state_key(agent_id), tracked.state_revision)
        await commit(self._client, [guarded])
        log.info("timer_reconciled", agent_id=agent_id, registered=tracked.registered)
