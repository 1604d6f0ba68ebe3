"""Connects to the bus of a running system."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors

from bus.contract import subjects
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection
from gpuping.client.bus_file import is_stopped, with_demo_alone, with_running_bus

CONNECT_SECONDS = 3.0


class NothingRunsError(BusError):
    """No bus runs where the settings say that it is."""


@asynccontextmanager
async def connect_to_running(settings: Settings) -> AsyncIterator[connection.Client]:
    """A connection for the length of a block. Raises NothingRunsError, which says what to do."""
    settings = with_demo_alone(settings)
    found = with_running_bus(settings)
    names_a_bus = bool(found.NATS_URL or found.NATS_CONTEXT)
    if not names_a_bus and is_stopped(settings.data_dir):
        raise NothingRunsError(
            f"the system of {settings.data_dir} does not run: "
            "start it with `gpuping up`, or set NATS_URL"
        )
    operator = subjects.service_inbox("operator")
    async with connected_in_time(found, operator, CONNECT_SECONDS) as client:
        yield client


@asynccontextmanager
async def connected_in_time(
    settings: Settings,
    inbox_prefix: str,
    seconds: float,
) -> AsyncIterator[connection.Client]:
    """A connection for the length of a block, to a bus that is there now.

    Raises NothingRunsError, or BusError where these credentials are refused. Services wait instead;
    a command that waited for ever would be noticed by nobody.
    """
    try:
        async with asyncio.timeout(seconds):
            client = await connection.connect(settings, "gpuping", inbox_prefix=inbox_prefix)
    except (TimeoutError, OSError, nats.errors.Error):
        refused = await connection.refusal(settings)
        if refused is not None:
            raise BusError(
                f"the bus at {_address(settings)} refuses these credentials (NATS_CREDS): {refused}"
            ) from None
        raise NothingRunsError(
            f"no running system found (no bus at {_address(settings)}): start one with "
            "`gpuping up`, or say where it is with --data-dir, NATS_URL or --server-url"
        ) from None
    try:
        yield client
    finally:
        await client.farewell()


def _address(settings: Settings) -> str:
    if settings.NATS_CONTEXT and not settings.NATS_URL:
        return f"context {settings.NATS_CONTEXT}"
    return settings.shown_nats_url
