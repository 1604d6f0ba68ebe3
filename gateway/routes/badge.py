"""A status badge, for a README or a status page."""

from xml.sax.saxutils import escape

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from bus.contract.messages import Status
from bus.contract.questions import Agent
from bus.contract.subjects import check_agent_id
from gateway.backends import Backends
from gateway.routes.agents import with_uptimes
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
_CHARACTER = 6.6  # pixels of the 11 px face; textLength makes the text fit whatever face there is
_PADDING = 12


@get(
    "/badge/{file_name:str}",
    media_type="image/svg+xml",
    tags=["fleet"],
    summary="Status badge (`/badge/<agent id>.svg`)",
    responses=error_responses(401, 403, 404),
)
async def badge(file_name: FromPath[str], backends: NamedDependency[Backends]) -> Response[str]:
    """The agent's status and its uptime of the last 24 hours."""
    agent_id, dot, kind = file_name.rpartition(".")
    if not dot or kind != "svg":
        raise ProblemError(404, "nothing is at this address; a badge is /badge/<agent id>.svg")
    (agent,) = await with_uptimes(backends, (await backends.agent(check_agent_id(agent_id)),))
    headers = {
        "Cache-Control": f"max-age={CACHE_SECONDS}",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return Response(draw(agent), media_type="image/svg+xml", headers=headers)


def draw(agent: Agent) -> str:
    """The badge as SVG."""
    uptime = "" if agent.uptime_24h_percent is None else f" {truncated(agent.uptime_24h_percent)} %"
    return _svg(agent.agent_id, f"{agent.status}{uptime}", _COLOURS[agent.status])


def truncated(percent: float) -> str:
    """Two decimals, never rounded up: 99.999 is not 100."""
    return f"{int(percent * 100) / 100:.2f}".rstrip("0").rstrip(".")


def _svg(label: str, value: str, colour: str) -> str:
    left, right = (round(len(text) * _CHARACTER + _PADDING) for text in (label, value))
    label, value = escape(label), escape(value)
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{label}: {value}">
<title>{label}: {value}</title>
<clipPath id="r"><rect width="{left + right}" height="20" rx="4"/></clipPath>
<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#24292f"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{left / 2}" y="14" textLength="{left - _PADDING}">{label}</text>
<text x="{left + right / 2}" y="14" textLength="{right - _PADDING}">{value}</text></g>
</svg>
"""
