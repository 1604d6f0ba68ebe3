"""History and what is derived from it as tables: CSV or Parquet files to download."""

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.exports import TABLES, By, FileFormat, Table, TableRequest
from bus.contract.subjects import check_agent_id
from gateway.web import params
from gateway.web.accept import accepted
from gateway.web.file_response import FileResponse, LongAnswers
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import error_responses, field_problem

_ROWS = "\n".join(f"- `{name}`: {rows}" for name, rows in TABLES.items())


@get(
    "/ping-system/export/{table:str}",
    tags=["pings"],
    summary="History as a table: CSV or Parquet",
    description=f"Over the last `hours`, or over a `month`, which wins.\n\n{_ROWS}",
    operation_class=response_formats(CSV, PARQUET, json=False),
    responses=error_responses(401, 403, 404, 429, 507),
)
async def export(  # noqa: PLR0913, PLR0917  # each is a part of the question
    request: Request[Any, Any, Any],
    table: FromPath[Table],
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    agent_id: params.AgentIdParam = None,
    label: params.LabelParam = None,
    hours: params.HoursParam = 24.0,
    month: params.OptionalMonthParam = None,
    by: Annotated[
        By, QueryParameter(description="what a row of fleet, response-times, lateness is of")
    ] = "period",
    file_format: Annotated[
        FileFormat | None,
        QueryParameter(name="format", description="wins over Accept; csv without both"),
    ] = None,
) -> FileResponse:
    """The whole table as one file, with its Content-Length: an incomplete file is noticed."""
    if agent_id is not None:
        check_agent_id(agent_id)
        if label is not None:
            raise field_problem("give agent_id or label, not both", parameter="label")
    question = TableRequest(
        table=table,
        format=file_format or _accepted_file_format(request),
        agent_id=agent_id,
        label=label,
        hours=hours,
        month=month,
        by=by,
    )
    slot = long_answers.begin(request)
    return await long_answers.file(slot, fleet_client.table(question))


def _accepted_file_format(request: Request[Any, Any, Any]) -> FileFormat:
    """The file format that the Accept header prefers; csv where it prefers JSON or names none."""
    preferred = accepted(request)
    if preferred == "json":
        return "csv"
    return preferred
