"""An agent's uptime and response times in buckets, for charts."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.series import DEFAULT_POINTS, MAX_POINTS, SeriesReply, SeriesRequest
from bus.contract.subjects import check_agent_id
from gateway.routes.agents import AGENTS
from gateway.routes.past.periods import period_of
from gateway.web import params
from gateway.web.problems import error_responses


@get(
    f"{AGENTS}/{{agent_id:str}}/series",
    tags=["pings"],
    summary="An agent's uptime over a period in buckets",
    responses=error_responses(401, 403, 404),
)
async def series(
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    since: params.TimeParam = None,
    until: params.TimeParam = None,
    points: Annotated[
        int,
        QueryParameter(
            ge=1,
            le=MAX_POINTS,
            description="the most buckets",
        ),
    ] = DEFAULT_POINTS,
) -> SeriesReply:
    """The period `[since, until)`, by default the last 24 hours, in buckets of equal length.

    Only buckets with outcomes are listed. The sums are of the whole period.
    """
    asked = period_of(since, until)
    question = SeriesRequest(
        since=asked.since,
        until=asked.until,
        points=points,
    )
    return await fleet_client.series(check_agent_id(agent_id), question)
