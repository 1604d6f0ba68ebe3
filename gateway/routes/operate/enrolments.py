"""Letting GPU hosts in: the one command that a new host runs; and what a caller may do."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from litestar import Request, get, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from bus.addresses import is_loopback
from bus.client.fleet_client import FleetClient
from bus.contract.enrolment import EnrolmentOffer, NewTokenRequest, enrol_command
from bus.contract.messages import AgentId
from bus.identity.tokens import RANK, Token, TokenRole
from gateway.audit_log import AuditLog
from gateway.web import json_body
from gateway.web.access.auth import CALLER_SCOPE_KEY
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses


class NewEnrolment(Struct, kw_only=True, frozen=True):
    """The body: an id for the host, else it chooses its own; how long the command is good."""

    agent_id: AgentId | None = None
    valid_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 3600


class Caller(Struct, kw_only=True, frozen=True):
    """Who asks, and the role by which it may do things. `name` is null where no token is needed.

    `bus_url` is where hosts reach the bus; viewers are not told.
    """

    name: str | None
    role: TokenRole
    bus_url: str | None = None


@post(
    "/ping-system/enrolments",
    status_code=201,
    tags=["agents"],
    summary="Make the one command with which a new GPU host joins",
    operation_class=request_body(NewEnrolment),
    responses=error_responses(401, 403, 409, 413),
)
async def enrol_host(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    audit_log: NamedDependency[AuditLog],
) -> EnrolmentOffer:
    """The command holds a secret that lets one host in, once, until it expires.

    It never takes the place of an agent that exists: 409. `gpuping enroll new --id` does.
    """
    body = await json_body.read_json(request, NewEnrolment)
    asked = NewTokenRequest(agent_id=body.agent_id, valid_seconds=body.valid_seconds)
    reply = await fleet_client.new_host_token(asked)
    await audit_log.record(
        request,
        "offer-enrolment",
        body.agent_id,
        after={"expires_at": reply.expires_at},
    )
    return EnrolmentOffer(
        command=enrol_command(reply.token, reply.address),
        expires_at=reply.expires_at,
        agent_id=body.agent_id,
        only_here=is_loopback(urlsplit(f"//{reply.address}").hostname or ""),
    )


@get(
    "/ping-system/caller",
    tags=["operation"],
    summary="Who asks, and with which role",
    responses=error_responses(401),
)
async def caller(
    request: Request[Any, Any, Any],
    bus_url: NamedDependency[str],
) -> Caller:
    """The page shows what its user may do by it. Without a tokens file everybody is an admin."""
    scope: Mapping[str, Any] = request.scope
    token: Token | None = scope[CALLER_SCOPE_KEY]
    if token is None:
        return Caller(name=None, role="admin", bus_url=bus_url)
    if RANK[token.role] < RANK["operator"]:
        return Caller(name=token.name, role=token.role)
    return Caller(name=token.name, role=token.role, bus_url=bus_url)
