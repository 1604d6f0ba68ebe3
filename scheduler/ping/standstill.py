"""Notices that this process itself stood still: stopped, starved, or suspended with its machine.

A machine that stands still takes the hosts along that it carries, and their ledgers call that time
unknown. Nobody watched it, and the loss is ours: what a host does not know of such time is excused
(`scheduler/ping/admission.py`). What it does know counts as ever.
"""

import asyncio
from collections import deque
from typing import NamedTuple

import structlog

from bus.clock import boottime

log = structlog.get_logger("scheduler.ping.standstill")

TICK_SECONDS = 0.1
GAP_SECONDS = 0.3  # between two ticks; a longer gap is a standstill
MARGIN_SECONDS = 0.3  # at both ends, for a host ticks at other moments than we do
SAID_SECONDS = 2.0  # a shorter one is no news of a busy machine
REMEMBERED = 1_000


class _Standstill(NamedTuple):
    """CLOCK_BOOTTIME in seconds."""

    began: float
    ended: float


class StandstillWatch:
    """Remembers when the event loop did not run."""

    def __init__(self) -> None:
        self._last_tick = boottime()
        self._standstills: deque[_Standstill] = deque(maxlen=REMEMBERED)

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
            began = self._last_tick - MARGIN_SECONDS
            self._standstills.append(_Standstill(began, now + MARGIN_SECONDS))
            if seconds > SAID_SECONDS:
                log.warning(
                    "scheduler_stood_still",
                    seconds=round(seconds, 3),
                    action="what hosts do not know of that time is excused",
                )
        self._last_tick = now

    def seconds_within(self, began: float, ended: float) -> float:
        """Returns how long the process stood still in this time."""
        seconds = 0.0
        for standstill in reversed(self._standstills):
            if standstill.ended <= began:
                break
            common = min(standstill.ended, ended) - max(standstill.began, began)
            seconds += max(0.0, common)
        return seconds
