"""The gateway as a service: REST on one side, the bus on the other, no state in between."""

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from nats.aio.msg import Msg

from bus.background import background
from bus.contract import subjects
from bus.errors import SettingsError
from bus.settings import Settings
from bus.transport.connection import Client, connected
from gateway.app import Parts, build
from gateway.backends import Backends
from gateway.broadcast import Hub
from gateway.metrics import Metrics
from gateway.routes.pages import STATIC, Assets
from gateway.web.auth import Guard, is_loopback
from gateway.web.server import Server, listen
from gateway.web.tokens import TokenFile

_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared with, not listened on


class Gateway(NamedTuple):
    """A gateway that answers. `url` is where; with GATEWAY_PORT=0 it tells which port was free."""

    url: str


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway for the length of a block. Raises SettingsError for an address it may not or cannot listen on."""
    tokens = _tokens(settings)
    with contextlib.closing(listen(settings.GATEWAY_HOST, settings.GATEWAY_PORT)) as listener:
        async with connected(settings, "gateway") as client, background() as start:
            parts = _parts(settings, client, tokens)
            server = Server(build(parts))
            await client.subscribe(subjects.EVENT_ALL, cb=_hearing(parts.hub))
            start(server.answer(listener))
            await server.ready.wait()
            try:
                yield Gateway(_url(settings.GATEWAY_HOST, listener))
            finally:
                parts.hub.close()
                await server.stop()


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


def _hearing(hub: Hub) -> Callable[[Msg], Awaitable[None]]:
    async def hear(message: Msg) -> None:
        hub.receive(message.data)

    return hear


def _url(host: str, listener: socket.socket) -> str:
    shown = _ANY_ADDRESS.get(host, host)
    port = listener.getsockname()[1]
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
