"""Statements of one agent's month and replays of the fleet's month, as tables."""

from rich.console import Group, RenderableType
from rich.text import Text

from bus.contract.remarks import REMARK_WORDS
from bus.contract.statements import Account, FleetReplay, Pay, Statement
from gpuping.output.formats import counted, duration, percent, untrusted
from gpuping.output.terminal import plain_table

CHANGE_COLOURS = {"gains": "green", "loses": "red", "same": "bright_black"}


def statement_table(statement: Statement) -> Group:
    """One row for the host and one for each GPU, and beneath them what other rules would pay."""
    table = plain_table(
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
    table.add_row("host", *_account_cells(statement.host))
    for gpu in statement.gpus:
        index = "-"
        if gpu.index is not None:
            index = str(gpu.index)
        table.add_row(untrusted(f"GPU {index}  {gpu.name}"), *_account_cells(gpu))
    return Group(_statement_headline(statement), table, *_statement_footer(statement))


def replay_table(replay: FleetReplay) -> Group:
    """One row an agent, the greatest change first, under a headline with the fleet's sums."""
    table = plain_table(
        "AGENT",
        "",
        ">CHANGE",
        ">PAID NOW",
        ">PAID THEN",
        ">UPTIME",
        ">COVERED",
    )
    for agent in replay.agents:
        colour = CHANGE_COLOURS[agent.change]
        table.add_row(
            agent.agent_id,
            Text(agent.change, colour),
            Text(f"{agent.change_percent:+.2f} %", colour),
            percent(agent.now_paid_percent),
            percent(agent.then_paid_percent),
            percent(agent.uptime_percent),
            duration(agent.covered_seconds),
        )
    lines: list[RenderableType] = [_replay_headline(replay), _fleet_pay(replay), table]
    not_listed = replay.gains + replay.loses + replay.same - len(replay.agents)
    if not_listed:
        more = f"and {not_listed} more, whose pay changes less: --format csv has all"
        lines.append(Text(more, "bright_black"))
    return Group(*lines)


def _replay_headline(replay: FleetReplay) -> Text:
    line = Text(replay.month, "bold")
    line.append(f"  {replay.now} -> {replay.then}  ", "default")
    line.append(f"{replay.gains} gain", CHANGE_COLOURS["gains"])
    line.append(", ")
    line.append(f"{replay.loses} lose", CHANGE_COLOURS["loses"])
    line.append(f", {replay.same} stay the same")
    return line


def _fleet_pay(replay: FleetReplay) -> Text:
    line = Text("of the full rate the fleet is paid ")
    line.append_text(percent(replay.now_paid_percent))
    line.append(", and then ")
    line.append_text(percent(replay.then_paid_percent))
    return line


def _statement_headline(statement: Statement) -> Text:
    line = Text(f"{statement.agent_id}  {statement.month}", "bold")
    if statement.final:
        line.append("  final")
    else:
        line.append("  so far")
    since = f"{statement.since:%Y-%m-%d %H:%M}"
    until = f"{statement.until:%Y-%m-%d %H:%M}"
    line.append(f"  {since} to {until} UTC", "bright_black")
    line.append(f"  enrolled {duration(statement.enrolled_seconds)}")
    return line


def _maintenance_lines(statement: Statement) -> list[Text]:
    lines: list[Text] = []
    for booked in statement.maintenance:
        period = f"{booked.since:%Y-%m-%d %H:%M} to {booked.until:%Y-%m-%d %H:%M} UTC"
        lines.append(untrusted(f"maintenance {period}: {booked.reason}"))
    return lines


def _statement_footer(statement: Statement) -> list[Text]:
    pings = counted(statement.pings, "ping")
    outcomes = (
        f"{statement.answered} answered, {statement.missed} missed, {statement.excused} excused"
    )
    incidents = f"incidents: {len(statement.incidents)} (--json has them)"
    lines = [Text(f"{pings}: {outcomes}; {incidents}")]
    if statement.forgotten_until:
        begin = f"{statement.forgotten_until:%Y-%m-%d %H:%M} UTC"
        lines.append(Text(f"what was before {begin} is no longer kept", "yellow"))
    if len(statement.enrolled) > 1:
        lines.append(Text(f"enrolled {len(statement.enrolled)} times (--json has when)"))
    if statement.missing_seqs:
        lines.append(Text(f"{statement.missing_seqs} outcomes never reached history", "red"))
    if statement.history_lost:
        seconds = sum((span.until - span.since).total_seconds() for span in statement.history_lost)
        lost = f"{duration(seconds)} excused: answers that never reached history, our loss"
        lines.append(Text(lost, "yellow"))
    lines += _maintenance_lines(statement)
    if statement.simulated:
        lines.append(Text("this host simulates: its GPUs do not exist", "yellow"))
    for span in statement.conflicts:
        conflict = f"{span.since:%Y-%m-%d %H:%M:%S} to {span.until:%Y-%m-%d %H:%M:%S} UTC"
        lines.append(Text(f"two agents answered in turn under this id: {conflict}", "red"))
    for remark, count in statement.remarks.items():
        words = REMARK_WORDS.get(remark)
        if words is not None:
            lines.append(Text(f"{words} ({count} reports)", "yellow"))
    replay = statement.replay
    if replay:
        change = f"the host {replay.change}: {replay.change_percent:+.2f} % of the full rate"
        lines.append(_pay_line("now", replay.now))
        lines.append(_pay_line("then", replay.then))
        lines.append(Text(change, "bold"))
    return lines


def _pay_line(label: str, pay: Pay) -> Text:
    line = Text(f"{label:<5}{pay.rules}: uptime ")
    line.append_text(percent(pay.uptime_percent))
    line.append(", paid ")
    line.append_text(percent(pay.paid_percent))
    return line


def _account_cells(account: Account) -> list[Text | str]:
    seconds = account.seconds
    return [
        percent(account.uptime_percent),
        duration(seconds.up),
        duration(seconds.degraded),
        duration(seconds.down),
        duration(seconds.unknown),
        duration(seconds.excused),
        duration(account.unreported_seconds),
        percent(account.coverage_percent),
    ]
