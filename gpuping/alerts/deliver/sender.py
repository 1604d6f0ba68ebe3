"""Sends notifications: claims one, sends it, and marks it as sent.

A claim says which revision it replaces, so that one process has it. The claim of a process that
died is taken over once it has stood unchanged for CLAIM_SECONDS, on this process's own clock. Only
a crash between the sending and its mark, or a target that takes a message and does not say so,
makes a second one, which carries the same idempotency key.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.alerts import Notification
from bus.errors import BusError, StaleError
from gpuping.alerts.board import Board, Kept, put, sleep_unless
from gpuping.alerts.deliver.channels import Channels, SendingError

log = structlog.get_logger("gpuping.alerts.deliver.sender")

CLAIM_SECONDS = 30.0
SEND_SECONDS = 20.0  # for one attempt; below CLAIM_SECONDS
FRESH_SECONDS = 5.0  # a claim that is older than this when it is used may be somebody else's
LOOK_SECONDS = 1.0
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 900.0
UNSENT = frozenset({"waiting", "claimed"})
GIVE_UP = timedelta(hours=24)
SENT_KEPT_SECONDS = 7 * 86_400
FAILED_KEPT_SECONDS = 30 * 86_400


class _SeenClaim(NamedTuple):
    revision: int
    at: float  # CLOCK_BOOTTIME


class Sender:
    """Sends for one alerts process: one message at a time to each target, the oldest first."""

    def __init__(
        self,
        board: Board,
        channels: Callable[[], Channels],
        instance: str,
    ) -> None:
        self._board = board
        self._channels = channels
        self._instance = instance
        self._wake = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, _SeenClaim] = {}
        self.sent: dict[str, int] = {}

    def wake(self) -> None:
        """Something is to be looked at."""
        self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled. What is being sent then is finished first."""
        try:
            while True:
                self._start_what_is_due()
                await sleep_unless(self._wake, LOOK_SECONDS)
        finally:
            if self._busy:
                await asyncio.wait(self._busy.values(), timeout=SEND_SECONDS)

    def _start_what_is_due(self) -> None:
        now = utc_now()
        unsent = set()
        for kept in self._board.notifications.kept(lambda one: one.state in UNSENT):
            notification = kept.value
            unsent.add(notification.notification_id)
            target = notification.target
            if target in self._busy or not self._is_free(kept, now):
                continue
            task = asyncio.create_task(self._attempt(kept))
            self._busy[target] = task
            task.add_done_callback(partial(self._finished, target))
        for forgotten in self._seen.keys() - unsent:
            del self._seen[forgotten]

    def _finished(self, target: str, _: asyncio.Task[None]) -> None:
        del self._busy[target]
        self._wake.set()

    def _is_free(self, kept: Kept[Notification], now: datetime) -> bool:
        """Whether a notification is due, and nobody is at it."""
        notification = kept.value
        if notification.state == "waiting":
            return notification.next_attempt_at <= now
        seen = self._seen.get(notification.notification_id)
        if seen is None or seen.revision != kept.revision:
            self._seen[notification.notification_id] = _SeenClaim(kept.revision, boottime())
            return False
        return boottime() - seen.at >= CLAIM_SECONDS

    async def _attempt(self, kept: Kept[Notification]) -> None:
        """One attempt, from claim to mark. Never raises: what is not marked is tried again."""
        try:
            await self._claim_and_send(kept)
        except (BusError, StaleError) as error:
            log.warning("alerts_mark_failed", detail=str(error), action="trying again")
        except Exception:  # one bad notification must not stop the others
            log.exception("alerts_attempt_crashed")

    async def _claim_and_send(self, kept: Kept[Notification]) -> None:
        notification = kept.value
        key = subjects.notification_key(notification.notification_id)
        claim = replace(
            notification,
            state="claimed",
            claimed_by=self._instance,
            attempts=notification.attempts + 1,
        )
        began = boottime()
        if not await self._board.write([put(key, claim, kept)]):
            return  # another process has it
        mine = self._board.notifications.get(key)
        if mine is None or mine.value.claimed_by != self._instance:
            return
        if boottime() - began > FRESH_SECONDS:
            return  # this process was frozen: another one may have taken it over meanwhile
        self._seen[notification.notification_id] = _SeenClaim(mine.revision, boottime())
        error = await self._send(claim)
        now = utc_now()
        if error is None:
            done = replace(claim, state="sent", error=None, sent_at=now)
            self.sent[claim.target] = self.sent.get(claim.target, 0) + 1
            await self._board.write([put(key, done, mine, keep_seconds=SENT_KEPT_SECONDS)])
            log.info("notification_sent", target=claim.target, title=claim.title)
            return
        await self._put_off(key, mine, error, now)

    async def _send(self, notification: Notification) -> str | None:
        """Sends, and returns why that failed; None where the target took it."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._channels().send(notification)
        except SendingError as error:
            return str(error)
        except TimeoutError:
            return f"it did not answer within {SEND_SECONDS:g} s"
        return None

    async def _put_off(
        self,
        key: str,
        mine: Kept[Notification],
        error: str,
        now: datetime,
    ) -> None:
        claim = mine.value
        log.warning(
            "notification_send_failed",
            target=claim.target,
            attempts=claim.attempts,
            detail=error,
        )
        if now - claim.made_at >= GIVE_UP:
            failed = replace(claim, state="failed", error=error)
            await self._board.write([put(key, failed, mine, keep_seconds=FAILED_KEPT_SECONDS)])
            return
        waiting = replace(
            claim,
            state="waiting",
            error=error,
            next_attempt_at=now + timedelta(seconds=retry_seconds(claim.attempts)),
        )
        await self._board.write([put(key, waiting, mine)])


def retry_seconds(attempts: int) -> float:
    """How long to wait after so many attempts."""
    doublings = min(attempts - 1, 20)
    return min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0**doublings)
