"""The whole fleet in one document, for the dashboard page and `gpuping top`."""

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import structs

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient, optional
from bus.contract.beats import MOST_AGENTS, BeatsRequest
from bus.contract.dashboard import PERIOD_HOURS, Dashboard
from bus.contract.exports import TableRequest
from bus.contract.questions import Ping
from gateway.broadcast import EventBroadcast
from gateway.web import params
from gateway.web.accept import accepted
from gateway.web.file_response import LongAnswers
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import error_responses


class DashboardPage(Dashboard, kw_only=True, frozen=True):
    """The dashboard, and what a page needs to begin with.

    A stream of events that begins after `last_event_id` has all that happened since. `beats` are
    the newest outcomes of the first agents, newest first, where they were asked for.
    """

    last_event_id: str
    beats: dict[str, tuple[Ping, ...]]


@get(
    "/ping-system/dashboard",
    tags=["fleet"],
    summary="The fleet at a glance",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 429, 507),
)
async def dashboard(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    broadcast: NamedDependency[EventBroadcast],
    file_format: params.FormatParam = None,
    beats: Annotated[
        int,
        QueryParameter(ge=0, le=MOST_AGENTS, description="of so many agents the newest outcomes"),
    ] = 0,
) -> Response[DashboardPage]:
    """As JSON the totals, the 100 worst agents and the newest outcomes.

    While storage does not answer, its parts are null or empty and `degraded` names it. As CSV or
    Parquet every agent with an outcome in the last 24 hours, as that left it, the worst first.
    """
    wanted = file_format or accepted(request)
    if wanted == "json":
        last_event_id = broadcast.last_event_id  # before the answer, so that no event is missed
        answer = await fleet_client.dashboard(OPTIONAL_SECONDS)
        found = await _beats(fleet_client, answer, beats)
        page = DashboardPage(
            **structs.asdict(answer),
            last_event_id=last_event_id,
            beats=found,
        )
        return Response(page)
    question = TableRequest(
        table="dashboard",
        format=wanted,
        hours=PERIOD_HOURS,
    )
    slot = long_answers.begin(request)
    offered = fleet_client.table(question)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]


async def _beats(
    fleet_client: FleetClient, answer: Dashboard, count: int
) -> dict[str, tuple[Ping, ...]]:
    """The newest outcomes of the first `count` agents; none while storage does not answer."""
    agent_ids = tuple(agent.agent_id for agent in answer.agents[:count])
    if not agent_ids or "storage" in answer.degraded:
        return {}
    reply = await optional(fleet_client.beats(BeatsRequest(agent_ids=agent_ids), OPTIONAL_SECONDS))
    if reply is None:
        return {}
    return reply.beats
