"""Agents, outcomes, reports and findings as tables."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from bus.contract.audit import AuditEntry
from bus.contract.maintenance import Booking
from bus.contract.messages import GpuChange, UptimeReport
from bus.contract.publishing import StatusPage
from bus.contract.questions import Agent, ExpectedGpus, HistorySummary, Ping
from gpuping.output.findings import Finding, Level
from gpuping.output.formats import (
    NO_VALUE,
    counted,
    duration,
    durations_by_state,
    percent,
    relative_time,
    untrusted,
)
from gpuping.output.terminal import plain_table

MOST_IDS = 3  # of a booking's agents in its row
STATUS_COLOURS = {
    "healthy": "green",
    "recovering": "cyan",
    "pending": "bright_black",
    "maintenance": "blue",
    "poor": "yellow",
    "missing": "red",
}
STATE_COLOURS = {"up": "green", "degraded": "yellow", "down": "red", "unknown": "bright_black"}
# GPU states, the worst first.
_STATES_BY_SEVERITY = ("down", "unknown", "degraded", "up")
_LEVEL_MARKS: dict[Level, str] = {
    "ok": "ok",
    "note": "note",
    "warning": "warn",
    "failure": "FAIL",
}
_LEVEL_COLOURS: dict[Level, str] = {
    "ok": "green",
    "note": "cyan",
    "warning": "yellow",
    "failure": "bold red",
}
_SUMMARY_COUNTS = ("first", "good", "poor", "missed", "excused")


def evidence_lines(pings: Iterable[Ping]) -> Iterator[Text]:
    """The reports that are kept, each under a line that names its ping."""
    for ping in pings:
        kept = ping.evidence
        if kept is None:
            continue
        what = "refused" if kept.refused else "signed"
        line = f"ping {ping.ping_seq} at {ping.pinged_at:%Y-%m-%d %H:%M:%S} UTC: {what} report"
        if kept.signature is not None:
            line += f", signature {kept.signature}"
        yield Text(line, "bold")
        yield untrusted(kept.report)


def audit_table(entries: Iterable[AuditEntry], now: datetime) -> Table:
    """One row an entry of the audit log, in the order given."""
    table = plain_table(">ENTRY", "WHEN", "WHO", "FROM", "DID", "AGENT")
    table.add_column("CHANGE", ratio=1, overflow="fold")
    for entry in entries:
        table.add_row(
            str(entry.sequence),
            relative_time(entry.at, now),
            untrusted(entry.actor),
            _or_no_value(entry.address),
            entry.action,
            _or_no_value(entry.agent_id),
            _audited_change(entry),
        )
    table.expand = True
    return table


def _audited_change(entry: AuditEntry) -> Text:
    """Each field that differs, as it was and as it is; a new one only as it is.

    What is empty in something new says nothing.
    """
    before = entry.before or {}
    after = entry.after or {}
    parts = []
    for name in sorted({*before, *after}):
        was = before.get(name)
        now = after.get(name)
        if name in before and name in after:
            parts.append(f"{name} {_json(was)} -> {_json(now)}")
        elif name in after and now not in (None, "", [], {}, False):
            parts.append(f"{name} {_json(now)}")
        elif name in before and was not in (None, "", [], {}, False):
            parts.append(f"{name} was {_json(was)}")
    if entry.left_out:
        parts.append(f"({entry.left_out} changes before it are not in the log)")
    if not parts:
        return NO_VALUE
    return untrusted(", ".join(parts))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def labels_table(agent: Agent) -> Table:
    """What is known of a host, and whether an operator or the host itself says it."""
    table = plain_table("NAME", "VALUE", "SAID BY")
    for name, value in sorted(agent.metadata.items()):
        said_by = "the host"
        if name in agent.labels:
            said_by = "an operator"
        text = value if isinstance(value, str) else _json(value)
        table.add_row(untrusted(name), untrusted(text), said_by)
    return table


def bookings_table(bookings: Iterable[Booking], now: datetime) -> Table:
    """One row a booking, in the order given."""
    table = plain_table("BOOKING", "AGENTS", "FROM (UTC)", "TO (UTC)", "BEGINS", "REASON", "BY")
    for booking in bookings:
        table.add_row(
            booking.booking_id,
            untrusted(_few(booking.agent_ids)),
            f"{booking.since:%Y-%m-%d %H:%M}",
            f"{booking.until:%Y-%m-%d %H:%M}",
            relative_time(booking.since, now),
            untrusted(booking.reason),
            untrusted(booking.author),
        )
    return table


def status_pages_table(pages: Iterable[StatusPage]) -> Table:
    """One row a status page, in the order given."""
    table = plain_table("PAGE", "TITLE", "HOSTS", "IDS", "CHANGED (UTC)", "BY")
    for page in pages:
        hosts = f"with {page.label}" if page.label is not None else _few(page.agents)
        changed = f"{page.changed_at:%Y-%m-%d %H:%M}" if page.changed_at is not None else ""
        table.add_row(
            page.name,
            untrusted(page.title),
            untrusted(hosts),
            "shown" if page.show_ids else "hidden",
            changed,
            untrusted(page.author),
        )
    return table


def _few(agent_ids: tuple[str, ...]) -> str:
    """The first ids, and how many there are besides."""
    shown = ", ".join(agent_ids[:MOST_IDS])
    if len(agent_ids) > MOST_IDS:
        return f"{shown} and {len(agent_ids) - MOST_IDS} more"
    return shown


def _or_no_value(text: str | None) -> Text:
    if text is None:
        return NO_VALUE
    return untrusted(text)


def summary_line(summary: HistorySummary) -> str:
    """A history in one sentence."""
    counts = []
    for name in _SUMMARY_COUNTS:
        count: int = getattr(summary, name)
        if count:
            counts.append(f"{count} {name}")
    by_verdict = ", ".join(counts) or "none"
    uptime = "no uptime observed"
    if summary.uptime_percent is not None:
        uptime = f"uptime {summary.uptime_percent:.3f} %"
    pings = counted(summary.pings, "ping")
    return f"{pings} ({by_verdict}); {uptime}; {durations_by_state(summary.seconds)}"


def report_table(report: UptimeReport) -> Table:
    """An agent's own report, one row a GPU."""
    table = plain_table(
        "GPU",
        "NAME",
        "STATE",
        "REASONS",
        ">UPTIME",
        ">UP",
        ">DEGRADED",
        ">DOWN",
        ">UNKNOWN",
    )
    for gpu in report.gpus:
        index = "-"
        if gpu.index is not None:
            index = str(gpu.index)
        table.add_row(
            index,
            untrusted(gpu.name),
            Text(gpu.state, STATE_COLOURS.get(gpu.state, "")),
            untrusted(", ".join(gpu.reasons)),
            percent(gpu.uptime_percent),
            duration(gpu.seconds.up),
            duration(gpu.seconds.degraded),
            duration(gpu.seconds.down),
            duration(gpu.seconds.unknown),
        )
    return table


