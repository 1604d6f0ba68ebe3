"""An agent's history: pages as JSON, the whole period as CSV or Parquet.

A removed agent keeps its history. An agent that was never registered is a 404.
"""

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.exports import ExportRequest
from bus.contract.questions import CURSOR_PATTERN, HistoryReply, HistoryRequest
from bus.contract.subjects import check_agent_id
from gateway.routes.agents import AGENTS
from gateway.routes.past.periods import aware
from gateway.web import params
from gateway.web.accept import accepted
from gateway.web.file_response import LongAnswers
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import error_responses

PAGE_LIMIT = 1000


@get(
    f"{AGENTS}/{{agent_id:str}}/history",
    tags=["pings"],
    summary="An agent's outcomes, newest first",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 404, 429, 507),
)
async def history(  # noqa: PLR0913, PLR0917  # each is a part of the question
    request: Request[Any, Any, Any],
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    hours: params.HoursParam = 24.0,
    limit: Annotated[
        int | None,
        QueryParameter(
            ge=1,
            le=1000,
            description="the most entries, on a page (1000) or in a file (all)",
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        QueryParameter(pattern=CURSOR_PATTERN, description="`next_cursor` of the page before"),
    ] = None,
    before: params.TimeParam = None,
    evidence: Annotated[
        bool,
        QueryParameter(description="on a page, with the reports that were signed or refused"),
    ] = False,
    file_format: params.FormatParam = None,
) -> Response[HistoryReply]:
    """As JSON a page of outcomes, and a `summary` of the last `hours`.

    `before` is where the first page begins: with the newest outcome before that moment. As CSV or
    Parquet the whole period, or its newest `limit` outcomes.
    """
    check_agent_id(agent_id)
    wanted = file_format or accepted(request)
    if wanted == "json":
        question = HistoryRequest(
            hours=hours,
            limit=limit or PAGE_LIMIT,
            cursor=cursor,
            before=aware(before, "before"),
            evidence=evidence,
        )
        return Response(await fleet_client.history(agent_id, question))
    export = ExportRequest(
        hours=hours,
        format=wanted,
        limit=limit,
        cursor=cursor,
    )
    slot = long_answers.begin(request)
    offered = fleet_client.export(agent_id, export)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]
