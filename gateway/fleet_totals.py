"""Tells slim event streams the totals of the fleet once a second, and what changed on the map.

The scheduler is asked every few seconds, because counting 50,000 hosts takes it a tenth of a
second. In between the totals follow from the events themselves.
"""

import asyncio

from msgspec.structs import replace

from bus import clock
from bus.client.fleet_client import FleetClient
from bus.contract.questions import Fleet
from bus.errors import BusError
from gateway.broadcast import EventBroadcast
from gateway.live_view import Digest, FleetTotals

PERIOD_SECONDS = 1.0
ASK_SECONDS = 5.0
ANSWER_SECONDS = 2.0


async def tell_totals(broadcast: EventBroadcast, fleet_client: FleetClient) -> None:
    """Publishes `totals` and `map` events until cancelled, while a slim stream is open."""
    totals = _Totals(fleet_client)
    while True:
        if not broadcast.has_slim_subscriber:
            await broadcast.slim_subscribed.wait()
            broadcast.take_digest()  # what nobody was there for
        digest = broadcast.take_digest()
        told = await totals.after(digest)
        if told is not None:
            broadcast.publish_totals(told)
        updates = digest.map_updates()
        if updates is not None:
            broadcast.publish_map(updates)
        await asyncio.sleep(PERIOD_SECONDS)


class _Totals:
    """The totals as the scheduler told them last, and what events added."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client
        self._fleet: Fleet | None = None
        self._asked_at = -ASK_SECONDS  # CLOCK_BOOTTIME, seconds

    async def after(self, digest: Digest) -> FleetTotals | None:
        """Returns the totals after a second's events; None while the scheduler never answered."""
        now = clock.boottime()
        changes, changes_total = digest.changes()
        is_due = now - self._asked_at >= ASK_SECONDS
        if is_due or digest.has_other_agents:
            self._asked_at = now
            await self._ask()
        elif self._fleet is not None:
            self._fleet = _with_events(self._fleet, digest)
        fleet = self._fleet
        if fleet is None or fleet.gpus is None:
            return None
        return FleetTotals(
            as_of=clock.utc_now(),
            agents=fleet.agents,
            by_status=fleet.by_status,
            pings=fleet.pings,
            missed=fleet.missed,
            due=fleet.due,
            next_ping_at=fleet.next_ping_at,
            gpus=fleet.gpus,
            changes=changes,
            changes_total=changes_total,
        )

    async def _ask(self) -> None:
        try:
            self._fleet = await self._fleet_client.fleet(ANSWER_SECONDS)
        except BusError:
            # `health` events tell that the scheduler is away; these totals are the last known ones
            return


def _with_events(fleet: Fleet, digest: Digest) -> Fleet:
    by_status = dict(fleet.by_status)
    for status, difference in digest.by_status.items():
        by_status[status] = max(0, by_status.get(status, 0) + difference)
    return replace(
        fleet,
        by_status=by_status,
        pings=fleet.pings + digest.pings,
        missed=fleet.missed + digest.missed,
    )
