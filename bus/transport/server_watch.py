"""Ends the embedded nats-server when it hangs, so that it is started again.

As `bus.server_watchdog` does for servers of their own, and by the same rules. It asks over the bus,
as the system user: a port for health checks would be open to every user of this machine.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import nats.errors
import structlog
from msgspec import Struct

from bus.background import background
from bus.clock import boottime
from bus.contract import subjects
from bus.errors import GpupingError
from bus.server_watchdog import (
    ANSWER_SECONDS,
    LOOK_SECONDS,
    LOOKS,
    REASONS,
    SIGNALS,
    STOP_SECONDS,
    Health,
    Judge,
    is_limited_by_mistake,
    unhealthy,
)
from bus.settings import Settings
from bus.transport import connection
from bus.transport.embedded_server import EmbeddedServer

log = structlog.get_logger("bus.transport.server_watch")


class Patience(NamedTuple):
    """Seconds from look to look, for an answer, and for an end in good order."""

    look_seconds: float = LOOK_SECONDS
    answer_seconds: float = ANSWER_SECONDS
    stop_seconds: float = STOP_SECONDS


class _Status(Struct):
    status: str = ""


class _HealthAnswer(Struct):
    data: _Status = msgspec.field(default_factory=_Status)


class _Limits(Struct):
    max_storage: int = 0


class _Streams(Struct):
    storage: int = 0
    config: _Limits = msgspec.field(default_factory=_Limits)


class _StreamsAnswer(Struct):
    data: _Streams = msgspec.field(default_factory=_Streams)


@asynccontextmanager
async def watching(
    server: EmbeddedServer,
    as_system: Settings,
    patience: Patience | None = None,
) -> AsyncIterator[None]:
    """Watches the server for the length of a block.

    `as_system` are settings with the credentials of the system user.
    """
    async with background() as start:
        start(_watch(server, as_system, patience or Patience()))
        yield


async def _watch(server: EmbeddedServer, as_system: Settings, patience: Patience) -> None:
    while True:
        try:
            async with connection.connected(as_system, "server-watch") as client:
                await _look_for_ever(server, client, patience)
        except (GpupingError, nats.errors.Error, OSError, TimeoutError) as error:
            log.warning("server_watch_failed", detail=str(error), action="trying again")
        await asyncio.sleep(patience.look_seconds)


async def _look_for_ever(
    server: EmbeddedServer,
    client: connection.Client,
    patience: Patience,
) -> None:
    judge = Judge()
    watched = server.process
    last: Health = "healthy"
    while True:
        if server.process is not watched or not server.is_running:
            # It was started anew, and may be reading its store, or is about to be started:
            # nothing is held against it.
            judge = Judge()
            watched = server.process
        began = boottime()
        health = await look(server, client, patience.answer_seconds)
        was_watched = judge.was_healthy
        must_end = judge.must_end(health)
        if judge.was_healthy and not was_watched:
            log.debug("nats_server_watched")
        if was_watched and health != last:
            _say(last, health)
        last = health
        if must_end:
            log.error("nats_server_hung", detail=REASONS[health], looks=LOOKS, action="end it")
            await server.end(SIGNALS[health], patience.stop_seconds)
        await asyncio.sleep(max(0.0, patience.look_seconds - (boottime() - began)))


def _say(before: Health, health: Health) -> None:
    """What it is ended for is said at once; and when it is well again by itself."""
    if health in REASONS:
        log.warning("nats_server_unwell", detail=REASONS[health])
    elif before in REASONS:
        log.info("nats_server_well_again")


async def look(
    server: EmbeddedServer,
    client: connection.Client,
    seconds: float,
) -> Health:
    """Asks the server whether it is healthy; it has so long to answer."""
    try:
        async with asyncio.timeout(seconds):
            greets = await server.greets()
    except (ConnectionError, TimeoutError):
        greets = False
    except OSError:
        return "unhealthy"  # it is this process that cannot ask, such as without descriptors
    if not greets:
        return "mute"
    if not client.is_connected:
        return "unhealthy"  # the client is on its way back
    try:
        health = await client.request(subjects.SERVER_HEALTH, b"", timeout=seconds)
        streams = await client.request(subjects.SERVER_JETSTREAM, b"", timeout=seconds)
    except TimeoutError:
        return "mute"
    except nats.errors.Error:
        return "unhealthy"
    return judged(health.data, streams.data, server.store)


def judged(health: bytes, streams: bytes, store: Path) -> Health:
    """What the server's answers say about it: on its health, and on what its streams take."""
    try:
        status = msgspec.json.decode(health, type=_HealthAnswer).data.status
        used = msgspec.json.decode(streams, type=_StreamsAnswer).data
    except msgspec.DecodeError:
        return "unhealthy"
    if status != "ok":
        return unhealthy(health, store)
    if is_limited_by_mistake(used.storage, used.config.max_storage, store):
        return "limited"
    return "healthy"
