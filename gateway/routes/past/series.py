"""An agent's uptime and response times in buckets, for charts."""

from datetime import datetime, timedelta
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from bus import clock
from bus.client.fleet_client import FleetClient
from bus.contract.messages import EARLIEST, check_timestamps
from bus.contract.series import DEFAULT_POINTS, MAX_POINTS, SeriesReply, SeriesRequest
from bus.contract.subjects import check_agent_id
from gateway.routes.agents import AGENTS
from gateway.web import params
from gateway.web.problems import ProblemError, error_responses

DEFAULT_PERIOD = timedelta(hours=24)


@get(
    f"{AGENTS}/{{agent_id:str}}/series",
    tags=["pings"],
    summary="An agent's uptime over a period in buckets",
    responses=error_responses(401, 403, 404),
)
async def series(
    agent_id: params.AgentIdPathParam,
    fleet_client: NamedDependency[FleetClient],
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
    points: Annotated[
        int,
        QueryParameter(
            ge=1,
            le=MAX_POINTS,
            description="the most buckets",
        ),
    ] = DEFAULT_POINTS,
) -> SeriesReply:
    """The period `[since, until)`, by default the last 24 hours, in buckets of equal length.

    Only buckets with outcomes are listed. The sums are of the whole period.
    """
    end = _aware(until, "until") or clock.utc_now()
    begin = _aware(since, "since") or max(EARLIEST, end - DEFAULT_PERIOD)
    if begin >= end:
        raise ProblemError(400, "until must be after since")
    question = SeriesRequest(
        since=begin,
        until=end,
        points=points,
    )
    return await fleet_client.series(check_agent_id(agent_id), question)


def _aware(moment: datetime | None, name: str) -> datetime | None:
    """The moment, if its time zone is given and it is one that storage can hold."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ProblemError(400, f"{name} needs a time zone, such as 2026-11-01T00:00:00Z")
    try:
        check_timestamps(moment)
    except ValueError as error:
        raise ProblemError(400, f"{name}: {error}") from None
    return moment
