"""The fleet on one screen, as `gpuping top --once` prints it."""

from rich.console import Group, RenderableType
from rich.text import Text

from bus.contract.dashboard import Dashboard
from gpuping.output import tables
from gpuping.output.agent_columns import agents_table
from gpuping.output.formats import counted, percent
from gpuping.output.ping_columns import pings_table

SHOWN_PINGS = 10
FIGURE_GAP = 2  # characters between two figures of the headline


def dashboard_screen(dashboard: Dashboard, width: int) -> Group:
    """The fleet, the worst agents first, and the newest outcomes, in so many characters."""
    now = dashboard.generated_at
    agents = dashboard.agents
    parts: list[RenderableType] = [
        headline(dashboard, width),
        agents_table(agents, now, width),
    ]
    not_shown = dashboard.totals.agents - len(agents)
    if not_shown:
        parts.append(Text(f"and {not_shown} more, none of them worse", "bright_black"))
    if dashboard.recent:
        newest = dashboard.recent[:SHOWN_PINGS]
        parts.append(pings_table(newest, now, width, with_agent=True))
    return Group(*parts)


def _is_early(dashboard: Dashboard) -> bool:
    """Whether less than one base interval a host was judged: too little for an uptime."""
    uptime = dashboard.uptime
    if uptime.uptime_percent is None or uptime.seconds is None:
        return False
    if dashboard.base_interval_minutes is None:
        return False
    seconds = uptime.seconds
    judged = seconds.up + seconds.degraded + seconds.down + seconds.unknown
    judged += uptime.unreported_seconds
    least = dashboard.base_interval_minutes * 60 * max(1, dashboard.totals.agents)
    return judged < 0.98 * least


def headline(dashboard: Dashboard, width: int) -> Text:
    """The fleet in one line, or in more where it does not fit: no figure leaves its name."""
    lines = _side_by_side(_figures(dashboard), width)
    for service, reason in dashboard.reasons.items():
        lines.append(f"\n{service} cannot work: {reason}", "bold red")
    return lines


def _figures(dashboard: Dashboard) -> list[Text]:
    totals = dashboard.totals
    figures = [
        Text(f"{dashboard.generated_at:%Y-%m-%d %H:%M:%S} UTC", "bold"),
        Text(counted(totals.agents, "agent")),
    ]
    for status, colour in tables.STATUS_COLOURS.items():
        count = dashboard.by_status.get(status)
        if count:
            figures.append(Text(f"{count} {status}", colour))
    figures.append(Text(f"due {dashboard.due}"))
    figures.append(Text(f"pings {totals.pings}"))
    figures.append(Text(f"missed {totals.missed}"))
    uptime = Text("uptime 24 h ")
    if _is_early(dashboard):
        uptime.append("too early", "bright_black")
    else:
        uptime.append_text(percent(dashboard.uptime.uptime_percent))
    figures.append(uptime)
    median = dashboard.response_ms.get("p50")
    if median is not None:
        figures.append(Text(f"answers in {median:.1f} ms"))
    return figures


def _side_by_side(figures: list[Text], width: int) -> Text:
    """The figures, as many in a line as it has room for."""
    text = Text()
    used = 0
    for figure in figures:
        if used and used + FIGURE_GAP + len(figure) <= width:
            text.append(" " * FIGURE_GAP)
            used += FIGURE_GAP
        elif used:
            text.append("\n")
            used = 0
        text.append_text(figure)
        used += len(figure)
    return text
