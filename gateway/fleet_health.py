"""Tells every open event stream, every few seconds, whether the parts behind the gateway can work.

A page that hears nothing of it any more knows by itself that what it shows is old.
"""

import asyncio
from datetime import datetime

from msgspec import Struct

from bus import clock
from bus.client.fleet_client import FleetClient
from gateway.broadcast import EventBroadcast

PERIOD_SECONDS = 5.0
ANSWER_SECONDS = 2.0


class FleetHealth(Struct, kw_only=True, frozen=True):
    """Whether each part can do its work at `as_of`; `reasons` says why one cannot, by its name.

    `remarks` are what an operator should put right, although all can work.
    """

    bus: bool
    scheduler: bool
    storage: bool
    as_of: datetime
    reasons: dict[str, str]
    remarks: tuple[str, ...] = ()


async def tell_health(broadcast: EventBroadcast, fleet_client: FleetClient) -> None:
    """Publishes `health` events until cancelled: to a new stream at once, and then periodically.

    Nobody is asked while no stream is open.
    """
    while True:
        broadcast.subscribed.clear()
        if broadcast.subscriber_count:
            broadcast.publish_passing("health", await _health(fleet_client))
        try:
            async with asyncio.timeout(PERIOD_SECONDS):
                await broadcast.subscribed.wait()
        except TimeoutError:
            continue


async def _health(fleet_client: FleetClient) -> FleetHealth:
    troubles, remarks = await asyncio.gather(
        fleet_client.troubles(ANSWER_SECONDS), fleet_client.remarks(ANSWER_SECONDS)
    )
    reasons = {name: trouble for name, trouble in troubles.items() if trouble is not None}
    return FleetHealth(
        bus="bus" not in reasons,
        scheduler="scheduler" not in reasons,
        storage="storage" not in reasons,
        as_of=clock.utc_now(),
        reasons=reasons,
        remarks=remarks,
    )
