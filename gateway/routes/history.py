"""An agent's history: pages as JSON, the whole period as CSV or Parquet.

A removed agent keeps its history. An agent that nobody ever registered has none to ask for: that is a 404.
"""

import asyncio
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec.structs import replace

from bus.contract.questions import CURSOR_PATTERN, Agent, HistoryReply, HistoryRequest
from bus.contract.statements import ExportRequest
from bus.contract.subjects import check_agent_id
from bus.errors import RefusedError
from gateway.backends import Backends, registered
from gateway.routes.agents import AGENTS
from gateway.web import file_response, params
from gateway.web.accept import accepted
from gateway.web.openapi import CSV, PARQUET, response_formats
from gateway.web.problems import ProblemError, error_responses

EVER_HOURS = 87_600.0
PAGE = 1000


@get(
    f"{AGENTS}/{{agent_id:str}}/history",
    tags=["pings"],
    summary="An agent's outcomes, newest first",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(401, 403, 404, 507),
)
async def history(
    request: Request[Any, Any, Any],
    agent_id: FromPath[str],
    backends: NamedDependency[Backends],
    hours: params.Hours = 24.0,
    limit: Annotated[
        int | None,
        QueryParameter(
            ge=1, le=1000, description="the most entries, on a page (1000) or in a file (all)"
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        QueryParameter(pattern=CURSOR_PATTERN, description="`next_cursor` of the page before"),
    ] = None,
    file_format: params.FileFormat = None,
) -> Response[HistoryReply]:
    """A page as JSON, newest first; `summary` is of the whole period. In CSV and Parquet, all of it without `limit`."""
    check_agent_id(agent_id)
    wanted = file_format or accepted(request)
    if wanted == "json":
        page = await known_history(
            backends, agent_id, HistoryRequest(hours=hours, limit=limit or PAGE, cursor=cursor)
        )
        return Response(page)
    return await _file(
        backends, agent_id, ExportRequest(hours=hours, format=wanted, limit=limit, cursor=cursor)
    )


async def _file(backends: Backends, agent_id: str, request: ExportRequest) -> Response[Any]:
    try:
        offer = await backends.export(agent_id, request)
    except RefusedError as error:
        if error.code != 404:
            raise
        await check_known(backends, agent_id)
        offer = await backends.export(agent_id, replace(request, registered=True))
    return await file_response.stream_file(backends, offer)


async def check_known(backends: Backends, agent_id: str) -> None:
    """Raises a 404 problem for an agent that is not registered and never was."""
    await known_history(backends, agent_id, HistoryRequest(hours=EVER_HOURS, limit=1))


async def known_history(
    backends: Backends, agent_id: str, question: HistoryRequest
) -> HistoryReply:
    """The page, for an agent that is registered or ever was. Raises a 404 problem for any other."""
    agent, page = await asyncio.gather(
        registered(backends, agent_id, removed_too=True),
        backends.history(agent_id, question),
        return_exceptions=True,
    )
    if isinstance(page, BaseException):
        raise page
    if page.pings or page.summary.pings or isinstance(agent, Agent):
        return page
    if await _has_ever(backends, agent_id):
        return page
    if isinstance(agent, BaseException):
        raise agent
    raise ProblemError(404, f"agent {agent_id} is not known")


async def _has_ever(backends: Backends, agent_id: str) -> bool:
    ever = await backends.history(agent_id, HistoryRequest(hours=EVER_HOURS, limit=1))
    return bool(ever.pings)
