"""A status badge as SVG, for a README or a status page."""

from xml.sax.saxutils import escape

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.messages import Status
from bus.contract.questions import Agent
from bus.contract.subjects import check_agent_id
from gateway.web.problems import ProblemError, error_responses

CACHE_SECONDS = 30
_COLOURS: dict[Status, str] = {
    "healthy": "#2da44e",
    "recovering": "#9a8700",
    "poor": "#d1570a",
    "missing": "#cf222e",
    "maintenance": "#0969da",
    "pending": "#6e7781",
}
# An estimate for the 11 px font. `textLength` stretches the text where the viewer's font differs.
_CHARACTER_PIXELS = 6.6
_PADDING_PIXELS = 12


@get(
    "/badge/{file_name:str}",
    media_type="image/svg+xml",
    tags=["fleet"],
    summary="Status badge (`/badge/<agent id>.svg`)",
    responses=error_responses(401, 403, 404),
)
async def badge(
    file_name: FromPath[str], fleet_client: NamedDependency[FleetClient]
) -> Response[str]:
    """The agent's status and its uptime of the last 24 hours."""
    agent_id, dot, extension = file_name.rpartition(".")
    if not dot or extension != "svg":
        raise ProblemError(404, "nothing is at this address; a badge is /badge/<agent id>.svg")
    agent = await fleet_client.agent(check_agent_id(agent_id))
    (agent,) = await fleet_client.with_uptimes((agent,), OPTIONAL_SECONDS)
    headers = {
        "Cache-Control": f"max-age={CACHE_SECONDS}",
        "Cross-Origin-Resource-Policy": "cross-origin",  # pages of other sites embed badges
    }
    return Response(draw(agent), media_type="image/svg+xml", headers=headers)


def draw(agent: Agent) -> str:
    """The badge of an agent, as an SVG document."""
    value: str = agent.status
    if agent.uptime_24h_percent is not None:
        value += f" {truncate_percent(agent.uptime_24h_percent)} %"
    return _svg(agent.agent_id, value, _COLOURS[agent.status])


def truncate_percent(percent: float) -> str:
    """At most two decimals, never rounded up: 99.999 becomes `99.99` and not `100`."""
    hundredths = int(percent * 100)
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".")


def _svg(
    label: str,
    value: str,
    colour: str,
) -> str:
    left = _width(label)
    right = _width(value)
    width = left + right
    label = escape(label)
    value = escape(value)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" \
aria-label="{label}: {value}">
<title>{label}: {value}</title>
<clipPath id="r"><rect width="{width}" height="20" rx="4"/></clipPath>
<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#24292f"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2}" y="14" textLength="{left - _PADDING_PIXELS}">{label}</text>
<text x="{left + right / 2}" y="14" textLength="{right - _PADDING_PIXELS}">{value}</text></g>
</svg>
"""


def _width(text: str) -> int:
    """Pixels that a text takes with its padding."""
    return round(len(text) * _CHARACTER_PIXELS + _PADDING_PIXELS)
