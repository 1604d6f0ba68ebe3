"""Makes notifications of the changes that are to be told.

A notification and the marks of its changes are one atomic batch: each change is in exactly one
notification for each of its targets, however many processes try.
"""

import asyncio
import random
import secrets
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.alerts import AlertChange, Notification
from bus.errors import BusError
from bus.transport.batch import MAX_MESSAGES, Write
from gpuping.alerts.board import Board, Kept, delete, put, sleep_unless
from gpuping.alerts.deliver import planning
from gpuping.alerts.deliver.planning import Group
from gpuping.alerts.rules import wording
from gpuping.alerts.rules.rulebook import Rulebook

log = structlog.get_logger("gpuping.alerts.deliver.dispatcher")

LOOK_SECONDS = 1.0  # groups become ripe and quiet hours end without any event
PAUSE_SECONDS = 0.1  # in a storm of changes most of them are planned together
RETRY_SECONDS = 1.0
ID_BYTES = 12


class Dispatcher:
    """Plans and commits for one alerts process. Call `wake` when something changed."""

    def __init__(self, board: Board, rulebook: Callable[[], Rulebook]) -> None:
        self._board = board
        self._rulebook = rulebook
        self._wake = asyncio.Event()
        self.held = 0

    def wake(self) -> None:
        """Something is to be looked at."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatches until cancelled."""
        while True:
            try:
                await self._dispatch()
            except BusError as error:
                log.warning("alerts_dispatch_failed", detail=str(error), action="trying again")
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)
            await sleep_unless(self._wake, LOOK_SECONDS)

    async def _dispatch(self) -> None:
        rulebook = self._rulebook()
        plan = planning.plan(
            self._board.changes.kept(), rulebook, self._board.silences.values(), utc_now()
        )
        self.held = plan.held
        for begin in range(0, len(plan.settled), MAX_MESSAGES):
            part = plan.settled[begin : begin + MAX_MESSAGES]
            await self._board.write([delete(_key(kept.value), kept) for kept in part])
        for group in plan.groups:
            if not await self._make(group, rulebook):
                # Another process is at it: it need not be fought for.
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311  # spreads load
                return

    async def _make(self, group: Group, rulebook: Rulebook) -> bool:
        """Makes one notification. False where another process was first with one of its changes."""
        changes: list[AlertChange] = []
        marks: list[Write] = []
        for seen in group.changes:
            kept = self._board.changes.get(_key(seen.value))
            if kept is None or group.target in kept.value.done:
                return False
            changes.append(replace(kept.value, done=()))
            marks.append(_mark(kept, group.target, rulebook))
        now = utc_now()
        notification = Notification(
            notification_id=secrets.token_hex(ID_BYTES),
            target=group.target,
            severity=group.severity,
            title=wording.title(changes, group.labels),
            text=wording.text(changes),
            changes=tuple(changes),
            made_at=now,
            next_attempt_at=now,
        )
        key = subjects.notification_key(notification.notification_id)
        return await self._board.write([put(key, notification, None), *marks])


def _mark(
    kept: Kept[AlertChange],
    target: str,
    rulebook: Rulebook,
) -> Write:
    """Notes that a target has the change, or forgets the change when all have it."""
    key = _key(kept.value)
    if planning.remaining(kept, rulebook) <= {target}:
        return delete(key, kept)
    return put(key, replace(kept.value, done=(*kept.value.done, target)), kept)


def _key(change: AlertChange) -> str:
    return subjects.change_key(change.change_id)
