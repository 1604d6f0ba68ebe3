"""Badges as SVG, for a README or a page elsewhere."""

from xml.sax.saxutils import escape

from bus.client.fleet_client import OPTIONAL_SECONDS, FleetClient
from bus.contract.messages import Status
from bus.contract.publishing import PUBLIC_NAME
from bus.contract.questions import Agent
from bus.errors import RefusedError
from bus.identity.sealed_links import LinkContent
from gateway.timed_cache import TimedCache

CACHE_SECONDS = 30
MOST_KEPT = 10_000
UNNAMED = "GPU host"  # what a public badge calls a host that has no name for the public
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


class Badges:
    """Badges that need no login. Each agent is asked about once in CACHE_SECONDS."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client
        self._kept: TimedCache[str, Agent | None] = TimedCache(CACHE_SECONDS, MOST_KEPT)

    async def public(self, link: LinkContent) -> str | None:
        """The badge that a link opens; None for an agent that is not registered any more.

        The agent's id is not on it, unless an operator chose it as the name.
        """

        async def ask() -> Agent | None:
            return await self._find(link.agent_id)

        agent = await self._kept.get(link.agent_id, ask)
        if agent is None:
            return None
        name = link.shown_name or agent.labels.get(PUBLIC_NAME) or UNNAMED
        return draw(agent, name)

    async def _find(self, agent_id: str) -> Agent | None:
        try:
            agent = await self._fleet_client.agent(agent_id)
        except RefusedError as error:
            if error.code != 404:
                raise
            return None
        (agent,) = await self._fleet_client.with_uptimes((agent,), OPTIONAL_SECONDS)
        return agent


def draw(agent: Agent, name: str) -> str:
    """The badge of an agent under a name, as an SVG document."""
    value: str = agent.status
    if agent.uptime_24h_percent is not None:
        value += f" {truncate_percent(agent.uptime_24h_percent)} %"
    if agent.simulated:
        value += ", simulated"
    return _svg(name, value, _COLOURS[agent.status])


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
