"""The Litestar application: the routes, what they need, and how errors leave."""

from typing import Any, NamedTuple

from litestar import Litestar
from litestar.di import Provide

from gateway import metrics
from gateway.backends import Backends
from gateway.broadcast import Hub
from gateway.metrics import Metrics
from gateway.routes import (
    agents,
    badge,
    byoc,
    dashboard,
    events,
    exports,
    health,
    history,
    pages,
    pings,
    statements,
)
from gateway.routes.pages import Assets
from gateway.web import openapi
from gateway.web.auth import Guard
from gateway.web.json_body import MAX_BODY_BYTES
from gateway.web.middleware import OuterMiddleware
from gateway.web.problems import handle

ROUTES = [
    agents.register,
    agents.list_agents,
    agents.list_due,
    agents.show_agent,
    agents.remove_agent,
    pings.ping_now,
    pings.uptime,
    pings.gpu_status,
    pings.health,
    history.history,
    statements.report,
    statements.replay,
    exports.export,
    dashboard.dashboard,
    events.events,
    byoc.gpu_check,
    badge.badge,
    health.healthz,
    health.readyz,
    metrics.metrics,
    pages.index,
    pages.favicon,
    pages.static,
    pages.login,
    pages.logout,
]


class Parts(NamedTuple):
    """What routes ask for by name."""

    backends: Backends
    hub: Hub
    guard: Guard
    metrics: Metrics
    assets: Assets


def build(parts: Parts) -> OuterMiddleware:
    """The whole application, door included."""
    application = Litestar(
        route_handlers=ROUTES,
        dependencies={name: _given(part) for name, part in parts._asdict().items()},
        exception_handlers={Exception: handle},
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi.config(),
        logging_config=None,
        debug=False,
    )
    return OuterMiddleware(application, parts.guard, parts.metrics.observe_request)


def _given(part: Any) -> Provide:
    return Provide(lambda: part, sync_to_thread=False, use_cache=True)
