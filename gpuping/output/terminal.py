"""What answers look like in a terminal: tables and one-line sentences, coloured where it is a terminal."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus import clock
from bus.contract.messages import Seconds, UptimeReport
from bus.contract.questions import Agent, HistorySummary, Ping
from gpuping.output.findings import Finding, Level

STATUS_COLOURS = {
    "healthy": "green",
    "recovering": "cyan",
    "pending": "bright_black",
    "maintenance": "blue",
    "poor": "yellow",
    "missing": "red",
}
VERDICT_COLOURS = {"good": "green", "first": "cyan", "poor": "yellow", "excused": "blue"}
STATE_COLOURS = {"up": "green", "degraded": "yellow", "down": "red", "unknown": "bright_black"}
MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "warning": ("warn", "yellow"),
    "failure": ("FAIL", "bold red"),
}
NOTHING = Text("-", style="bright_black")


def console(*, error: bool = False) -> Console:
    """Standard output (or error); plain and unwrapped where it is no terminal."""
    made = Console(stderr=error, highlight=False, markup=False, emoji=False, soft_wrap=False)
    return (
        made
        if made.is_terminal
        else Console(stderr=error, highlight=False, markup=False, emoji=False, width=160)
    )


def agents_table(agents: Iterable[Agent], now: datetime) -> Table:
    """One line an agent."""
    table = plain_table(
        "AGENT",
        "STATUS",
        "GPUS",
        ">UPTIME",
        ">24 H",
        ">POOR",
        ">INTERVAL",
        "LAST PING",
        "NEXT PING",
    )
    for agent in agents:
        table.add_row(
            agent.agent_id,
            _coloured(agent.status, STATUS_COLOURS),
            _gpus(agent),
            percent(agent.uptime_percent),
            percent(agent.uptime_24h_percent),
            str(agent.consecutive_poor_uptime),
            duration(agent.current_interval_minutes * 60),
            moment(agent.last_ping_at, now),
            moment(agent.next_ping_at, now),
        )
    return table


def pings_table(pings: Iterable[Ping], now: datetime, *, with_agent: bool = False) -> Table:
    """One line an outcome, newest first."""
    table = plain_table(
        *(["AGENT"] if with_agent else []),
        ">PING",
        "WHEN",
        "VERDICT",
        "OUTCOME",
        ">UPTIME",
        ">POOR",
    )
    for heading in ("INTERVAL", "TOOK"):
        table.add_column(heading, justify="right", no_wrap=True)
    for ping in pings:
        table.add_row(
            *([ping.agent_id] if with_agent else []),
            str(ping.ping_seq),
            moment(ping.pinged_at, now),
            _coloured(ping.verdict, VERDICT_COLOURS),
            _outcome(ping),
            percent(ping.uptime_percent),
            str(ping.consecutive_poor_uptime),
            duration(ping.interval_minutes * 60),
            milliseconds(ping.response_ms),
        )
    return table


def summary_line(summary: HistorySummary) -> str:
    """A history in one sentence."""
    parts = [
        f"{count} {name}"
        for name in ("first", "good", "poor", "missed", "excused")
        if (count := _of(summary, name))
    ]
    uptime = (
        "no uptime observed"
        if summary.uptime_percent is None
        else f"uptime {summary.uptime_percent:.3f} %"
    )
    counted = f"{summary.pings} ping{'' if summary.pings == 1 else 's'}"
    return f"{counted} ({', '.join(parts) or 'none'}); {uptime}; {seconds_line(summary.seconds)}"


def report_table(report: UptimeReport) -> Table:
    """An agent's own report, one line a GPU."""
    table = plain_table(
        "GPU", "NAME", "STATE", "REASONS", ">UPTIME", ">UP", ">DEGRADED", ">DOWN", ">UNKNOWN"
    )
    for gpu in report.gpus:
        spent = (gpu.seconds.up, gpu.seconds.degraded, gpu.seconds.down, gpu.seconds.unknown)
        table.add_row(
            "-" if gpu.index is None else str(gpu.index),
            foreign(gpu.name),
            _coloured(gpu.state, STATE_COLOURS),
            foreign(", ".join(gpu.reasons)),
            percent(gpu.uptime_percent),
            *(duration(seconds) for seconds in spent),
        )
    return table


