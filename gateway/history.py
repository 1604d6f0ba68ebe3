"""An agent's history: pages as JSON, the whole period as CSV or Parquet.

A removed agent keeps its history. An agent that nobody ever registered has none to ask for: that is a 404.
"""

import asyncio
from typing import Annotated, Any, Literal

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from bus.errors import RefusedError
from bus.questions import HistoryReply, HistoryRequest
from bus.subjects import check_agent_id
from gateway import asking, exports
from gateway.agents import AGENTS
from gateway.backends import Backends
from gateway.problems import ProblemError, described

EVER_HOURS = 87_600.0

Format = Literal["json", "csv", "parquet"]


@get(
    f"{AGENTS}/{{agent_id:str}}/history",
    tags=["pings"],
    summary="An agent's outcomes, newest first",
    responses=described(401, 403, 404),
)
async def history(
    request: Request[Any, Any, Any],
    agent_id: FromPath[str],
    backends: NamedDependency[Backends],
    hours: asking.Hours = 24.0,
    limit: asking.Limit = 1000,
    cursor: Annotated[int | None, QueryParameter(ge=0, description="`next_cursor` of the page before")] = None,
    file_format: Annotated[Format | None, QueryParameter(name="format", description="wins over Accept")] = None,
) -> Response[HistoryReply]:
    """A page as JSON; `summary` is always of the whole period. CSV and Parquet hold the period without pages."""
    check_agent_id(agent_id)
    wanted = file_format or asking.preferred(request.headers.get("accept", ""))
    if wanted == "json":
        page = await known_history(backends, agent_id, HistoryRequest(hours=hours, limit=limit, cursor=cursor))
        return Response(page)
    # the first page decides between a file and a problem: once a file has begun it is too late for either
    first = await known_history(backends, agent_id, HistoryRequest(hours=hours))
    export = exports.csv_pieces if wanted == "csv" else exports.parquet_pieces
    pieces = await export(backends, first)
    headers = {"Content-Disposition": f'attachment; filename="{agent_id}-{hours:g}h.{wanted}"', "Vary": "Accept"}
    return Stream(pieces, media_type=exports.MEDIA_TYPES[wanted], headers=headers)  # type: ignore[return-value]


async def known_history(backends: Backends, agent_id: str, question: HistoryRequest) -> HistoryReply:
    """The page, for an agent that is registered or ever was. Raises a 404 problem for any other."""
    registered, page = await asyncio.gather(
        _is_registered(backends, agent_id), backends.history(agent_id, question), return_exceptions=True
    )
    if isinstance(page, BaseException):
        raise page
    if page.pings or page.summary.pings or registered is True:
        return page
    if await _has_ever(backends, agent_id):
        return page
    if isinstance(registered, BaseException):
        raise registered
    raise ProblemError(404, f"agent {agent_id} is not known")


async def _is_registered(backends: Backends, agent_id: str) -> bool:
    try:
        await backends.agent(agent_id)
    except RefusedError as error:
        if error.code == 404:
            return False
        raise
    return True


async def _has_ever(backends: Backends, agent_id: str) -> bool:
    ever = await backends.history(agent_id, HistoryRequest(hours=EVER_HOURS, limit=1))
    return bool(ever.pings)
