"""Lists agents by their ids, such as those that were drawn around on the map."""

from typing import Annotated, Any

from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.messages import AgentId, Status
from bus.contract.questions import MOST_CHOSEN, AgentPage, ListRequest
from gateway.web import json_body, params
from gateway.web.access.auth import CHOSEN_AGENTS_PATH
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses

MOST_BYTES = 384 * 1024  # MOST_CHOSEN ids of the greatest length


class ChosenAgents(Struct, kw_only=True, frozen=True):
    """The ids. They do not fit into an address; all other parameters are as for any list."""

    agent_ids: Annotated[tuple[AgentId, ...], Meta(min_length=1, max_length=MOST_CHOSEN)]


@post(
    CHOSEN_AGENTS_PATH,
    status_code=200,
    tags=["agents"],
    summary="List agents by their ids",
    operation_class=request_body(ChosenAgents),
    request_max_body_size=MOST_BYTES,
    responses=error_responses(401, 403, 413),
)
async def list_chosen(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    status: FromQuery[Status | None] = None,
    search: params.SearchParam = None,
    order: params.OrderParam = "id",
    reverse: FromQuery[bool] = False,
    limit: params.LimitParam = 1000,
    offset: params.OffsetParam = 0,
) -> AgentPage:
    """As the list of all agents, of those that are named. Changes nothing: viewers may ask it.

    An id that is not registered is left out. A page ends early where a message cannot carry more:
    the next one begins `offset` plus its length after the first.
    """
    body = await json_body.read_json(request, ChosenAgents)
    question = ListRequest(
        agent_ids=body.agent_ids,
        status=status,
        search=search,
        order=order,
        reverse=reverse,
        limit=limit,
        offset=offset,
    )
    page = await fleet_client.agents(question)
    agents = await fleet_client.with_uptimes(page.agents, OPTIONAL_SECONDS)
    return replace(page, agents=agents)
