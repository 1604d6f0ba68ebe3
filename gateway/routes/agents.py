"""Registering, listing, showing and removing agents."""

from datetime import datetime
from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromQuery, QueryParameter
from msgspec import Meta, Struct
from msgspec.structs import replace

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.messages import AgentId, Status
from bus.contract.questions import (
    Agent,
    AgentPage,
    Capability,
    ListRequest,
    RegisterRequest,
)
from bus.contract.subjects import check_agent_id
from gateway.audit_log import AuditLog
from gateway.bridge.bridge import Bridge
from gateway.web import json_body, params
from gateway.web.access.auth import Guard
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses, field_problem

AGENTS = "/ping-system/agents"


class Registration(Struct, kw_only=True, frozen=True):
    """The body of a registration (docs/api.md).

    `agent_url` is a label, and is asked only where the operator set GATEWAY_BRIDGE_NETWORKS.
    """

    agent_id: AgentId
    agent_url: Annotated[str, Meta(max_length=2048)] | None = None
    capabilities: Annotated[tuple[Capability, ...], Meta(max_length=100)] | None = None
    metadata: dict[str, Any] | None = None


class Registered(Struct, kw_only=True, frozen=True):
    """The agent as it is registered now."""

    agent_id: str
    agent_url: str | None
    capabilities: tuple[str, ...]
    metadata: dict[str, Any]
    status: Status
    registered_at: datetime
    next_ping_at: datetime | None


class DueAgents(Struct, kw_only=True, frozen=True):
    """Agents whose next ping has come, the most overdue first. `total` counts all of them."""

    agents: tuple[Agent, ...]
    total: int


@post(
    f"{AGENTS}/register",
    status_code=201,
    tags=["agents"],
    summary="Register an agent, or update a known one",
    operation_class=request_body(Registration),
    responses={
        200: ResponseSpec(Registered, description="Known already, updated", generate_examples=False)
    }
    | error_responses(401, 403, 413),
)
async def register(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    audit_log: NamedDependency[AuditLog],
    guard: NamedDependency[Guard],
    bridge: NamedDependency[Bridge | None],
) -> Response[Registered]:
    """201 for a new agent, 200 for a known one, whose ping state stays as it is."""
    body = await json_body.read_json(request, Registration)
    _check(body)
    if bridge is not None and body.agent_url:
        await bridge.check(body.agent_url)
    registration = RegisterRequest(
        agent_url=body.agent_url,
        capabilities=body.capabilities,
        metadata=body.metadata,
    )
    before = await fleet_client.find_agent(body.agent_id, removed_too=True)
    reply = await fleet_client.register(body.agent_id, registration)
    agent = reply.agent
    if bridge is not None and body.agent_url:
        agent = await bridge.take(agent)
    await audit_log.record(
        request,
        "register",
        body.agent_id,
        before=_audited(before),
        after=_audited(agent),
    )
    registered = Registered(
        agent_id=agent.agent_id,
        agent_url=agent.agent_url,
        capabilities=agent.capabilities,
        metadata=agent.metadata,
        status=agent.status,
        registered_at=agent.registered_at,
        next_ping_at=agent.next_ping_at,
    )
    status_code = 201 if reply.created else 200
    headers = {"Location": f"{guard.public_prefix}{AGENTS}/{body.agent_id}"}
    return Response(registered, status_code=status_code, headers=headers)


def _audited(agent: Agent | None) -> dict[str, Any] | None:
    """What the audit log compares of an agent: what a registration can change."""
    if agent is None:
        return None
    return {
        "agent_url": agent.agent_url,
        "capabilities": agent.capabilities,
        "metadata": agent.metadata,
        "by_http": agent.by_http,
        "enrolled_at": agent.enrolled_at,
    }


def _check(body: Registration) -> None:
    json_body.check_body_agent_id(body.agent_id)
    if body.agent_url and not body.agent_url.isprintable():
        raise field_problem("agent_url holds control characters", pointer="#/agent_url")
    json_body.check_depth(body.metadata)


@get(
    AGENTS,
    tags=["agents"],
    summary="List agents",
    responses=error_responses(401, 403),
)
async def list_agents(  # noqa: PLR0913, PLR0917  # each is a part of the question
    fleet_client: NamedDependency[FleetClient],
    status: FromQuery[Status | None] = None,
    capability: Annotated[str | None, QueryParameter(min_length=1, max_length=100)] = None,
    limit: params.LimitParam = 1000,
    cursor: params.AgentCursorParam = None,
    offset: params.OffsetParam = 0,
    search: params.SearchParam = None,
    label: params.LabelParam = None,
    order: params.OrderParam = "id",
    reverse: FromQuery[bool] = False,
) -> AgentPage:
    """A page of agents, by default in order of their ids. `total` counts all that match.

    `uptime_24h_percent` is null while storage does not answer.
    """
    question = ListRequest(
        status=status,
        capability=capability,
        search=search,
        label=label,
        order=order,
        reverse=reverse,
        limit=limit,
        cursor=None if cursor is None else check_agent_id(cursor),
        offset=offset,
    )
    page = await fleet_client.agents(question)
    agents = await fleet_client.with_uptimes(page.agents, OPTIONAL_SECONDS)
    return replace(page, agents=agents)


@get(
    f"{AGENTS}/due-for-ping",
    tags=["agents"],
    summary="List agents due for a ping",
    responses=error_responses(401, 403),
)
async def list_due(
    fleet_client: NamedDependency[FleetClient], limit: params.LimitParam = 1000
) -> DueAgents:
    """The agents whose `next_ping_at` has come, the most overdue first."""
    page = await fleet_client.agents(ListRequest(order="due", limit=limit))
    agents = await fleet_client.with_uptimes(page.agents, OPTIONAL_SECONDS)
    return DueAgents(agents=agents, total=page.total)


@get(
    f"{AGENTS}/{{agent_id:str}}",
    tags=["agents"],
    summary="Show an agent",
    responses=error_responses(401, 403, 404),
)
async def show_agent(
    agent_id: params.AgentIdPathParam, fleet_client: NamedDependency[FleetClient]
) -> Agent:
    """One agent as lists show it."""
    agent = await fleet_client.agent(check_agent_id(agent_id))
    (agent_with_uptime,) = await fleet_client.with_uptimes((agent,), OPTIONAL_SECONDS)
    return agent_with_uptime


@delete(
    f"{AGENTS}/{{agent_id:str}}",
    tags=["agents"],
    summary="Remove an agent",
    responses=error_responses(401, 403, 404),
)
async def remove_agent(
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    audit_log: NamedDependency[AuditLog],
) -> None:
    """The agent is pinged no more. Its history is kept and can still be read."""
    before = await fleet_client.agent(check_agent_id(agent_id))
    await fleet_client.remove(agent_id)
    await audit_log.record(request, "remove", agent_id, before=_audited(before))
