"""The Litestar application: its routes, their dependencies and its error handling."""

from typing import Any, NamedTuple

from litestar import Litestar
from litestar.di import Provide

from bus.client.fleet_client import FleetClient
from gateway.audit_log import AuditLog
from gateway.bridge.bridge import Bridge
from gateway.broadcast import EventBroadcast
from gateway.fleet_uptimes import RecentUptimes
from gateway.public.badges import Badges
from gateway.public.host_views import HostViews
from gateway.public.links import Links
from gateway.public.status_pages import StatusPages
from gateway.request_metrics import RequestMetrics
from gateway.routes import (
    agents,
    badge,
    browser_sessions,
    byoc,
    chosen_agents,
    dashboard,
    events,
    fleet_map,
    health,
    metrics,
    pages,
    pings,
    public_pages,
)
from gateway.routes.operate import (
    alerts,
    audit,
    enrolments,
    expected_gpus,
    labels,
    maintenance,
    publishing,
)
from gateway.routes.past import beats, explanations, exports, history, series, statements
from gateway.sign_outs import SignOuts
from gateway.web import openapi
from gateway.web.access.auth import Guard
from gateway.web.allow_header import complete_allow_header
from gateway.web.assets import Assets
from gateway.web.connections import Connections
from gateway.web.file_response import LongAnswers
from gateway.web.json_body import MAX_BODY_BYTES
from gateway.web.middleware import OuterMiddleware
from gateway.web.problems import handle

ROUTES = [
    agents.register,
    agents.list_agents,
    agents.list_due,
    agents.show_agent,
    agents.remove_agent,
    chosen_agents.list_chosen,
    expected_gpus.show_expected_gpus,
    expected_gpus.change_expected_gpus,
    labels.change_labels,
    pings.ping_now,
    pings.uptime,
    pings.gpu_status,
    pings.health,
    history.history,
    series.series,
    beats.beats,
    explanations.explanation,
    explanations.timeline,
    statements.report,
    statements.replay,
    exports.export,
    dashboard.dashboard,
    fleet_map.fleet_map,
    events.events,
    byoc.gpu_check,
    badge.badge,
    public_pages.status,
    public_pages.host,
    public_pages.host_statement,
    public_pages.host_history,
    publishing.list_status_pages,
    publishing.add_status_page,
    publishing.show_status_page,
    publishing.remove_status_page,
    publishing.make_link,
    publishing.revoke_links,
    maintenance.list_maintenance,
    maintenance.book_maintenance,
    maintenance.cancel_maintenance,
    alerts.list_alerts,
    alerts.test_alerts,
    alerts.silence_alerts,
    alerts.end_silence,
    enrolments.enrol_host,
    enrolments.caller,
    audit.audit,
    health.healthz,
    health.readyz,
    metrics.metrics,
    pages.index,
    pages.fleet_map_page,
    pages.favicon,
    pages.static,
    browser_sessions.login,
    browser_sessions.logout,
]


class Dependencies(NamedTuple):
    """What a route gets by naming it as a parameter."""

    fleet_client: FleetClient
    audit_log: AuditLog
    long_answers: LongAnswers
    broadcast: EventBroadcast
    recent_uptimes: RecentUptimes
    connections: Connections
    guard: Guard
    sign_outs: SignOuts
    request_metrics: RequestMetrics
    assets: Assets
    bus_url: str  # at which hosts reach the bus, without credentials
    status_pages: StatusPages
    links: Links
    host_views: HostViews
    badges: Badges
    bridge: Bridge | None


def build(dependencies: Dependencies) -> OuterMiddleware:
    """The ASGI application to serve."""
    providers: dict[str, Provide] = {}
    for name, value in dependencies._asdict().items():
        providers[name] = _provide(value)
    application = Litestar(
        route_handlers=ROUTES,
        dependencies=providers,
        exception_handlers={Exception: handle},
        before_send=[complete_allow_header],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi.config(dependencies.guard.public_prefix, dependencies.assets),
        logging_config=None,
        debug=False,
    )
    observe = dependencies.request_metrics.observe_request
    return OuterMiddleware(application, dependencies.guard, observe)


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)
