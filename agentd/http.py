"""agentd over HTTP: its metrics and, in agent mode, the three `/agent/*` endpoints."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import structlog

from agentd.messaging.responder import Responder
from bus.addresses import is_loopback
from bus.contract.messages import PingRequest, encode
from bus.errors import SettingsError
from bus.monitoring import http_server
from bus.monitoring.http_server import Address, Guard, Handler, Headers, PortError, Response
from bus.settings import Settings

log = structlog.get_logger("agentd.http")


@asynccontextmanager
async def serving(
    responder: Responder,
    settings: Settings,
) -> AsyncIterator[int]:
    """Listens on AGENT_HTTP_HOST and AGENT_HTTP_PORT; yields the port.

    Raises PortError, and SettingsError where other machines could ask without a token.
    """
    check_protected(settings)
    routes = _agent_routes(responder) | {"/metrics": _metrics_route(responder)}
    async with http_server.serving(_address(settings), routes, _guard(settings)) as port:
        yield port


@asynccontextmanager
async def serving_metrics(responder: Responder, settings: Settings) -> AsyncIterator[None]:
    """Answers `/metrics` alone, at the same address.

    Where the port is taken it says so, and the agent runs without metrics.
    """
    check_protected(settings)
    routes = {"/metrics": _metrics_route(responder)}
    async with AsyncExitStack() as stack:
        server = http_server.serving(_address(settings), routes, _guard(settings))
        try:
            await stack.enter_async_context(server)
        except PortError as error:
            log.warning("metrics_not_served", detail=str(error), action="set AGENT_HTTP_PORT")
        yield


def check_protected(settings: Settings) -> None:
    """Raises SettingsError where other machines could ask without a token."""
    host = settings.AGENT_HTTP_HOST
    if not is_loopback(host) and settings.AGENT_HTTP_TOKEN is None:
        raise SettingsError(
            f"AGENT_HTTP_HOST={host!r}: outside loopback the agent needs AGENT_HTTP_TOKEN, "
            "which whoever asks sends as a bearer token"
        )


def _address(settings: Settings) -> Address:
    return Address(settings.AGENT_HTTP_HOST, settings.AGENT_HTTP_PORT, "AGENT_HTTP_PORT")


def _guard(settings: Settings) -> Guard:
    token = settings.AGENT_HTTP_TOKEN
    if token is None:
        return http_server.loopback_guard
    detail = "this agent needs its AGENT_HTTP_TOKEN as a bearer token"
    return http_server.bearer_guard(http_server.is_token(token), detail)


def _agent_routes(responder: Responder) -> dict[str, Handler]:
    async def uptime() -> bytes:
        return await responder.look(PingRequest())

    async def gpu_status() -> bytes:
        return encode(await responder.gpu_status())

    async def health() -> bytes:
        return encode(responder.health())

    return {
        "/agent/uptime-since-last-ping": _json(uptime),
        "/agent/gpu-status": _json(gpu_status),
        "/agent/health": _json(health),
    }


def _json(make: Callable[[], Awaitable[bytes]]) -> Handler:
    async def handler(_: Headers) -> Response:
        return Response(HTTPStatus.OK, await make())

    return handler


def _metrics_route(responder: Responder) -> Handler:
    async def handler(headers: Headers) -> Response:
        # Imported by the first scrape: a host that nobody scrapes needs no memory for it.
        from agentd.metric_families import families  # noqa: PLC0415
        from bus.monitoring import exposition  # noqa: PLC0415

        report = responder.report(PingRequest())
        return exposition.response(families(responder.health(), report), headers)

    return handler
