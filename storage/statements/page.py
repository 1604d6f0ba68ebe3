"""The statement as a page to print: one self-contained file, no script, no outside address."""

from datetime import date, datetime
from html import escape
from pathlib import Path
from string import Template

from bus.contract.statements import Account, Pay, Replay, Statement

SHOWN_INCIDENTS = 200
_TEMPLATE = Path(__file__).with_name("statement.html")
_STATES = ("up", "degraded", "down", "unknown", "excused")


def render(made: Statement) -> str:
    """The page's text."""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{made.agent_id} {made.month} uptime statement"),
        month=f"{date.fromisoformat(f'{made.month}-01'):%B %Y}",
        agent_id=escape(made.agent_id),
        uptime=percent(made.host.uptime_percent),
        enrolled=duration(made.enrolled_seconds),
        coverage=percent(made.host.coverage_percent),
        answered=f"{made.answered} of {made.pings}",
        final="final" if made.final else "provisional",
        notes=_notes(made),
        accounts="\n".join(
            [
                _account("Host", "", made.enrolled_seconds, made.host),
                *(_account(g.name or "GPU", g.uuid, g.enrolled_seconds, g) for g in made.gpus),
            ]
        ),
        replay=_replay(made.replay) if made.replay else "",
        incidents=_incidents(made),
        since=stamp(made.since),
        until=stamp(made.until),
        splits=_splits(made),
        generated=stamp(made.generated_at),
    )


def percent(value: float | None) -> str:
    """Cut, not rounded: 99.9996 % is never shown as 100 %."""
    if value is None:
        return "-"
    return "100 %" if value == 100.0 else f"{int(value * 1000) / 1000:.3f} %"


def duration(seconds: float) -> str:
    """For people, and exact below it."""
    if not seconds:
        return "0"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02}:{rest:02}"


def stamp(moment: datetime) -> str:
    """A moment, for people."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _account(subject: str, uuid: str, enrolled: float, account: Account) -> str:
    seconds = {state: getattr(account.seconds, state) for state in _STATES}
    bar = "".join(
        f'<i class="{state}" style="width:{100 * value / enrolled:.4f}%"></i>'
        for state, value in seconds.items()
        if enrolled and value
    )
    cells = "".join(_seconds(value) for value in (*seconds.values(), account.unreported_seconds))
    name = escape(subject) + (f"<small>{escape(uuid)}</small>" if uuid else "")
    return f'<tr><td>{name}<div class="bar">{bar}</div></td>{cells}<td><b>{percent(account.uptime_percent)}</b></td></tr>'


def _seconds(value: float) -> str:
    return f"<td>{duration(value)}<small>{value:,.3f} s</small></td>" if value else "<td>0</td>"


def _notes(made: Statement) -> str:
    notes = []
    if not made.final:
        notes.append("Provisional: reports that belong to this period may still come.")
    if made.forgotten_until:
        notes.append(
            f"What was before {stamp(made.forgotten_until)} is no longer kept, and not in this account."
        )
    if len(made.enrolled) > 1:
        parts = ", ".join(f"{stamp(one.since)} to {stamp(one.until)}" for one in made.enrolled)
        notes.append(
            f"The host was removed and registered again meanwhile. Enrolled were: {parts}."
        )
    if made.missing_seqs:
        notes.append(
            f"{_counted(made.missing_seqs, 'outcome')} never reached history; what they told is unreported here."
        )
    if made.missed or made.excused:
        notes.append(
            f"{_counted(made.missed, 'ping')} missed, {made.excused} excused as an outage of our own."
        )
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _replay(replay: Replay) -> str:
    def row(pay: Pay) -> str:
        pool = "in the pool" if pay.in_pool else "leaves the pool"
        return (
            f"<tr><td>{escape(pay.rules)}<small>{escape(pay.source)}</small></td><td>{percent(pay.uptime_percent)}</td>"
            f"<td>{pay.good_pings} / {pay.poor_pings}</td><td>{pool}</td>"
            f"<td><b>{percent(pay.paid_percent)}</b></td></tr>"
        )

    return (
        f"<h2>Under other rules: {replay.change} {abs(replay.change_percent):.3f} points</h2>"
        "<table><thead><tr><th>Rules</th><th>Uptime by them</th><th>Good / poor</th><th>Pool</th>"
        "<th>Paid of full rate</th></tr></thead>"
        f"<tbody>{row(replay.now)}{row(replay.then)}</tbody></table>"
    )


def _incidents(made: Statement) -> str:
    if not made.incidents:
        return "<p>None.</p>"
    rows = "".join(
        f"<tr><td>{stamp(one.since)}</td><td>{stamp(one.until) if one.until else 'went on'}</td>"
        f"<td>{escape(one.gpu or 'host')}</td><td>{escape(one.state)}</td><td>{escape(one.reason)}</td></tr>"
        for one in made.incidents[:SHOWN_INCIDENTS]
    )
    more = len(made.incidents) - SHOWN_INCIDENTS
    rest = f"<p>And {more} more, in the JSON form of this statement.</p>" if more > 0 else ""
    head = "<tr><th>From</th><th>To</th><th>GPU</th><th>State</th><th>Reason</th></tr>"
    return f'<table class="text"><thead>{head}</thead><tbody>{rows}</tbody></table>{rest}'


def _splits(made: Statement) -> str:
    if not made.splits:
        return ""
    told = "; ".join(
        f"report {one.ping_seq} at {stamp(one.at)}: {'exact' if one.method == 'exact' else 'in proportion'}"
        for one in made.splits
    )
    return f"Reports that cross the period's edge were divided there ({escape(told)})."
