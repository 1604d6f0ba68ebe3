"""`/metrics` of a service that has no other HTTP server: on loopback, or for token holders.

`/healthz` beside it tells that this very process runs, for health checks: a question over the bus
could be answered by another instance of the service. It needs no token.

Outside loopback whoever asks needs a token of GPUPING_TOKENS_FILE, as at the gateway. Metrics are
no reason for a service not to run: where its usual port is taken, it runs without them and says so.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import structlog
from prometheus_client.core import Metric

from bus.addresses import is_loopback
from bus.clock import boottime, utc_now
from bus.errors import SettingsError
from bus.identity.tokens import TokenFile, verify
from bus.monitoring import exposition, http_server
from bus.monitoring.credentials_families import credentials_families
from bus.monitoring.families import build_info
from bus.monitoring.http_server import Address, Guard, Headers, PortError, Response
from bus.settings import Settings

log = structlog.get_logger("bus.monitoring.service_metrics")

# The usual ports, by the setting that changes each.
USUAL_PORTS = {
    "SCHEDULER_METRICS_PORT": 9321,
    "STORAGE_METRICS_PORT": 9322,
    "ENROLMENT_METRICS_PORT": 9323,
    "ALERTS_METRICS_PORT": 9324,
}


@asynccontextmanager
async def serving(
    settings: Settings,
    port_setting: str,
    families: Callable[[], Awaitable[list[Metric]]],
) -> AsyncIterator[int | None]:
    """Answers `/metrics` and `/healthz` for the length of a block.

    Yields the port, None where it does not answer.

    Raises SettingsError where other machines could ask without a token, and for a port that was
    asked for and is taken.
    """
    guard = _guard(settings)
    given: int | None = getattr(settings, port_setting)
    port = USUAL_PORTS[port_setting] if given is None else given

    async def metrics(headers: Headers) -> Response:
        service = port_setting.partition("_")[0].lower()
        own = [build_info(), *credentials_families(settings, service)]
        return exposition.response([*own, *await families()], headers)

    async def healthz(_headers: Headers) -> Response:
        return Response(HTTPStatus.OK, b'{"status":"ok"}', ("Content-Type: application/json",))

    address = Address(settings.GPUPING_METRICS_HOST, port, port_setting)
    listening_on: int | None
    async with AsyncExitStack() as stack:
        routes = {"/metrics": metrics, "/healthz": healthz}
        server = http_server.serving(address, routes, guard, unguarded={"/healthz"})
        try:
            listening_on = await stack.enter_async_context(server)
        except PortError as error:
            if given is not None:
                raise SettingsError(str(error)) from None
            log.warning("metrics_not_served", detail=str(error), action=f"set {port_setting}")
            listening_on = None
        yield listening_on


def _guard(settings: Settings) -> Guard:
    if is_loopback(settings.GPUPING_METRICS_HOST):
        return http_server.loopback_guard
    if not settings.GPUPING_TOKENS_FILE:
        raise SettingsError(
            f"GPUPING_METRICS_HOST={settings.GPUPING_METRICS_HOST!r}: "
            "outside loopback metrics need GPUPING_TOKENS_FILE"
        )
    tokens = TokenFile(Path(settings.GPUPING_TOKENS_FILE).expanduser())

    def is_valid(presented: str) -> bool:
        return verify(presented, tokens.tokens(boottime()), utc_now()) is not None

    return http_server.bearer_guard(is_valid, "metrics need a token of the gateway")
