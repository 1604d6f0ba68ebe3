"""Alerts, notifications and silences as tables."""

from collections.abc import Iterable
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.contract.alerts import (
    ActiveAlert,
    Alerts,
    SendingState,
    SentNotification,
    Severity,
    Silence,
    TestResult,
)
from gpuping.output.formats import counted, relative_time, untrusted
from gpuping.output.terminal import plain_table

SEVERITY_COLOURS: dict[Severity, str] = {
    "info": "cyan",
    "warning": "yellow",
    "critical": "bold red",
}
STATE_COLOURS: dict[SendingState, str] = {
    "waiting": "yellow",
    "claimed": "cyan",
    "sent": "green",
    "failed": "bold red",
}


def show(
    console: Console,
    alerts: Alerts,
    now: datetime,
) -> None:
    """Everything that the service tells, in up to three tables and a sentence."""
    if alerts.active:
        console.print(alerts_table(alerts.active, now))
        if alerts.total > len(alerts.active):
            console.print(f"and {alerts.total - len(alerts.active)} more")
    else:
        console.print("nothing is wrong")
    if alerts.notifications:
        console.print()
        console.print(notifications_table(alerts.notifications, now))
    if alerts.silences:
        console.print()
        console.print(silences_table(alerts.silences, now))
    console.print()
    console.print(_sentence(alerts))


def alerts_table(active: Iterable[ActiveAlert], now: datetime) -> Table:
    """One row for each thing that is wrong."""
    table = plain_table("SEVERITY", "RULE", "ABOUT", "SINCE", "DETAIL")
    for alert in active:
        severity = Text(alert.severity, style=SEVERITY_COLOURS[alert.severity])
        if alert.silenced:
            severity = Text("silenced", style="bright_black")
        table.add_row(
            severity,
            alert.rule,
            untrusted(alert.about),
            relative_time(alert.since, now),
            untrusted(alert.detail),
        )
    return table


def notifications_table(notifications: Iterable[SentNotification], now: datetime) -> Table:
    """One row a notification, the newest first."""
    table = plain_table("STATE", "TARGET", "MADE", "TITLE", "CHANGES", "TRIES", "WHY NOT")
    for one in notifications:
        table.add_row(
            Text(one.state, style=STATE_COLOURS[one.state]),
            untrusted(one.target),
            relative_time(one.made_at, now),
            untrusted(one.title),
            str(one.changes),
            str(one.attempts),
            untrusted(one.error or ""),
        )
    return table


def silences_table(silences: Iterable[Silence], now: datetime) -> Table:
    """One row a silence."""
    table = plain_table("SILENCE", "OF", "ENDS", "REASON", "BY")
    for silence in silences:
        of = " ".join(f"{name}={value}" for name, value in silence.match.items())
        table.add_row(
            silence.silence_id,
            untrusted(of),
            relative_time(silence.until, now),
            untrusted(silence.reason),
            untrusted(silence.author),
        )
    return table


def test_table(results: Iterable[TestResult]) -> Table:
    """One row a target."""
    table = plain_table("TARGET", "TOOK IT", "WHY NOT")
    for result in results:
        took = Text("yes", style="green")
        if result.error is not None:
            took = Text("no", style="bold red")
        table.add_row(untrusted(result.target), took, untrusted(result.error or ""))
    return table


def _sentence(alerts: Alerts) -> str:
    if not alerts.targets:
        return "nobody is told: GPUPING_ALERTS_FILE names no target"
    text = f"told: {', '.join(alerts.targets)}"
    if alerts.held:
        text += f"; {counted(alerts.held, 'change')} held back for now"
    return text
