"""Status badges: of an agent by its id, or by a link that an operator made."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.subjects import check_agent_id
from gateway.public.badges import CACHE_SECONDS, Badges, draw
from gateway.public.links import Links
from gateway.routes.public_pages import nothing_here
from gateway.web.access.auth import is_sealed_badge
from gateway.web.problems import ProblemError, error_responses

_HEADERS = {
    "Cache-Control": f"max-age={CACHE_SECONDS}",
    "Cross-Origin-Resource-Policy": "cross-origin",  # pages of other sites embed badges
}
_MEDIA_TYPE = "image/svg+xml"


@get(
    "/badge/{file_name:str}",
    media_type=_MEDIA_TYPE,
    tags=["fleet"],
    summary="Status badge (`/badge/<agent id>.svg`, or the address of a link)",
    responses=error_responses(401, 403, 404),
)
async def badge(
    file_name: FromPath[str],
    fleet_client: NamedDependency[FleetClient],
    links: NamedDependency[Links],
    badges: NamedDependency[Badges],
) -> Response[str]:
    """The agent's status and its uptime of the last 24 hours."""
    name, dot, extension = file_name.rpartition(".")
    if not dot or extension != "svg":
        raise ProblemError(404, "nothing is at this address; a badge is /badge/<agent id>.svg")
    if is_sealed_badge(f"/badge/{file_name}"):
        return Response(
            await _public_badge(name, links, badges), media_type=_MEDIA_TYPE, headers=_HEADERS
        )
    agent = await fleet_client.agent(check_agent_id(name))
    (agent,) = await fleet_client.with_uptimes((agent,), OPTIONAL_SECONDS)
    return Response(draw(agent, agent.agent_id), media_type=_MEDIA_TYPE, headers=_HEADERS)


async def _public_badge(secret: str, links: Links, badges: Badges) -> str:
    link = await links.open(secret, "badge")
    if link is None:
        raise nothing_here()
    drawn = await badges.public(link)
    if drawn is None:
        raise nothing_here()
    return drawn
