"""The gateway as a service: REST on one side, the bus on the other, and no state of its own."""

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from nats.aio.msg import Msg

from bus.addresses import is_loopback
from bus.background import background
from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.errors import SettingsError
from bus.identity.tokens import TokenFile
from bus.monitoring.credentials_families import CredentialsCollector
from bus.redaction import redact_address
from bus.settings import Settings
from bus.transport.connection import Client, connected
from gateway.app import Dependencies, build
from gateway.audit_log import AuditLog
from gateway.bridge import bridge
from gateway.bridge.bridge import Bridge
from gateway.broadcast import MAX_SUBSCRIBERS, EventBroadcast
from gateway.fleet_health import tell_health
from gateway.fleet_totals import tell_totals
from gateway.fleet_uptimes import RecentUptimes
from gateway.public.badges import Badges
from gateway.public.host_views import HostViews
from gateway.public.links import Links
from gateway.public.status_pages import StatusPages
from gateway.request_metrics import RequestMetrics
from gateway.sign_outs import SignOuts
from gateway.web.access.auth import Guard
from gateway.web.access.browser_sessions import KEY_BYTES, Sessions, session_key
from gateway.web.access.public_address import PublicAddress
from gateway.web.assets import STATIC_FOLDER, Assets
from gateway.web.connections import Connections, connection_limit
from gateway.web.file_response import LongAnswers
from gateway.web.server import Server, listen

# The address to show for one that means "every interface". Nothing listens on these keys.
_SHOWN_ADDRESS = {
    "": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",  # noqa: S104
    "::": "::1",
}


class Gateway(NamedTuple):
    """A running gateway. `url` holds the real port, also where GATEWAY_PORT is 0 (any free one)."""

    url: str


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """Runs a gateway for the length of a block, which begins once it accepts requests.

    Raises SettingsError for an address that it may not or cannot listen on, or a bad tokens file.
    """
    tokens = _load_tokens(settings)
    with contextlib.closing(listen(settings.GATEWAY_HOST, settings.GATEWAY_PORT)) as listener:
        inbox_prefix = subjects.service_inbox("gateway")
        async with (
            connected(settings, "gateway", inbox_prefix=inbox_prefix) as client,
            background() as start,
            AsyncExitStack() as stack,
        ):
            connections = Connections(connection_limit())
            request_metrics = RequestMetrics()
            fleet_client = FleetClient(client, settings.PING_RESPONSE_TIMEOUT_SECONDS)
            running_bridge = await stack.enter_async_context(
                bridge.running(settings, fleet_client, request_metrics.registry)
            )
            dependencies = _dependencies(
                settings, client, connections, tokens, fleet_client, request_metrics, running_bridge
            )
            broadcast = dependencies.broadcast
            server = Server(build(dependencies), connections)
            await _forward_events(client, broadcast)
            await dependencies.sign_outs.listen()
            start(server.answer(listener))
            start(tell_health(broadcast, dependencies.fleet_client, dependencies.assets))
            start(tell_totals(broadcast, dependencies.fleet_client))
            await server.ready.wait()
            try:
                yield Gateway(_url(settings.GATEWAY_HOST, listener))
            finally:
                broadcast.close()
                await server.stop()


def _dependencies(
    settings: Settings,
    client: Client,
    connections: Connections,
    tokens: TokenFile | None,
    fleet_client: FleetClient,
    request_metrics: RequestMetrics,
    running_bridge: Bridge | None,
) -> Dependencies:
    sessions = Sessions(secrets.token_bytes(KEY_BYTES))
    if tokens is not None:
        sessions = Sessions(session_key(settings.data_dir), settings.data_dir)
    public_address = None
    if settings.GATEWAY_PUBLIC_URL is not None:
        public_address = PublicAddress.parse(settings.GATEWAY_PUBLIC_URL)
    request_metrics.registry.register(CredentialsCollector(settings, "gateway"))
    return Dependencies(
        fleet_client=fleet_client,
        audit_log=AuditLog(client),
        long_answers=LongAnswers(fleet_client),
        broadcast=EventBroadcast(min(MAX_SUBSCRIBERS, connections.limit // 2)),
        recent_uptimes=RecentUptimes(fleet_client, settings.base_interval_seconds),
        connections=connections,
        guard=Guard(tokens, settings.GATEWAY_REQUESTS_PER_SECOND, public_address, sessions),
        sign_outs=SignOuts(client, sessions),
        request_metrics=request_metrics,
        assets=Assets(STATIC_FOLDER),
        bus_url=redact_address(settings.NATS_PUBLIC_URL or settings.nats_url),
        status_pages=StatusPages(fleet_client),
        links=Links(fleet_client),
        host_views=HostViews(fleet_client),
        badges=Badges(fleet_client),
        bridge=running_bridge,
    )


def _load_tokens(settings: Settings) -> TokenFile | None:
    """The tokens file, or None where none is set.

    Raises SettingsError where none is set and other machines could reach the gateway.
    """
    if settings.GPUPING_TOKENS_FILE:
        return TokenFile(Path(settings.GPUPING_TOKENS_FILE).expanduser())
    if not is_loopback(settings.GATEWAY_HOST):
        raise SettingsError(
            f"GATEWAY_HOST={settings.GATEWAY_HOST!r}: "
            "outside loopback the gateway needs GPUPING_TOKENS_FILE"
        )
    return None


async def _forward_events(client: Client, broadcast: EventBroadcast) -> None:
    async def on_event(message: Msg) -> None:
        broadcast.receive(message.data)

    await client.subscribe(subjects.EVENT_ALL, cb=on_event)


def _url(host: str, listener: socket.socket) -> str:
    address = _SHOWN_ADDRESS.get(host, host)
    port = listener.getsockname()[1]
    if ":" in address:
        return f"http://[{address}]:{port}"
    return f"http://{address}:{port}"
