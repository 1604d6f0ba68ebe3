"""Notices that this process itself stood still: stopped, starved, or suspended with its machine.

A machine that stands still takes the hosts along that it carries, and their ledgers call that time
unknown. Nobody watched it, and the loss is ours: what a host does not know of such time is excused
(`scheduler/ping/accounting/admission.py`). What it does know counts as ever.
"""

import asyncio
from bisect import bisect_right
from typing import NamedTuple

import structlog

from bus.clock import boottime

log = structlog.get_logger("scheduler.ping.outages.standstill")

TICK_SECONDS = 0.1
GAP_SECONDS = 0.3  # between two ticks; a longer gap is a standstill
MARGIN_SECONDS = 0.3  # at both ends, for a host ticks at other moments than we do
SAID_SECONDS = 2.0  # a shorter one is no news of a busy machine
REMEMBERED = 1_000


class _Standstill(NamedTuple):
    """CLOCK_BOOTTIME in seconds. `before` is the sum of all standstills before this one."""

    began: float
    ended: float
    before: float


class StandstillWatch:
    """Remembers when the event loop did not run. No two standstills overlap."""

    def __init__(self) -> None:
        self._last_tick = boottime()
        self._standstills: list[_Standstill] = []  # in order of time

    async def run(self) -> None:
        """Ticks until cancelled."""
        self._last_tick = boottime()  # the fleet was loaded before
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick(boottime())

    def tick(self, now: float) -> None:
        """Notes that the loop runs, and a standstill where it had not run for too long."""
        seconds = now - self._last_tick
        if seconds > GAP_SECONDS:
            self._remember(self._last_tick - MARGIN_SECONDS, now + MARGIN_SECONDS)
            if seconds > SAID_SECONDS:
                log.warning(
                    "scheduler_stood_still",
                    seconds=round(seconds, 3),
                    action="what hosts do not know of that time is excused",
                )
        self._last_tick = now

    def seconds_within(self, began: float, ended: float) -> float:
        """Returns how long the process stood still in this time."""
        return self._seconds_until(ended) - self._seconds_until(began)

    def _remember(self, began: float, ended: float) -> None:
        """Adds a standstill; one that begins within the last one, with its margin, prolongs it."""
        before = 0.0
        if self._standstills:
            last = self._standstills[-1]
            if began <= last.ended:
                self._standstills[-1] = last._replace(ended=ended)
                return
            before = last.before + last.ended - last.began
        self._standstills.append(_Standstill(began, ended, before))
        if len(self._standstills) > 2 * REMEMBERED:
            del self._standstills[:REMEMBERED]

    def _seconds_until(self, moment: float) -> float:
        """Returns the sum of all standstills up to a moment, as far as they are remembered."""
        index = bisect_right(self._standstills, moment, key=lambda one: one.began)
        if index == 0:
            return self._standstills[0].before if self._standstills else 0.0
        last = self._standstills[index - 1]
        return last.before + min(moment, last.ended) - last.began
