"""Alerts: what is wrong, who was told, test messages and silences."""

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter
from msgspec import Meta, Struct

from bus.client.fleet_client import FleetClient
from bus.contract.alerts import (
    Alerts,
    AlertsRequest,
    EndSilenceRequest,
    Silence,
    SilenceRequest,
    TestRequest,
    TestResults,
)
from gateway.audit_log import actor_of
from gateway.web import json_body
from gateway.web.access.auth import ALERTS_PATH
from gateway.web.openapi import request_body
from gateway.web.problems import error_responses

_SILENCE_ID_SCHEMA = {"pattern": "^[a-z0-9]{1,32}$"}


class NewSilence(Struct, kw_only=True, frozen=True):
    """The body of a silence: for changes that have all these labels, such as `{"site": "FRA"}`.

    Without any it is for everything.
    `agent_id` and `rule` are labels as well; a value may have the wildcards `*` and `?`.
    """

    match: dict[str, str]
    seconds: Annotated[float, Meta(gt=0, le=366 * 86_400)]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class TestTarget(Struct, kw_only=True, frozen=True):
    """The body of a test: one target of the alerts file, or all of them."""

    target: str | None = None


@get(
    ALERTS_PATH,
    tags=["alerts"],
    summary="List what is wrong, and who was told",
    responses=error_responses(401, 403),
)
async def list_alerts(
    fleet_client: NamedDependency[FleetClient],
    limit: Annotated[
        int, QueryParameter(ge=1, le=1000, description="the newest so many notifications")
    ] = 100,
) -> Alerts:
    """What is wrong now, the newest notifications with what became of them, and the silences."""
    return await fleet_client.alerts.alerts(AlertsRequest(limit=limit))


@post(
    f"{ALERTS_PATH}/test",
    status_code=200,
    tags=["alerts"],
    summary="Send a test message",
    operation_class=request_body(TestTarget),
    responses=error_responses(401, 403, 404, 413),
)
async def test_alerts(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
) -> TestResults:
    """Sends a test message to a target of the alerts file, or to all, and tells who took it."""
    body = await json_body.read_json(request, TestTarget)
    return await fleet_client.alerts.test(TestRequest(target=body.target))


@post(
    f"{ALERTS_PATH}/silences",
    status_code=201,
    tags=["alerts"],
    summary="Silence alerts",
    operation_class=request_body(NewSilence),
    responses=error_responses(401, 403, 413),
)
async def silence_alerts(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
) -> Silence:
    """Holds alerts back for a while. What is still wrong at the end is told then."""
    body = await json_body.read_json(request, NewSilence)
    question = SilenceRequest(
        match=body.match,
        seconds=body.seconds,
        reason=body.reason,
        author=actor_of(request.scope),
    )
    return await fleet_client.alerts.silence(question)


@delete(
    f"{ALERTS_PATH}/silences/{{silence_id:str}}",
    status_code=200,
    tags=["alerts"],
    summary="End a silence",
    responses=error_responses(401, 403, 404),
)
async def end_silence(
    request: Request[Any, Any, Any],
    silence_id: Annotated[str, PathParameter(schema_extra=_SILENCE_ID_SCHEMA)],
    fleet_client: NamedDependency[FleetClient],
) -> Silence:
    """Ends a silence now. What it held back and is still wrong is told."""
    question = EndSilenceRequest(silence_id=silence_id, author=actor_of(request.scope))
    return await fleet_client.alerts.end_silence(question)