def report_headline(report: UptimeReport) -> Text:
    """An agent's own report in one line."""
    line = (
        Text(report.agent_id, "bold")
        .append("  uptime ")
        .append_text(percent(report.uptime_percent))
    )
    return line.append(
        f" of the {duration(report.window.seconds)} since the last ping: {seconds_line(report.seconds)}"
    )


def seconds_line(seconds: Seconds) -> str:
    """An accounted period in words; what is zero is left out."""
    parts = [
        f"{duration(value)} {name}"
        for name in ("up", "degraded", "down", "unknown", "excused")
        if (value := getattr(seconds, name))
    ]
    return ", ".join(parts) or "nothing accounted"


def findings_table(findings: Iterable[Finding]) -> Table:
    """For people: what was checked, what was found, and beneath it what to do."""
    grid = Table.grid(padding=(0, 2))
    for finding in findings:
        mark, colour = MARKS[finding.level]
        text = Text(finding.detail)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", colour)
        grid.add_row(Text(mark, colour), Text(finding.check, "bold"), text)
    return grid


def percent(value: float | None) -> Text:
    """Never rounded up to 100: 99.996 shows as 99.99."""
    if value is None:
        return NOTHING
    colour = "green" if value >= 99.0 else "yellow" if value >= 90.0 else "red"
    return Text(f"{int(value * 100) / 100:.2f} %", style=colour)


def duration(seconds: float) -> str:
    """The two largest units: 90 s is `1m 30s`."""
    if seconds == 0:
        return "-"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return (
                f"{whole // size}{unit} {rest}{smaller_unit}" if rest else f"{whole // size}{unit}"
            )
    return f"{whole}s"


def moment(when: datetime | None, now: datetime) -> Text:
    """A time as its distance from now: `3m ago`, `in 12s`."""
    if when is None:
        return NOTHING
    distance = (when - now) / timedelta(seconds=1)
    if abs(distance) < 1:
        return Text("now")
    return Text(
        f"in {duration(round(distance))}" if distance > 0 else f"{duration(round(-distance))} ago"
    )


def milliseconds(value: float | None) -> Text:
    """A response time."""
    return NOTHING if value is None else Text(f"{value:.1f} ms")


def now() -> datetime:
    """The clock, read once for a whole screen."""
    return clock.utc_now()


def plain_table(*headings: str) -> Table:
    """Ours: no boxes; a heading that begins with > is of a column of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    return table


def foreign(text: str) -> Text:
    """What a host says of itself, to be read and not obeyed: no markup, nothing that moves the cursor."""
    return Text(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    )


def _coloured(word: str, colours: dict[str, str]) -> Text:
    return Text(word, style=colours.get(word, ""))


def _outcome(ping: Ping) -> str:
    """With its reason, unless the verdict says as much."""
    told = ping.reason and ping.reason != "uptime_below_threshold"
    return f"{ping.outcome} ({ping.reason})" if told else ping.outcome


def _gpus(agent: Agent) -> Text:
    """`7/8 up`, in the colour of the worst."""
    if not agent.gpus:
        return NOTHING
    fine = sum(gpu.state in {"up", "degraded"} for gpu in agent.gpus)
    worst = next(
        state
        for state in ("down", "unknown", "degraded", "up")
        if any(g.state == state for g in agent.gpus)
    )
    return Text(f"{fine}/{len(agent.gpus)} up", style=STATE_COLOURS[worst])


def _of(summary: HistorySummary, name: str) -> int:
    count: int = getattr(summary, name)
    return count
