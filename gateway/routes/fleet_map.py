"""The map of the whole fleet: the state of every GPU, packed."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract.fleet_map import FleetMap
from gateway.fleet_uptimes import RecentUptimes
from gateway.web.problems import error_responses


@get(
    "/ping-system/fleet-map",
    tags=["fleet"],
    summary="The state of every GPU",
    responses=error_responses(401, 403),
)
async def fleet_map(
    fleet_client: NamedDependency[FleetClient],
    recent_uptimes: NamedDependency[RecentUptimes],
    label: Annotated[
        str | None,
        QueryParameter(
            min_length=1,
            max_length=64,
            description="a field of the metadata, to group by",
        ),
    ] = None,
) -> FleetMap:
    """Every registered agent in columns, with a letter a GPU; live events keep it up to date.

    States: u up, g degraded, d down, n unknown. Statuses: h healthy, r recovering, n pending, m
    maintenance, p poor, x missing. Uptimes are tenths of a percent, -1 where none was judged.
    `uptimes` are those of the last judged pings, `uptimes_24h` up to 30 seconds old, -1 for an
    agent that was judged for less than one base interval too, and empty while storage does not
    answer.
    """
    found = await fleet_client.fleet_map(label)
    uptimes = await recent_uptimes.of(found.columns.agent_ids)
    return replace(found, columns=replace(found.columns, uptimes_24h=uptimes))
