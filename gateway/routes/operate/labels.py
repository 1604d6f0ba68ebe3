"""The labels of an agent, which operators set: its site, owner or rack."""

from typing import Annotated, Any

from litestar import Request, patch
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from bus.client.fleet_client import FleetClient
from bus.contract.labels import MAX_LABELS, LabelName, LabelsRequest, LabelValue
from bus.contract.questions import Agent
from bus.contract.subjects import check_agent_id
from gateway.audit_log import AuditLog, actor_of
from gateway.routes.agents import AGENTS
from gateway.web import json_body, params
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses


class LabelsBody(Struct, kw_only=True, frozen=True):
    """The labels to be set; null removes one. Those that are not named stay."""

    labels: Annotated[dict[LabelName, LabelValue | None], Meta(min_length=1, max_length=MAX_LABELS)]


@patch(
    f"{AGENTS}/{{agent_id:str}}/labels",
    tags=["agents"],
    summary="Set or remove labels of an agent",
    operation_class=request_body(LabelsBody),
    responses=error_responses(401, 403, 404, 409, 413),
)
async def change_labels(
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    audit_log: NamedDependency[AuditLog],
) -> Agent:
    """A label comes before what the host says of itself under the same name.

    Lists, search, the map, maintenance and alerts find and group hosts by it.
    """
    check_agent_id(agent_id)
    body = await json_body.read_json(request, LabelsBody)
    before = await fleet_client.agent(agent_id)
    change = LabelsRequest(labels=body.labels, author=actor_of(request.scope), audited=True)
    after = await fleet_client.change_labels(agent_id, change)
    await audit_log.record(
        request,
        "labels",
        agent_id,
        before={"labels": before.labels},
        after={"labels": after.labels},
    )
    return after
