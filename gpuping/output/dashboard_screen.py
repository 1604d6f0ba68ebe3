"""The fleet on one screen: printed once, or updated for as long as `gpuping top` runs."""

import asyncio
import contextlib

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bus.contract.dashboard import Dashboard
from bus.errors import BusError
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.output import tables
from gpuping.output.formats import counted, percent

SHOWN_PINGS = 10
# Lines of a screen besides the rows of both tables: headline, headings, blank lines, last line.
OTHER_LINES = 9
LEAST_AGENTS = 3


def dashboard_screen(dashboard: Dashboard, height: int | None = None) -> Group:
    """The fleet, the worst agents first, and the newest outcomes.

    `height` is the terminal's in lines: as many agents are shown as fit, but at least LEAST_AGENTS.
    None: all.
    """
    now = dashboard.generated_at
    agents = dashboard.agents
    if height is not None:
        most_agents = max(LEAST_AGENTS, height - SHOWN_PINGS - OTHER_LINES)
        agents = agents[:most_agents]
    parts: list[RenderableType] = [headline(dashboard), tables.agents_table(agents, now)]
    not_shown = dashboard.totals.agents - len(agents)
    if not_shown:
        parts.append(Text(f"and {not_shown} more, none of them worse", "bright_black"))
    if dashboard.recent:
        newest = dashboard.recent[:SHOWN_PINGS]
        parts.append(tables.pings_table(newest, now, with_agent=True))
    return Group(*parts)


def headline(dashboard: Dashboard) -> Text:
    """The fleet in one line."""
    totals = dashboard.totals
    line = Text(f"{dashboard.generated_at:%Y-%m-%d %H:%M:%S} UTC  ", "bold")
    line.append(counted(totals.agents, "agent"))
    for status, colour in tables.STATUS_COLOURS.items():
        count = dashboard.by_status.get(status)
        if count:
            line.append("  ")
            line.append(f"{count} {status}", colour)
    line.append(f"  due {dashboard.due}  pings {totals.pings}  missed {totals.missed}")
    line.append("  uptime 24 h ")
    line.append_text(percent(dashboard.uptime.uptime_percent))
    median = dashboard.response_ms.get("p50")
    if median is not None:
        line.append(f"  answers in {median:.1f} ms")
    for service, reason in dashboard.reasons.items():
        line.append(f"\n{service} cannot work: {reason}", "bold red")
    return line


async def watch(
    source: Source,
    lifecycle: Lifecycle,
    console: Console,
    interval: float,
) -> None:
    """Updates the screen every `interval` seconds until a signal stops the command.

    While the system is away, the screen says so and it is asked again.
    """
    with Live(
        console=console,
        screen=True,
        auto_refresh=False,
    ) as view:
        stopped = asyncio.ensure_future(lifecycle.until_stopped())
        while not stopped.done():
            try:
                dashboard = await source.dashboard()
                view.update(dashboard_screen(dashboard, console.height), refresh=True)
            except BusError as error:
                view.update(Text(f"{error}; trying again ...", "yellow"), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await asyncio.shield(stopped)
