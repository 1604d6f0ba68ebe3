"""The fleet on one screen, as `gpuping top --once` prints it."""

from rich.console import Group, RenderableType
from rich.text import Text

from bus.contract.dashboard import Dashboard
from gpuping.output import tables
from gpuping.output.formats import counted, percent

SHOWN_PINGS = 10


def dashboard_screen(dashboard: Dashboard) -> Group:
    """The fleet, the worst agents first, and the newest outcomes."""
    now = dashboard.generated_at
    agents = dashboard.agents
    parts: list[RenderableType] = [headline(dashboard), tables.agents_table(agents, now)]
    not_shown = dashboard.totals.agents - len(agents)
    if not_shown:
        parts.append(Text(f"and {not_shown} more, none of them worse", "bright_black"))
    if dashboard.recent:
        newest = dashboard.recent[:SHOWN_PINGS]
        parts.append(tables.pings_table(newest, now, with_agent=True))
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
    if _is_early(dashboard):
        line.append("too early", "bright_black")
    else:
        line.append_text(percent(dashboard.uptime.uptime_percent))
    median = dashboard.response_ms.get("p50")
    if median is not None:
        line.append(f"  answers in {median:.1f} ms")
    for service, reason in dashboard.reasons.items():
        line.append(f"\n{service} cannot work: {reason}", "bold red")
    return line
