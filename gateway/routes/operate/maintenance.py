"""Maintenance: booked by operators, ahead of time; the hosts are pinged and not judged."""

from datetime import datetime
from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, PathParameter
from msgspec import Struct

from bus.client.fleet_client import FleetClient
from bus.contract.labels import Label
from bus.contract.maintenance import (
    Bookings,
    BookingsRequest,
    BookRequest,
    CancelRequest,
    Text,
)
from bus.contract.messages import AgentId
from gateway.audit_log import actor_of, address_of
from gateway.web import json_body, params
from gateway.web.access.auth import MAINTENANCE_PATH
from gateway.web.openapi import request_body
from gateway.web.problems import bad_body, error_responses

_BOOKING_ID_SCHEMA = {"pattern": "^[a-z0-9]{1,32}$"}


class NewBooking(Struct, kw_only=True, frozen=True):
    """The body of a booking: for one agent, or for all that have a label (`site=FRA`) now."""

    since: datetime
    until: datetime
    reason: Text
    agent_id: AgentId | None = None
    label: Label | None = None


@get(
    MAINTENANCE_PATH,
    tags=["maintenance"],
    summary="List booked maintenance",
    responses=error_responses(401, 403, 404),
)
async def list_maintenance(
    fleet_client: NamedDependency[FleetClient],
    agent_id: params.AgentIdParam = None,
    past: FromQuery[bool] = False,
) -> Bookings:
    """The bookings that are to come or going on; with `past=true` those that are over, too."""
    return await fleet_client.maintenance(BookingsRequest(agent_id=agent_id, past_too=past))


@post(
    MAINTENANCE_PATH,
    status_code=201,
    tags=["maintenance"],
    summary="Book maintenance",
    operation_class=request_body(NewBooking),
    responses=error_responses(401, 403, 404, 409, 413),
)
async def book_maintenance(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
) -> Bookings:
    """Books time that is excused from uptime.

    409 where it has begun, or exceeds a host's monthly budget.
    """
    body = await json_body.read_json(request, NewBooking)
    try:
        question = BookRequest(
            since=body.since,
            until=body.until,
            reason=body.reason,
            author=actor_of(request.scope),
            address=address_of(request),
            agent_id=body.agent_id,
            label=body.label,
        )
    except ValueError as error:
        raise bad_body(str(error)) from None
    if body.since.tzinfo is None or body.until.tzinfo is None:
        raise bad_body("since and until need a time zone, such as 2026-12-01T02:00:00Z")
    return await fleet_client.book_maintenance(question)


@delete(
    f"{MAINTENANCE_PATH}/{{booking_id:str}}",
    status_code=200,
    tags=["maintenance"],
    summary="Cancel booked maintenance",
    responses=error_responses(401, 403, 404),
)
async def cancel_maintenance(
    request: Request[Any, Any, Any],
    booking_id: Annotated[str, PathParameter(schema_extra=_BOOKING_ID_SCHEMA)],
    fleet_client: NamedDependency[FleetClient],
) -> Bookings:
    """Ends a booking now, for all its agents. What has passed of it stays excused."""
    question = CancelRequest(
        booking_id=booking_id,
        author=actor_of(request.scope),
        address=address_of(request),
    )
    return await fleet_client.cancel_maintenance(question)
