"""What payments depend on: monthly uptime statements, and the month under other rules."""

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.statements import (
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementFormat,
    StatementRequest,
)
from bus.contract.subjects import check_agent_id
from gateway.routes.agents import AGENTS
from gateway.web import params
from gateway.web.accept import accepted
from gateway.web.file_response import LongAnswers
from gateway.web.openapi import BUNDLE, CSV, HTML, PARQUET, response_formats
from gateway.web.problems import error_responses, field_problem

StatementFormatParam = Annotated[
    StatementFormat | None,
    QueryParameter(
        name="format",
        description="wins over Accept; html is made to print, bundle to verify",
    ),
]


@get(
    f"{AGENTS}/{{agent_id:str}}/report",
    tags=["pings"],
    summary="An agent's uptime statement of a month",
    operation_class=response_formats(CSV, PARQUET, HTML, BUNDLE),
    responses=error_responses(401, 403, 404, 429, 507),
)
async def report(
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    month: params.MonthParam = None,
    file_format: StatementFormatParam = None,
    threshold: params.ThresholdParam = None,
    policy: params.PolicyParam = None,
) -> Response[Statement]:
    """Seconds by GPU and host, incidents, and uptime over enrolled time.

    With `threshold` or `policy` the month is judged by those rules instead of ours.
    """
    check_agent_id(agent_id)
    question = StatementRequest(
        month=month or params.this_month(),
        format=file_format or accepted(request),
        threshold=threshold,
        policy=policy,
    )
    slot = long_answers.begin(request)
    if question.format == "json":
        with slot:
            return Response(await fleet_client.statement(agent_id, question))
    offered = fleet_client.statement_file(agent_id, question)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]


@get(
    "/ping-system/replay",
    tags=["fleet"],
    summary="The fleet's month under other rules: who gains, who loses",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 429, 507),
)
async def replay(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    month: params.MonthParam = None,
    threshold: params.ThresholdParam = None,
    policy: params.PolicyParam = None,
    limit: params.LimitParam = 1000,
    file_format: params.FormatParam = None,
) -> Response[FleetReplay]:
    """Agents by the size of their change, the greatest first, over the time that reports cover.

    JSON counts all agents and lists `limit` of them; CSV and Parquet list all. `threshold` or
    `policy` is required. A policy that has bands of its own is judged by them, and not by
    `threshold`.
    """
    if threshold is None and policy is None:
        detail = "give threshold or policy: the rules to replay the month under"
        raise field_problem(detail, parameter="policy")
    question = FleetReplayRequest(
        month=month or params.this_month(),
        format=file_format or accepted(request),
        limit=limit,
        threshold=threshold,
        policy=policy,
    )
    slot = long_answers.begin(request)
    if question.format == "json":
        with slot:
            return Response(await fleet_client.replay(question))
    offered = fleet_client.replay_file(question)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]
