"""The uptime of the last 24 hours of every agent, for the map: asked for once for all viewers.

Storage sums the day of the whole fleet for it, which takes it as long as a page of a list does.
"""

import asyncio
from collections.abc import Sequence

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.fleet_map import NOT_JUDGED, FleetUptimesRequest
from bus.errors import BusError
from gateway.timed_cache import TimedCache

KEPT_SECONDS = 30.0  # no longer than a page waits before it asks for the map again


class RecentUptimes:
    """Storage's last answer, for KEPT_SECONDS.

    An agent that was judged for less than one base interval has none: it is too early to tell.
    """

    def __init__(self, fleet_client: FleetClient, base_interval_seconds: float) -> None:
        self._fleet_client = fleet_client
        self._question = FleetUptimesRequest(judged_seconds=base_interval_seconds)
        self._kept: TimedCache[None, dict[str, int]] = TimedCache(KEPT_SECONDS, 1)

    async def of(self, agent_ids: Sequence[str]) -> tuple[int, ...]:
        """The uptime of each agent in tenths of a percent, NOT_JUDGED where it has none.

        Empty while storage does not answer within OPTIONAL_SECONDS.
        """
        try:
            async with asyncio.timeout(OPTIONAL_SECONDS):
                found = await self._kept.get(None, self._ask)
        except (BusError, TimeoutError):
            return ()
        return tuple(found.get(agent_id, NOT_JUDGED) for agent_id in agent_ids)

    async def _ask(self) -> dict[str, int]:
        reply = await self._fleet_client.fleet_uptimes(self._question)
        return dict(zip(reply.agent_ids, reply.uptimes, strict=True))
