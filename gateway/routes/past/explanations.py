"""Why a month's uptime is what it is, and when each GPU was in which state."""

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract.explanations import (
    DEFAULT_POINTS,
    MAX_POINTS,
    Explanation,
    Timeline,
    TimelineRequest,
)
from bus.contract.subjects import check_agent_id
from gateway.routes.agents import AGENTS
from gateway.routes.past.periods import period_of
from gateway.web import params
from gateway.web.file_response import LongAnswers
from gateway.web.problems import error_responses


@get(
    f"{AGENTS}/{{agent_id:str}}/explanation",
    tags=["pings"],
    summary="Why an agent's month is what it is",
    responses=error_responses(401, 403, 404, 429, 507),
)
async def explanation(
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    month: params.MonthParam = None,
) -> Explanation:
    """The statement's figures, what was lost to which GPU and reason, its days, its intervals.

    100 less the points of all causes is the uptime of the statement.
    """
    check_agent_id(agent_id)
    with long_answers.begin(request):
        return await fleet_client.explanation(agent_id, month or f"{utc_now():%Y-%m}")


@get(
    f"{AGENTS}/{{agent_id:str}}/timeline",
    tags=["pings"],
    summary="When each GPU of an agent was in which state",
    responses=error_responses(401, 403, 404, 507),
)
async def timeline(
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    since: params.TimeParam = None,
    until: params.TimeParam = None,
    points: Annotated[
        int,
        QueryParameter(
            ge=1,
            le=MAX_POINTS,
            description="what is shorter than a `points`-th of the period is summed",
        ),
    ] = DEFAULT_POINTS,
) -> Timeline:
    """The period `[since, until)`, at most 92 days, by default the last 24 hours.

    One row for the host and one a GPU, each with stretches of one state, or sums of short ones.
    """
    check_agent_id(agent_id)
    asked = period_of(since, until)
    question = TimelineRequest(since=asked.since, until=asked.until, points=points)
    return await fleet_client.timeline(agent_id, question)
