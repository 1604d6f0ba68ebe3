"""What somebody is paid on: the uptime statement of an agent's month, and the fleet's month under other rules."""

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract.statements import (
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementFormat,
    StatementRequest,
)
from bus.contract.subjects import check_agent_id
from gateway.routes.agents import AGENTS
from gateway.web import file_response, params
from gateway.web.accept import accepted
from gateway.web.openapi import CSV, HTML, PARQUET, response_formats
from gateway.web.problems import FieldError, ProblemError, error_responses

Form = Annotated[
    StatementFormat | None,
    QueryParameter(name="format", description="wins over Accept; html is made to print"),
]


@get(
    f"{AGENTS}/{{agent_id:str}}/report",
    tags=["pings"],
    summary="An agent's uptime statement of a month",
    operation_class=response_formats(CSV, PARQUET, HTML),
    responses=error_responses(401, 403, 404, 507),
)
async def report(
    request: Request[Any, Any, Any],
    agent_id: FromPath[str],
    fleet_client: NamedDependency[FleetClient],
    month: params.Month = None,
    file_format: Form = None,
    threshold: params.Threshold = None,
    policy: params.Policy = None,
) -> Response[Statement]:
    """Seconds by GPU and host, incidents, uptime over enrolled time; with `threshold` or `policy` a replay."""
    check_agent_id(agent_id)
    question = StatementRequest(
        month=month or f"{utc_now():%Y-%m}",
        format=file_format or accepted(request),
        threshold=threshold,
        policy=policy,
    )
    if question.format == "json":
        return Response(await fleet_client.statement(agent_id, question))
    offer = await fleet_client.statement_file(agent_id, question)
    return await file_response.stream_file(fleet_client.file(offer), offer)  # type: ignore[return-value]


@get(
    "/ping-system/replay",
    tags=["fleet"],
    summary="The fleet's month under other rules: who gains, who loses",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 507),
)
async def replay(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    month: params.Month = None,
    threshold: params.Threshold = None,
    policy: params.Policy = None,
    limit: params.Limit = 1000,
    file_format: params.FileFormat = None,
) -> Response[FleetReplay]:
    """The greatest change first. JSON counts all agents and lists `limit` of them; CSV and Parquet list all.

    Over the time that reports cover; a policy's own bands count instead of `threshold`. One of the two is needed.
    """
    if threshold is None and policy is None:
        detail = "give threshold or policy: the rules to replay the month under"
        raise ProblemError(400, detail, errors=(FieldError(detail=detail, parameter="policy"),))
    question = FleetReplayRequest(
        month=month or f"{utc_now():%Y-%m}",
        format=file_format or accepted(request),
        limit=limit,
        threshold=threshold,
        policy=policy,
    )
    if question.format == "json":
        return Response(await fleet_client.replay(question))
    offer = await fleet_client.replay_file(question)
    return await file_response.stream_file(fleet_client.file(offer), offer)  # type: ignore[return-value]
