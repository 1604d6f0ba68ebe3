"""An uptime statement in the terminal, and the question for one."""

from pathlib import Path

import msgspec
from rich.console import Group
from rich.text import Text

from bus.errors import SettingsError
from bus.statements import Account, Pay, Statement, StatementRequest
from gpuping import terminal


def request(month: str, threshold: float | None, policy: str | None) -> StatementRequest:
    """The question. `policy` may be a file; then its text is asked with. Raises SettingsError for what is no month."""
    asked = {"month": month, "threshold": threshold, "policy": _text_of(policy) if policy else None}
    try:
        return msgspec.convert(asked, StatementRequest)
    except msgspec.ValidationError as error:
        if "$.month" in str(error):
            raise SettingsError(f"--month={month!r}: expected a month, such as 2026-11") from None
        raise SettingsError(f"--threshold, --policy: {error}") from None


def shown(statement: Statement) -> Group:
    """The host, each GPU, and what other rules would make of the month."""
    table = terminal.plain_table(
        "", ">UPTIME", ">UP", ">DEGRADED", ">DOWN", ">UNKNOWN", ">EXCUSED", ">UNREPORTED", ">COVERED"
    )
    table.add_row("host", *_cells(statement.host))
    for gpu in statement.gpus:
        table.add_row(f"GPU {'-' if gpu.index is None else gpu.index}  {gpu.name}", *_cells(gpu))
    return Group(_headline(statement), table, *_footer(statement))


def _headline(statement: Statement) -> Text:
    line = Text(f"{statement.agent_id}  {statement.month}", "bold").append("  final" if statement.final else "  so far")
    line.append(f"  {statement.since:%Y-%m-%d %H:%M} to {statement.until:%Y-%m-%d %H:%M} UTC", "bright_black")
    return line.append(f"  enrolled {terminal.duration(statement.enrolled_seconds)}")


def _footer(statement: Statement) -> list[Text]:
    lines = [
        Text(
            f"{statement.pings} pings: {statement.answered} answered, {statement.missed} missed, "
            f"{statement.excused} excused; incidents: {len(statement.incidents)} (--json has them)"
        )
    ]
    if statement.missing_seqs:
        lines.append(Text(f"{statement.missing_seqs} outcomes never reached history", "red"))
    if replay := statement.replay:
        lines += [_pay("now", replay.now), _pay("then", replay.then)]
        lines.append(Text(f"the host {replay.change}: {replay.change_percent:+.2f} % of the full rate", "bold"))
    return lines


def _pay(label: str, pay: Pay) -> Text:
    line = Text(f"{label:<5}{pay.rules}: uptime ").append_text(terminal.percent(pay.uptime_percent))
    return line.append(", paid ").append_text(terminal.percent(pay.paid_percent))


def _cells(account: Account) -> list[Text | str]:
    seconds = account.seconds
    spent = (seconds.up, seconds.degraded, seconds.down, seconds.unknown, seconds.excused, account.unreported_seconds)
    return [
        terminal.percent(account.uptime_percent),
        *(terminal.duration(value) for value in spent),
        terminal.percent(account.coverage_percent),
    ]


def _text_of(policy: str) -> str:
    """A file's text, or the name as it is: storage knows the ready-made ones."""
    path = Path(policy).expanduser()
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else policy
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--policy={policy!r}: expected a readable TOML file: {error}") from None
