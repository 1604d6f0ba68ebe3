"""The scheduler's own pulse: a bus round trip every second, so that our outage is never an agent's miss.

A frozen server leaves the client "connected", and a stopped scheduler notices nothing at all; both show as a
gap between two round trips, measured in BOOTTIME. Rule 6 of docs/design/ping-policy.md.
"""

import asyncio
from collections import deque

import nats.errors
import structlog

from bus.clock import boottime
from bus.transport.connection import Client

log = structlog.get_logger("scheduler.ping.bus_monitor")

BEAT_SECONDS = 1.0
GAP_SECONDS = 2.0
# After an outage agents come back one by one (back-off up to 8 s, a frozen connection up to 15 s): one that is not
# there yet did not miss anything.
SETTLE_SECONDS = 15.0
REMEMBERED_GAPS = 100


class Pulse:
    """Knows when the bus was provably there."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._last = boottime()
        self._gaps: deque[tuple[float, float]] = deque(maxlen=REMEMBERED_GAPS)

    async def run(self) -> None:
        """Beats until cancelled."""
        self._last = boottime()  # loading a large fleet before was no outage
        while True:
            await self.prove()
            await asyncio.sleep(BEAT_SECONDS)

    async def prove(self) -> None:
        """Returns after a round trip that began now or later, however long that takes."""
        while not await self._round_trip():  # noqa: ASYNC110  # asks the bus, waits for no event of ours
            await asyncio.sleep(0.1)
        now = boottime()
        if now - self._last > GAP_SECONDS:
            self._gaps.append((self._last, now))
            log.warning(
                "own_outage",
                seconds=round(now - self._last, 3),
                meaning="pings that overlap it are excused",
            )
        self._last = now

    def excuses(self, started: float, ended: float, *, no_responders: bool) -> bool:
        """Whether a wait of these BOOTTIME seconds overlaps an outage of ours (or, unheard, its aftermath)."""
        settle = SETTLE_SECONDS if no_responders else 0.0
        return any(since < ended and until + settle > started for since, until in self._gaps)

    async def _round_trip(self) -> bool:
        if not self._client.is_connected:
            return False
        try:
            await self._client.flush(timeout=1)
        except (TimeoutError, nats.errors.Error, OSError):
            return False
        return True
