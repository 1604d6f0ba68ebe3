"""The newest outcomes of several agents at once, for the rows of a page."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.beats import MOST_AGENTS, MOST_BEATS, BeatsReply, BeatsRequest
from bus.contract.subjects import check_agent_id
from gateway.web.problems import error_responses, field_problem


@get(
    "/ping-system/beats",
    tags=["fleet"],
    summary="The newest outcomes of several agents",
    responses=error_responses(401, 403),
)
async def beats(
    fleet_client: NamedDependency[FleetClient],
    agents: Annotated[
        str, QueryParameter(max_length=MOST_AGENTS * 64, description="at most 100 ids: `a,b`")
    ],
    count: Annotated[
        int, QueryParameter(ge=1, le=MOST_BEATS, description="the most outcomes of each")
    ] = MOST_BEATS,
) -> BeatsReply:
    """Newest first, without the GPUs that were simply up. An agent without history is left out."""
    agent_ids = [check_agent_id(agent_id) for agent_id in agents.split(",") if agent_id]
    if len(agent_ids) > MOST_AGENTS:
        raise field_problem(f"at most {MOST_AGENTS} agents", parameter="agents")
    return await fleet_client.beats(BeatsRequest(agent_ids=tuple(agent_ids), count=count))
