"""Where commands get their answers: from the bus, or with --server-url from a gateway.

Both give the same Structs, because the REST interface shows what the services answer.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

from bus.client.fleet_client import FleetClient
from bus.settings import Settings
from gpuping.client.bus_connection import connect_to_running
from gpuping.client.bus_source import BusSource
from gpuping.client.rest_source import RestSource

Source: TypeAlias = BusSource | RestSource


@asynccontextmanager
async def open_source(settings: Settings, server_url: str | None) -> AsyncIterator[Source]:
    """A source of answers. Raises NothingRunsError when there is no system on the bus to ask."""
    if server_url:
        yield RestSource(server_url, settings.GPUPING_TOKEN)
        return
    async with connect_to_running(settings) as client:
        yield BusSource(FleetClient(client, settings.PING_RESPONSE_TIMEOUT_SECONDS))
