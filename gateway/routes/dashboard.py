"""The whole fleet in one document, for the dashboard page and `gpuping top`."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.dashboard import PERIOD_HOURS, Dashboard
from bus.contract.exports import TableRequest
from gateway.web import params
from gateway.web.accept import accepted
from gateway.web.file_response import LongAnswers
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import error_responses


@get(
    "/ping-system/dashboard",
    tags=["fleet"],
    summary="The fleet at a glance",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 429, 507),
)
async def dashboard(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    file_format: params.FormatParam = None,
) -> Response[Dashboard]:
    """As JSON the totals, the 100 worst agents and the newest outcomes.

    While storage does not answer, its parts are null or empty and `degraded` names it. As CSV or
    Parquet every agent with an outcome in the last 24 hours, as that left it, the worst first.
    """
    wanted = file_format or accepted(request)
    if wanted == "json":
        return Response(await fleet_client.dashboard(OPTIONAL_SECONDS))
    question = TableRequest(
        table="dashboard",
        format=wanted,
        hours=PERIOD_HOURS,
    )
    slot = long_answers.begin(request)
    offered = fleet_client.table(question)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]
