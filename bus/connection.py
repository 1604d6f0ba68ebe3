"""The connection to the bus: it comes back for ever, notices a frozen server, and keeps the log quiet.

A frozen server leaves a TCP connection "connected"; two unanswered pings 5 s apart find it out within 15 s.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import nats
import structlog
from nats.aio.client import Client, Server

from bus.settings import Settings

log = structlog.get_logger("bus")

PING_INTERVAL_SECONDS = 5
MAX_OUTSTANDING_PINGS = 2
FIRST_RETRY_SECONDS = 0.25
SLOWEST_RETRY_SECONDS = 8.0
PENDING_BYTES = 8 * 1024 * 1024

Hook = Callable[[], Awaitable[None]]


def _next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
    """The server tried least, after a jittered back-off: a fleet must not come back all at once."""
    server = min(servers, key=lambda candidate: candidate.reconnects)
    ceiling = min(SLOWEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(server.reconnects, 10))
    return server, random.uniform(ceiling / 2, ceiling)  # noqa: S311  # spreads load, keeps no secret


class _Narrator:
    """Says each change once: nats-py reports every failed attempt, a hundred agents would fill the disk."""

    def __init__(self, name: str, reconnected: Hook | None) -> None:
        self._name = name
        self._reconnected = reconnected
        self._last_error = ""

    async def error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if "permissions violation" in text.lower():
            log.warning("bus_permission_denied", connection=self._name, detail=str(error))
        elif text != self._last_error:
            log.warning("bus_trouble", connection=self._name, detail=text)
        self._last_error = text

    async def disconnected(self) -> None:
        log.warning("bus_disconnected", connection=self._name)

    async def reconnected(self) -> None:
        self._last_error = ""
        log.info("bus_reconnected", connection=self._name)
        if self._reconnected is not None:
            await self._reconnected()


async def connect(
    settings: Settings,
    name: str,
    *,
    inbox_prefix: str = "_INBOX",
    reconnected: Hook | None = None,
    url: str | None = None,
) -> Client:
    """A client that is connected now and reconnects for ever; waits for as long as no server is there.

    `reconnected` is awaited after each reconnection: a KV watch stalls unless it is made again there.
    """
    narrator = _Narrator(name, reconnected)
    return await nats.connect(
        url or settings.nats_url,
        name=name,
        inbox_prefix=inbox_prefix,
        user_credentials=settings.NATS_CREDS,
        max_reconnect_attempts=-1,
        reconnect_to_server_handler=_next_server,
        reconnect_time_wait=1,  # between attempts of the first connection; later ones follow _next_server
        connect_timeout=5,
        ping_interval=PING_INTERVAL_SECONDS,
        max_outstanding_pings=MAX_OUTSTANDING_PINGS,
        pending_size=PENDING_BYTES,
        error_cb=narrator.error,
        disconnected_cb=narrator.disconnected,
        reconnected_cb=narrator.reconnected,
    )


@asynccontextmanager
async def connected(settings: Settings, name: str, **options: object) -> AsyncIterator[Client]:
    """`connect`, closed on the way out; what was published is flushed first where the bus still answers."""
    client = await connect(settings, name, **options)  # type: ignore[arg-type]  # handed on
    try:
        yield client
    finally:
        await close(client)


async def close(client: Client) -> None:
    """Flushes for a moment, then closes; a bus that is gone does not hold up an exit."""
    try:
        if client.is_connected:
            await client.flush(timeout=1)
    except (TimeoutError, nats.errors.Error, OSError):
        log.debug("bus_closed_unflushed")
    await client.close()
