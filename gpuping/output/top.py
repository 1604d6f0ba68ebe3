"""`gpuping top`: the fleet, live in the terminal, from the bus or from a gateway's REST interface."""

import asyncio
import contextlib

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bus.errors import BusError
from bus.runner import Lifecycle
from gpuping.client.dashboard import Dashboard
from gpuping.client.sources import Source
from gpuping.output import terminal

SHOWN_PINGS = 10


def screen(dashboard: Dashboard, height: int | None = None) -> Group:
    """One screen. `height` in lines cuts the list of agents, worst first, to what fits."""
    now = dashboard.generated_at
    room = None if height is None else max(3, height - SHOWN_PINGS - 9)
    agents = dashboard.agents[:room]
    parts: list[object] = [headline(dashboard), terminal.agents_table(agents, now)]
    if left := dashboard.totals.agents - len(agents):
        parts.append(Text(f"and {left} more, none of them worse", "bright_black"))
    if dashboard.recent:
        parts.append(terminal.pings_table(dashboard.recent[:SHOWN_PINGS], now, with_agent=True))
    return Group(*parts)  # type: ignore[arg-type]  # rich's own renderables


def headline(dashboard: Dashboard) -> Text:
    """The fleet in one line."""
    line = Text(f"{dashboard.generated_at:%Y-%m-%d %H:%M:%S} UTC  ", "bold").append(
        _agents(dashboard.totals.agents)
    )
    for status, colour in terminal.STATUS_COLOURS.items():
        if count := dashboard.by_status.get(status):
            line.append("  ").append(f"{count} {status}", colour)
    line.append(
        f"  due {dashboard.due}  pings {dashboard.totals.pings}  missed {dashboard.totals.missed}"
    )
    line.append("  uptime 24 h ").append_text(terminal.percent(dashboard.uptime.uptime_percent))
    if (median := dashboard.response_ms.get("p50")) is not None:
        line.append(f"  answers in {median:.1f} ms")
    return line


def _agents(count: int) -> str:
    return f"{count} agent{'' if count == 1 else 's'}"


async def live(source: Source, lifecycle: Lifecycle, console: Console, interval: float) -> None:
    """Until Ctrl-C. A system that goes away is said, and waited for."""
    with Live(console=console, screen=True, auto_refresh=False) as view:
        ending = asyncio.ensure_future(lifecycle.until_stopped())
        while not ending.done():
            try:
                view.update(screen(await source.dashboard(), console.height), refresh=True)
            except BusError as error:
                view.update(Text(f"{error}; trying again ...", "yellow"), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await asyncio.shield(ending)
