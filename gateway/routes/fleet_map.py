"""The map of the whole fleet: the state of every GPU, packed."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.fleet_map import FleetMap
from gateway.web.problems import error_responses


@get(
    "/ping-system/fleet-map",
    tags=["fleet"],
    summary="The state of every GPU",
    responses=error_responses(401, 403),
)
async def fleet_map(
    fleet_client: NamedDependency[FleetClient],
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
    """
    return await fleet_client.fleet_map(label)
