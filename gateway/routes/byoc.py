"""What Livepeer BYOC job runners ask: whether an agent's GPU can take work and was reliable."""

from datetime import datetime
from typing import Any

from litestar import Request, post
from litestar.di import NamedDependency
from msgspec import Struct

from bus.client.fleet_client import FleetClient
from bus.contract.messages import AgentId, Percent, Status
from bus.contract.questions import Agent
from gateway.web import json_body
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses


class GpuCheck(Struct, kw_only=True, frozen=True):
    """The agent in question."""

    agent_id: AgentId


class GpuAnswer(Struct, kw_only=True, frozen=True):
    """`uptime_percent` is of the last judged ping. `gpu_available` is null before any answer."""

    agent_id: str
    uptime_percent: Percent | None
    gpu_available: bool | None
    status: Status
    last_ping_at: datetime | None


@post(
    ["/worker/gpu-check", "/gpu-check"],
    status_code=200,
    tags=["fleet"],
    summary="Can this agent's GPU take work?",
    operation_class=request_body(GpuCheck),
    responses=error_responses(401, 403, 404, 413),
)
async def gpu_check(
    request: Request[Any, Any, Any], fleet_client: NamedDependency[FleetClient]
) -> GpuAnswer:
    """The agent's state after its last ping. This request does not ping it."""
    body = await json_body.read_json(request, GpuCheck)
    agent = await fleet_client.agent(json_body.check_body_agent_id(body.agent_id))
    return answer_about(agent)


def answer_about(agent: Agent) -> GpuAnswer:
    """Returns what job runners are told of an agent."""
    return GpuAnswer(
        agent_id=agent.agent_id,
        uptime_percent=agent.uptime_percent,
        gpu_available=_available(agent),
        status=agent.status,
        last_ping_at=agent.last_ping_at,
    )


def _available(agent: Agent) -> bool | None:
    """False for a missing agent, whatever its GPUs were when it last answered."""
    if agent.last_answered_at is None:
        return None
    if agent.status == "missing":
        return False
    return any(gpu.state in {"up", "degraded"} for gpu in agent.gpus)
