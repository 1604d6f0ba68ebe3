"""The whole fleet in one document, for the dashboard page and `gpuping top`."""

import asyncio
from datetime import datetime
from typing import Any, get_args

from litestar import Request, Response, get
from litestar.di import NamedDependency
from msgspec import Struct
from msgspec.structs import replace

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient, optional
from bus.clock import utc_now
from bus.contract.exports import TableRequest
from bus.contract.messages import Percent, Seconds, Status
from bus.contract.questions import Agent, ListRequest, OverviewReply, OverviewRequest, Ping
from gateway.web import file_response, params
from gateway.web.accept import accepted
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import error_responses

WORST_AGENTS = 100
RECENT_PINGS = 50
PERIOD_HOURS = 24.0
_NO_PERCENTILES: dict[str, float | None] = {"p50": None, "p95": None, "p99": None}


class Totals(Struct, kw_only=True, frozen=True):
    """Agents registered now, pings and misses since they were registered, pings in flight now."""

    agents: int
    pings: int
    missed: int
    in_flight: int


class FleetUptime(Struct, kw_only=True, frozen=True):
    """The whole fleet over the period, from summed seconds.

    Null where nothing was observed, or while storage does not answer.
    """

    period_hours: float
    uptime_percent: Percent | None
    seconds: Seconds | None
    verdicts: dict[str, int]


_NO_UPTIME = FleetUptime(
    period_hours=PERIOD_HOURS,
    uptime_percent=None,
    seconds=None,
    verdicts={},
)


class Dashboard(Struct, kw_only=True, frozen=True):
    """`degraded` names the services that did not answer, whose parts are therefore missing."""

    generated_at: datetime
    totals: Totals
    by_status: dict[str, int]
    uptime: FleetUptime
    response_ms: dict[str, float | None]
    late_ms: dict[str, float | None]
    due: int
    next_ping_at: datetime | None
    agents: tuple[Agent, ...]
    recent: tuple[Ping, ...]
    degraded: tuple[str, ...]


@get(
    "/ping-system/dashboard",
    tags=["fleet"],
    summary="The fleet at a glance",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 507),
)
async def dashboard(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    file_format: params.FormatParam = None,
) -> Response[Dashboard]:
    """As JSON the totals, the 100 worst agents and the newest outcomes.

    While storage does not answer, its parts are null or empty and `degraded` names it. As CSV or
    Parquet every agent with an outcome in the last 24 hours, as that left it, the worst first.
    """
    wanted = file_format or accepted(request)
    if wanted == "json":
        return Response(await _read_dashboard(fleet_client))
    question = TableRequest(table="dashboard", format=wanted, hours=PERIOD_HOURS)
    offer = await fleet_client.table(question)
    return await file_response.stream_file(fleet_client, offer)  # type: ignore[return-value]


async def _read_dashboard(fleet_client: FleetClient) -> Dashboard:
    question = OverviewRequest(hours=PERIOD_HOURS, recent=RECENT_PINGS)
    fleet, agents, overview = await asyncio.gather(
        fleet_client.fleet(),
        _worst_agents(fleet_client),
        optional(fleet_client.overview(question, OPTIONAL_SECONDS)),
    )
    by_status = dict.fromkeys(get_args(Status), 0) | fleet.by_status
    totals = Totals(
        agents=fleet.agents,
        pings=fleet.pings,
        missed=fleet.missed,
        in_flight=fleet.in_flight,
    )
    without_storage = Dashboard(
        generated_at=utc_now(),
        totals=totals,
        by_status=by_status,
        uptime=_NO_UPTIME,
        response_ms=_NO_PERCENTILES,
        late_ms=_NO_PERCENTILES,
        due=fleet.due,
        next_ping_at=fleet.next_ping_at,
        agents=agents,
        recent=(),
        degraded=("storage",),
    )
    if overview is None:
        return without_storage
    return replace(
        without_storage,
        uptime=_uptime_of(overview),
        response_ms=overview.response_ms,
        late_ms=overview.late_ms,
        recent=overview.recent,
        degraded=(),
    )


def _uptime_of(overview: OverviewReply) -> FleetUptime:
    return FleetUptime(
        period_hours=PERIOD_HOURS,
        uptime_percent=overview.uptime_percent,
        seconds=overview.seconds,
        verdicts=overview.verdicts,
    )


async def _worst_agents(fleet_client: FleetClient) -> tuple[Agent, ...]:
    page = await fleet_client.agents(ListRequest(order="worst", limit=WORST_AGENTS))
    return await fleet_client.with_uptimes(page.agents, OPTIONAL_SECONDS)
