"""Where the looking verbs get their answers: the bus, or with --server-url a gateway's REST interface.

Both give the same Structs, because the REST interface shows what the services answer.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

from bus.client.fleet_client import FleetClient
from bus.settings import Settings
from gpuping.client import bus_source, rest_source

Source: TypeAlias = bus_source.BusSource | rest_source.RestSource


@asynccontextmanager
async def opened(settings: Settings, server_url: str | None) -> AsyncIterator[Source]:
    """A source of answers. Raises NothingRunsError when there is no system to ask."""
    if server_url:
        yield rest_source.RestSource(server_url, settings.GPUPING_TOKEN)
        return
    async with bus_source.connected(settings) as client:
        fleet_client = FleetClient(client, settings.PING_RESPONSE_TIMEOUT_SECONDS)
        yield bus_source.BusSource(fleet_client)
