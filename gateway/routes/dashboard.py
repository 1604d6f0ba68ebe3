"""The fleet at a glance, for the dashboard page and `gpuping top`."""

import asyncio
from datetime import datetime
from typing import Any, get_args

from litestar import Request, Response, get
from litestar.di import NamedDependency
from msgspec import Struct

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient, optional
from bus.clock import utc_now
from bus.contract.exports import TableRequest
from bus.contract.messages import Percent, Seconds, Status
from bus.contract.questions import Agent, Fleet, ListRequest, OverviewReply, OverviewRequest, Ping
from gateway.web import file_response, params
from gateway.web.accept import accepted
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import error_responses

WORST_AGENTS = 100
RECENT_PINGS = 50
PERIOD_HOURS = 24.0
_NO_FIGURES: dict[str, float | None] = {"p50": None, "p95": None, "p99": None}


class Totals(Struct, kw_only=True, frozen=True):
    """Agents registered now; pings and misses ever; pings in flight now."""

    agents: int
    pings: int
    missed: int
    in_flight: int


class FleetUptime(Struct, kw_only=True, frozen=True):
    """The whole fleet over the period, from summed seconds. Null: nothing observed, or storage is away."""

    period_hours: float
    uptime_percent: Percent | None
    seconds: Seconds | None
    verdicts: dict[str, int]


class Dashboard(Struct, kw_only=True, frozen=True):
    """`degraded` names the services whose part is missing."""

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
    file_format: params.FileFormat = None,
) -> Response[Dashboard]:
    """The 100 worst agents, the newest outcomes and the totals. Without storage: nulls, and `degraded` says so.

    In CSV and Parquet: every agent of the last 24 h as its newest outcome left it, worst first.
    """
    wanted = file_format or accepted(request)
    if wanted == "json":
        return Response(await glance(fleet_client))
    offer = await fleet_client.table(
        TableRequest(table="dashboard", format=wanted, hours=PERIOD_HOURS)
    )
    return await file_response.stream_file(fleet_client.file(offer), offer)  # type: ignore[return-value]


async def glance(fleet_client: FleetClient) -> Dashboard:
    """The document, from the scheduler and from storage at once."""
    question = OverviewRequest(hours=PERIOD_HOURS, recent=RECENT_PINGS)
    fleet, agents, overview = await asyncio.gather(
        fleet_client.fleet(),
        _worst(fleet_client),
        optional(fleet_client.overview(question, OPTIONAL_SECONDS)),
    )
    return assemble(utc_now(), fleet, agents, overview)


async def _worst(fleet_client: FleetClient) -> tuple[Agent, ...]:
    page = await fleet_client.agents(ListRequest(order="worst", limit=WORST_AGENTS))
    return await fleet_client.with_uptimes(page.agents, OPTIONAL_SECONDS)


def assemble(
    now: datetime, fleet: Fleet, agents: tuple[Agent, ...], overview: OverviewReply | None
) -> Dashboard:
    """The document from its parts."""
    return Dashboard(
        generated_at=now,
        totals=Totals(
            agents=fleet.agents, pings=fleet.pings, missed=fleet.missed, in_flight=fleet.in_flight
        ),
        by_status=dict.fromkeys(get_args(Status), 0) | fleet.by_status,
        uptime=FleetUptime(
            period_hours=PERIOD_HOURS,
            uptime_percent=overview.uptime_percent if overview else None,
            seconds=overview.seconds if overview else None,
            verdicts=overview.verdicts if overview else {},
        ),
        response_ms=overview.response_ms if overview else _NO_FIGURES,
        late_ms=overview.late_ms if overview else _NO_FIGURES,
        due=fleet.due,
        next_ping_at=fleet.next_ping_at,
        agents=agents,
        recent=overview.recent if overview else (),
        degraded=() if overview else ("storage",),
    )
