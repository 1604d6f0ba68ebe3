"""The GPUs that are expected of an agent: shown to viewers, changed by operators."""

from datetime import datetime
from typing import Annotated, Any

from litestar import Request, get, put
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from bus.client.fleet_client import FleetClient
from bus.contract.questions import MAX_EXPECTED_GPUS, ExpectedGpus, ExpectGpusRequest, GpuUuid
from bus.contract.subjects import check_agent_id
from gateway.audit_log import AuditLog, actor_of
from gateway.routes.agents import AGENTS
from gateway.web import json_body, params
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses

PATH = f"{AGENTS}/{{agent_id:str}}/expected-gpus"


class ExpectedGpusBody(Struct, kw_only=True, frozen=True):
    """All GPUs that are expected from `since` on, or from now on.

    `replaces` is the list that the caller has seen. The change is refused with 409 when another
    list is in force by now.
    """

    expected_gpus: Annotated[
        tuple[GpuUuid, ...],
        Meta(
            min_length=1,
            max_length=MAX_EXPECTED_GPUS,
            extra_json_schema={"uniqueItems": True},
        ),
    ]
    since: Annotated[datetime, Meta(tz=True)] | None = None
    replaces: tuple[str, ...] | None = None


@get(
    PATH,
    tags=["agents"],
    summary="Which GPUs are expected of an agent",
    responses=error_responses(401, 403, 404),
)
async def show_expected_gpus(
    agent_id: params.AgentIdPathParam, fleet_client: NamedDependency[FleetClient]
) -> ExpectedGpus:
    """The GPUs that count for the host's uptime, and each change, oldest first.

    `open_since` is the earliest moment from which on they can be changed.
    """
    return await fleet_client.expected_gpus(check_agent_id(agent_id))


@put(
    PATH,
    tags=["agents"],
    summary="Change which GPUs are expected of an agent",
    operation_class=request_body(ExpectedGpusBody),
    responses=error_responses(401, 403, 404, 409, 413),
)
async def change_expected_gpus(
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    audit_log: NamedDependency[AuditLog],
) -> ExpectedGpus:
    """A GPU that is left out is accounted until `since`, a new one from then on.

    Windows that are recorded stay as they are.
    """
    check_agent_id(agent_id)
    body = await json_body.read_json(request, ExpectedGpusBody)
    before = await fleet_client.expected_gpus(agent_id)
    change = ExpectGpusRequest(
        expected_gpus=body.expected_gpus,
        since=body.since,
        replaces=body.replaces,
        author=actor_of(request.scope),
        audited=True,
    )
    after = await fleet_client.expect_gpus(agent_id, change)
    await audit_log.record(
        request,
        "expect-gpus",
        agent_id,
        before={"expected_gpus": before.expected_gpus},
        after={"expected_gpus": after.expected_gpus, "since": body.since},
    )
    return after
