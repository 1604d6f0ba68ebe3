"""Pinging an agent now, and questions that the agent itself answers."""

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency

from bus.client import audit
from bus.client.fleet_client import FleetClient
from bus.contract.agent_answers import AgentHealth, GpuStatus
from bus.contract.messages import UptimeReport
from bus.contract.questions import Ping
from bus.contract.subjects import check_agent_id
from gateway.audit_log import AuditLog
from gateway.routes.agents import AGENTS
from gateway.web import params
from gateway.web.problems import ProblemError, error_responses


@post(
    f"{AGENTS}/{{agent_id:str}}/ping",
    status_code=200,
    tags=["pings"],
    summary="Ping an agent now",
    responses=error_responses(401, 403, 404, 504),
)
async def ping_now(
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    audit_log: NamedDependency[AuditLog],
) -> Ping:
    """Pings at once. The outcome counts as that of any other ping.

    A miss is a 504 problem that carries the outcome as `ping`.
    """
    ping = await fleet_client.ping_now(check_agent_id(agent_id))
    await audit_log.record(request, "ping", agent_id, after=audit.outcome(ping))
    if ping.outcome == "missed":
        detail = f"agent {agent_id} did not answer ({ping.reason}); the miss counts"
        raise ProblemError(504, detail, ping=msgspec.to_builtins(ping))
    return ping


@get(
    f"{AGENTS}/{{agent_id:str}}/uptime",
    tags=["live"],
    summary="Uptime since the last ping",
    responses=error_responses(401, 403, 404, 504),
)
async def uptime(
    agent_id: params.AgentIdPathParam, fleet_client: NamedDependency[FleetClient]
) -> UptimeReport:
    """The agent's own report, from its ledger. Asking for it changes nothing, unlike a ping."""
    await _check_registered(fleet_client, agent_id)
    return await fleet_client.look(agent_id)


@get(
    f"{AGENTS}/{{agent_id:str}}/gpu-status",
    tags=["live"],
    summary="Details of an agent's GPUs",
    responses=error_responses(401, 403, 404, 504),
)
async def gpu_status(
    agent_id: params.AgentIdPathParam, fleet_client: NamedDependency[FleetClient]
) -> GpuStatus:
    """Temperature, power, memory, errors and links of each GPU, as the agent sees them now."""
    await _check_registered(fleet_client, agent_id)
    return await fleet_client.gpu_status(agent_id)


@get(
    f"{AGENTS}/{{agent_id:str}}/health",
    tags=["live"],
    summary="An agent's own health",
    responses=error_responses(401, 403, 404, 504),
)
async def health(
    agent_id: params.AgentIdPathParam, fleet_client: NamedDependency[FleetClient]
) -> AgentHealth:
    """The state of the agent's daemon: its checks, its ledger and its connection to the bus."""
    await _check_registered(fleet_client, agent_id)
    return await fleet_client.health(agent_id)


async def _check_registered(fleet_client: FleetClient, agent_id: str) -> None:
    """Raises RefusedError 404 for an unregistered agent, even if a host answers under its id."""
    await fleet_client.agent(check_agent_id(agent_id))
