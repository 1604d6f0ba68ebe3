"""Detects the scheduler's own outages, by a round trip to the bus every second, or more often.

A ping that overlaps such an outage must not count as missed by the agent (rule 6 of
docs/design/ping-policy.md). When the server is frozen the client still counts as connected, and a
scheduler that was stopped notices nothing. Both show as a gap between two round trips, measured by
CLOCK_BOOTTIME.
"""

import asyncio
from collections import deque
from typing import NamedTuple

import nats.errors
import structlog

from bus.clock import boottime
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.ping.outages.bus_monitor")

# Between two round trips; a longer gap is an outage. With a short time-out a shorter outage can
# make a ping late, so the round trips are as much closer together.
GAP_SECONDS = 2.0
GAP_SHARE_OF_TIMEOUT = 0.5
LEAST_GAP_SECONDS = 0.5  # a scheduler that is busy makes shorter ones
ROUND_TRIPS_IN_A_GAP = 2  # so that one that is slow is no outage yet
RETRY_SECONDS = 0.1
# After an outage agents reconnect one by one: their back-off takes up to 8 s, a frozen connection
# up to 15 s. An agent that is not subscribed during that time has not missed a ping.
SETTLE_SECONDS = 15.0
REMEMBERED_OUTAGES = 100


class Outage(NamedTuple):
    """The time between two round trips, CLOCK_BOOTTIME in seconds."""

    began: float
    ended: float


class BusMonitor:
    """Remembers when the bus did not answer. `timeout_seconds` is that of a ping.

    `gap_seconds`: a longer time between two round trips is an outage.
    """

    def __init__(self, client: Client, timeout_seconds: float) -> None:
        self._client = client
        gap = min(GAP_SECONDS, timeout_seconds * GAP_SHARE_OF_TIMEOUT)
        self.gap_seconds = max(LEAST_GAP_SECONDS, gap)
        self._last_round_trip = boottime()
        self._outages: deque[Outage] = deque(maxlen=REMEMBERED_OUTAGES)

    async def run(self) -> None:
        """Monitors until cancelled."""
        # The fleet was loaded before; that gap is no outage.
        self._last_round_trip = boottime()
        while True:
            await self.await_round_trip()
            await asyncio.sleep(self.gap_seconds / ROUND_TRIPS_IN_A_GAP)

    async def await_round_trip(self) -> None:
        """Returns after a round trip that began after the call, however long that takes."""
        while not await self._round_trip():  # noqa: ASYNC110  # polls the server, no event of ours
            await asyncio.sleep(RETRY_SECONDS)
        now = boottime()
        if now - self._last_round_trip > self.gap_seconds:
            self._outages.append(Outage(self._last_round_trip, now))
            log.warning(
                "bus_outage_detected",
                seconds=round(now - self._last_round_trip, 3),
                action="pings that overlap it are excused",
            )
        self._last_round_trip = now

    def overlaps_outage(
        self,
        began: float,
        ended: float,
        *,
        no_responders: bool,
    ) -> bool:
        """Returns whether a wait from `began` to `ended` (CLOCK_BOOTTIME, seconds) met an outage.

        When nobody was subscribed, the SETTLE_SECONDS after an outage count as well.
        """
        settle_seconds = 0.0
        if no_responders:
            settle_seconds = SETTLE_SECONDS
        for outage in self._outages:
            if outage.began < ended and outage.ended + settle_seconds > began:
                return True
        return False

    async def _round_trip(self) -> bool:
        if not self._client.is_connected:
            return False
        try:
            await self._client.flush(timeout=1)
        except (TimeoutError, nats.errors.Error, OSError):
            return False
        return True