def gpus_headline(agent: Agent) -> Text:
    """How many of the expected GPUs work now, such as `agent-001  1/2 up`."""
    line = Text(agent.agent_id, "bold")
    line.append("  ")
    line.append_text(gpus_up(agent))
    return line


def gpus_table(agent: Agent, expected: ExpectedGpus) -> Table:
    """The GPUs of a host as of its last report, and since when each is expected, and by whom."""
    table = plain_table("GPU", "UUID", "NAME", "STATE", "REASONS", "EXPECTED")
    changes = {change.uuid: change for change in expected.changes}
    shown = {gpu.uuid for gpu in agent.gpus}
    for gpu in agent.gpus:
        index = "-"
        if gpu.index is not None:
            index = str(gpu.index)
        table.add_row(
            index,
            untrusted(gpu.uuid),
            untrusted(gpu.name),
            Text(gpu.state, STATE_COLOURS.get(gpu.state, "")),
            untrusted(", ".join(gpu.reasons)),
            _expectation(gpu.uuid, expected.expected_gpus, changes.get(gpu.uuid)),
        )
    for uuid, change in changes.items():
        if uuid not in shown:
            expectation = _expectation(uuid, expected.expected_gpus, change)
            table.add_row("-", untrusted(uuid), "", NO_VALUE, "", expectation)
    return table


def _expectation(
    uuid: str,
    expected: tuple[str, ...],
    change: GpuChange | None,
) -> Text:
    if change is None:
        if uuid in expected:
            return Text("since the first report")
        return Text("no", "yellow")
    verb = "since" if change.expected else "until"
    return untrusted(f"{verb} {change.since:%Y-%m-%d %H:%M:%S} UTC, by {change.author}")


def report_headline(report: UptimeReport) -> Text:
    """An agent's own report in one line."""
    line = Text(report.agent_id, "bold")
    line.append("  uptime ")
    line.append_text(percent(report.uptime_percent))
    line.append(f" of the {duration(report.window.seconds)} since the last ping: ")
    line.append(durations_by_state(report.seconds))
    return line


def findings_table(findings: Iterable[Finding]) -> Table:
    """What was checked, what was found, and beneath it what to do."""
    grid = Table.grid(padding=(0, 2))
    for finding in findings:
        colour = _LEVEL_COLOURS[finding.level]
        mark = Text(_LEVEL_MARKS[finding.level], colour)
        text = Text(finding.detail)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", colour)
        grid.add_row(mark, Text(finding.check, "bold"), text)
    return grid


def uptime_of_a_day(agent: Agent) -> Text:
    """The uptime of 24 h; `too early` where less than the time between two pings was judged."""
    judged = agent.uptime_24h_seconds
    if agent.uptime_24h_percent is None or judged is None:
        return percent(agent.uptime_24h_percent)
    if judged < agent.current_interval_minutes * 60 - 1:
        return Text("too early", "bright_black")
    return percent(agent.uptime_24h_percent)


def gpus_up(agent: Agent, *, short: bool = False) -> Text:
    """`7/8 up`, in the colour of the worst GPU. A degraded GPU works and counts as up.

    With `short` it is `7/8`, and simulated GPUs are marked by `sim`. An agent that is asked by HTTP
    tells nothing of single GPUs.
    """
    if agent.by_http:
        return Text("by HTTP", style="yellow")
    if not agent.gpus:
        return NO_VALUE
    states = [gpu.state for gpu in agent.gpus]
    up = states.count("up") + states.count("degraded")
    worst = min(states, key=_STATES_BY_SEVERITY.index)
    text = f"{up}/{len(states)}"
    if not short:
        text += " up"
    if agent.simulated and short:
        text += " sim"
    elif agent.simulated:
        text += ", simulated"
    return Text(text, style=STATE_COLOURS[worst])
