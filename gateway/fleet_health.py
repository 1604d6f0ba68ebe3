"""Tells every open event stream, every few seconds, whether the parts behind the gateway can work.

A page that hears nothing of it any more knows by itself that what it shows is old.
"""

import asyncio
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from bus import clock
from bus.background import wait_at_most
from bus.client.fleet_client import FleetClient, optional
from gateway.broadcast import EventBroadcast
from gateway.web.assets import Assets

PERIOD_SECONDS = 5.0
ANSWER_SECONDS = 2.0


class FleetHealth(Struct, kw_only=True, frozen=True):
    """Whether each part can do its work at `as_of`; `reasons` says why one cannot, by its name.

    `remarks` are what an operator should put right, although all can work. The bus holds outcomes
    since `stream_begins` and drops the oldest in about `stream_days_left`; `days_in_file_only` are
    neither there nor in the archive, but in storage's file. None and 0 while storage does not say.
    `page_build` is the build of the dashboard that this gateway serves, by which an older page
    notices an upgrade; None while it serves the sources.
    """

    bus: bool
    scheduler: bool
    storage: bool
    as_of: datetime
    reasons: dict[str, str]
    remarks: tuple[str, ...] = ()
    stream_begins: datetime | None = None
    stream_days_left: float | None = None
    days_in_file_only: int = 0
    page_build: str | None = None


async def tell_health(broadcast: EventBroadcast, fleet_client: FleetClient, assets: Assets) -> None:
    """Publishes `health` events until cancelled: to a new stream at once, and then periodically.

    Nobody is asked while no stream is open.
    """
    while True:
        broadcast.subscribed.clear()
        if broadcast.subscriber_count:
            health = await _health(fleet_client)
            told = replace(health, page_build=assets.build_id())
            broadcast.publish_passing("health", told)
        await wait_at_most(broadcast.subscribed, PERIOD_SECONDS)


async def _health(fleet_client: FleetClient) -> FleetHealth:
    troubles, remarks, stats = await asyncio.gather(
        fleet_client.troubles(ANSWER_SECONDS),
        fleet_client.remarks(ANSWER_SECONDS),
        optional(fleet_client.storage_stats(ANSWER_SECONDS)),
    )
    reasons = {name: trouble for name, trouble in troubles.items() if trouble is not None}
    health = FleetHealth(
        bus="bus" not in reasons,
        scheduler="scheduler" not in reasons,
        storage="storage" not in reasons,
        as_of=clock.utc_now(),
        reasons=reasons,
        remarks=remarks,
    )
    if stats is None:
        return health
    return replace(
        health,
        stream_begins=stats.stream_begins,
        stream_days_left=stats.stream_days_left,
        days_in_file_only=stats.days_in_file_only,
    )
