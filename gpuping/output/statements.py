"""Accounts of a month in the terminal, and the questions for them: a statement, and the fleet under other rules."""

from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Group
from rich.text import Text

from bus import clock
from bus.contract.statements import (
    READY_MADE,
    Account,
    FleetReplay,
    FleetReplayRequest,
    Pay,
    Statement,
    StatementRequest,
)
from bus.errors import SettingsError
from gpuping.output import terminal

CHANGE_COLOURS = {"gains": "green", "loses": "red", "same": "bright_black"}
R = TypeVar("R", StatementRequest, FleetReplayRequest)


def request(month: str | None, threshold: float | None, policy: str | None) -> StatementRequest:
    """The question for one agent's month. `policy` may be a file; then its text is asked with. Raises SettingsError."""
    return _asked(StatementRequest, month, threshold, policy)


def replay_request(
    month: str | None, threshold: float | None, policy: str | None
) -> FleetReplayRequest:
    """The question for the fleet's month under other rules. Raises SettingsError where no rules are given."""
    if threshold is None and policy is None:
        raise SettingsError(
            f"--threshold, --policy: expected one of them; ready-made: {', '.join(READY_MADE)}"
        )
    return _asked(FleetReplayRequest, month, threshold, policy)


def no_month(month: str | None) -> SettingsError:
    """What to raise for something that is no month."""
    return SettingsError(f"--month={month!r}: expected a month, such as 2026-11")


def _asked(kind: type[R], month: str | None, threshold: float | None, policy: str | None) -> R:
    """Without a month, this one."""
    asked = {
        "month": f"{clock.utc_now():%Y-%m}" if month is None else month,
        "threshold": threshold,
        "policy": None if policy is None else _text_of(policy),
    }
    try:
        return msgspec.convert(asked, kind)
    except msgspec.ValidationError as error:
        if "$.month" in str(error):
            raise no_month(month) from None
        raise SettingsError(f"--threshold, --policy: {error}") from None


def replayed(made: FleetReplay) -> Group:
    """Who gains and who loses, and what it comes to."""
    table = terminal.plain_table(
        "AGENT", "", ">CHANGE", ">PAID NOW", ">PAID THEN", ">UPTIME", ">COVERED"
    )
    for agent in made.agents:
        table.add_row(
            agent.agent_id,
            Text(agent.change, CHANGE_COLOURS[agent.change]),
            Text(f"{agent.change_percent:+.2f} %", CHANGE_COLOURS[agent.change]),
            terminal.percent(agent.now_paid_percent),
            terminal.percent(agent.then_paid_percent),
            terminal.percent(agent.uptime_percent),
            terminal.duration(agent.covered_seconds),
        )
    return Group(*_replay_headline(made), table, *_left_out(made))


def _replay_headline(made: FleetReplay) -> list[Text]:
    line = Text(made.month, "bold").append(f"  {made.now} -> {made.then}  ", "default")
    line.append(f"{made.gains} gain", CHANGE_COLOURS["gains"]).append(", ")
    line.append(f"{made.loses} lose", CHANGE_COLOURS["loses"]).append(
        f", {made.same} stay the same"
    )
    paid = Text("of the full rate the fleet is paid ").append_text(
        terminal.percent(made.now_paid_percent)
    )
    return [line, paid.append(", and then ").append_text(terminal.percent(made.then_paid_percent))]


def _left_out(made: FleetReplay) -> list[Text]:
    left = made.gains + made.loses + made.same - len(made.agents)
    return (
        [Text(f"and {left} more, whose pay changes less: --format csv has all", "bright_black")]
        if left
        else []
    )


def shown(statement: Statement) -> Group:
    """The host, each GPU, and what other rules would make of the month."""
    table = terminal.plain_table(
        "",
        ">UPTIME",
        ">UP",
        ">DEGRADED",
        ">DOWN",
        ">UNKNOWN",
        ">EXCUSED",
        ">UNREPORTED",
        ">COVERED",
    )
    table.add_row("host", *_cells(statement.host))
    for gpu in statement.gpus:
        place = "-" if gpu.index is None else gpu.index
        table.add_row(terminal.foreign(f"GPU {place}  {gpu.name}"), *_cells(gpu))
    return Group(_headline(statement), table, *_footer(statement))


def _headline(statement: Statement) -> Text:
    line = Text(f"{statement.agent_id}  {statement.month}", "bold").append(
        "  final" if statement.final else "  so far"
    )
    line.append(
        f"  {statement.since:%Y-%m-%d %H:%M} to {statement.until:%Y-%m-%d %H:%M} UTC",
        "bright_black",
    )
    return line.append(f"  enrolled {terminal.duration(statement.enrolled_seconds)}")


def _footer(statement: Statement) -> list[Text]:
    lines = [
        Text(
            f"{statement.pings} pings: {statement.answered} answered, {statement.missed} missed, "
            f"{statement.excused} excused; incidents: {len(statement.incidents)} (--json has them)"
        )
    ]
    if statement.forgotten_until:
        lines.append(
            Text(
                f"what was before {statement.forgotten_until:%Y-%m-%d %H:%M} UTC is no longer kept",
                "yellow",
            )
        )
    if len(statement.enrolled) > 1:
        lines.append(Text(f"enrolled {len(statement.enrolled)} times (--json has when)"))
    if statement.missing_seqs:
        lines.append(Text(f"{statement.missing_seqs} outcomes never reached history", "red"))
    if replay := statement.replay:
        lines += [_pay("now", replay.now), _pay("then", replay.then)]
        lines.append(
            Text(
                f"the host {replay.change}: {replay.change_percent:+.2f} % of the full rate", "bold"
            )
        )
    return lines


def _pay(label: str, pay: Pay) -> Text:
    line = Text(f"{label:<5}{pay.rules}: uptime ").append_text(terminal.percent(pay.uptime_percent))
    return line.append(", paid ").append_text(terminal.percent(pay.paid_percent))


def _cells(account: Account) -> list[Text | str]:
    seconds = account.seconds
    spent = (
        seconds.up,
        seconds.degraded,
        seconds.down,
        seconds.unknown,
        seconds.excused,
        account.unreported_seconds,
    )
    return [
        terminal.percent(account.uptime_percent),
        *(terminal.duration(value) for value in spent),
        terminal.percent(account.coverage_percent),
    ]


def _text_of(policy: str) -> str:
    """A file's text, or the name as it is: storage knows the ready-made ones."""
    path = Path(policy).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig") if path.is_file() else policy
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--policy={policy!r}: expected a readable TOML file: {error}"
        ) from None
