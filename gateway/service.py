"""The gateway as a service: REST on one side, the bus on the other, no state in between."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import structlog
import uvicorn
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus import subjects
from bus.connection import connected
from bus.errors import SettingsError
from bus.settings import Settings
from gateway.app import Parts, build
from gateway.auth import Guard, is_loopback
from gateway.backends import Backends
from gateway.live import Hub
from gateway.metrics import Metrics
from gateway.pages import STATIC, Assets
from gateway.tokens import TokenFile

log = structlog.get_logger("gateway")

GRACE_SECONDS = 2
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared with, not listened on


class Gateway(NamedTuple):
    """A gateway that answers. `url` is where; with GATEWAY_PORT=0 it tells which port was free."""

    url: str


class _Server(uvicorn.Server):
    """uvicorn inside a larger program: signals are the program's business, and being ready is an event."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway for the length of a block. Raises SettingsError for an address it may not or cannot listen on."""
    tokens = _tokens(settings)
    listener = _listen(settings.GATEWAY_HOST, settings.GATEWAY_PORT)
    with contextlib.closing(listener):
        async with connected(settings, "gateway") as client:
            parts = _parts(settings, client, tokens)
            server = _Server(_config(build(parts)))
            await client.subscribe(subjects.EVENT_ALL, cb=_hearing(parts.hub))
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve([listener]))
                await server.ready.wait()
                try:
                    yield Gateway(_url(settings.GATEWAY_HOST, listener))
                finally:
                    parts.hub.close()
                    server.should_exit = True


def _parts(settings: Settings, client: Client, tokens: TokenFile | None) -> Parts:
    return Parts(
        backends=Backends(client, settings.PING_RESPONSE_TIMEOUT_SECONDS),
        hub=Hub(),
        guard=Guard(tokens, settings.GATEWAY_REQUESTS_PER_SECOND),
        metrics=Metrics(),
        assets=Assets(STATIC),
    )


def _tokens(settings: Settings) -> TokenFile | None:
    """Refuses to be reachable from elsewhere without knowing who asks."""
    if settings.GPUPING_TOKENS_FILE:
        return TokenFile(Path(settings.GPUPING_TOKENS_FILE).expanduser())
    if not is_loopback(settings.GATEWAY_HOST):
        raise SettingsError(
            f"GATEWAY_HOST={settings.GATEWAY_HOST!r}: outside loopback the gateway needs GPUPING_TOKENS_FILE"
        )
    return None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"GATEWAY_HOST={host!r}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)  # so that a port in use is found out now
    except OSError as error:
        listener.close()
        raise SettingsError(f"GATEWAY_PORT={port}: cannot listen on {host}: {error.strerror or error}") from None
    return listener


def _config(application: object) -> uvicorn.Config:
    return uvicorn.Config(
        application,  # type: ignore[arg-type]  # an ASGI application, in our own words for its types
        lifespan="off",
        ws="none",
        http="h11",
        log_config=None,
        log_level="critical",  # what fails is logged by the door, with its reason
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may claim another's address
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _hearing(hub: Hub) -> Callable[[Msg], Awaitable[None]]:
    async def hear(message: Msg) -> None:
        hub.receive(message.data)

    return hear


def _url(host: str, listener: socket.socket) -> str:
    shown = _ANY_ADDRESS.get(host, host)
    port = listener.getsockname()[1]
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
