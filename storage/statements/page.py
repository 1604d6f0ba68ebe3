"""The statement as a page to print.

One self-contained HTML file without scripts or outside addresses. Pure.
"""

from datetime import date, datetime
from html import escape
from pathlib import Path
from string import Template

from msgspec import structs

from bus.contract.messages import Incident, Span
from bus.contract.reasons import reason_words
from bus.contract.remarks import REMARK_WORDS
from bus.contract.statements import Account, Pay, Replay, Split, Statement

SHOWN_INCIDENTS = 200
_STATE_WORDS = {"unreported": "not reported"}
_PAGE_FILE = Path(__file__).with_name("statement.html")
_PAGE = Template(_PAGE_FILE.read_text(encoding="utf-8"))
_ACCOUNT = Template(
    '<section class="account"><div class="who"><h3>$name</h3>$uuid<b>$uptime</b></div>'
    '<div class="bar">$bar</div><ul class="times">$times</ul></section>'
)
_TIME = Template('<li><i class="$state"></i>$label <b>$duration</b> <small>$seconds s</small></li>')
_PAY_ROW = Template(
    "<tr><td>$rules<small>$source</small></td><td>$uptime</td>"
    "<td>$good / $poor</td><td>$pool</td><td><b>$paid</b></td></tr>"
)
_REPLAY = Template(
    "<h2>Under other rules: $change $points points</h2>"
    "<table><thead><tr><th>Rules</th><th>Uptime by them</th><th>Good / poor</th><th>Pool</th>"
    "<th>Paid of full rate</th></tr></thead>"
    "<tbody>$now$then</tbody></table>"
)
_INCIDENT_ROW = Template(
    "<tr><td>$since</td><td>$until</td><td>$length</td><td>$subject</td>"
    "<td>$state: $reason</td></tr>"
)
_INCIDENTS = Template(
    '<table class="text"><thead>'
    "<tr><th>From (UTC)</th><th>To</th><th>Length</th><th>Of</th><th>What</th></tr>"
    "</thead><tbody>$rows</tbody></table>"
)


def render(statement: Statement) -> str:
    """Returns the text of the page."""
    accounts = [_account("Host", "", statement.enrolled_seconds, statement.host)]
    for gpu in statement.gpus:
        name = f"{_gpu_word(gpu.index)}  {gpu.name}".strip()
        accounts.append(_account(name, gpu.uuid, gpu.enrolled_seconds, gpu))
    replay = ""
    if statement.replay:
        replay = _replay(statement.replay)
    final = "final" if statement.final else "provisional"
    return _PAGE.substitute(
        title=escape(f"{statement.agent_id} {statement.month} uptime statement"),
        month=f"{date.fromisoformat(f'{statement.month}-01'):%B %Y}",
        agent_id=escape(statement.agent_id),
        uptime=percent(statement.host.uptime_percent),
        enrolled=duration(statement.enrolled_seconds),
        coverage=percent(statement.host.coverage_percent),
        answered=f"{statement.answered:,} of {statement.pings:,}",
        final=final,
        notes=_notes(statement),
        accounts="\n".join(accounts),
        replay=replay,
        incidents=_incidents(statement),
        since=timestamp(statement.since),
        until=timestamp(statement.until),
        splits=_splits(statement),
        generated=timestamp(statement.generated_at),
    )


def percent(value: float | None) -> str:
    """Formats a percentage, cut and not rounded: 99.9996 is never shown as 100."""
    if value is None:
        return "-"
    if value == 100.0:
        return "100 %"
    return f"{int(value * 1000) / 1000:.3f} %"


def duration(seconds: float) -> str:
    """Formats a duration as days and hh:mm:ss, cut to the second."""
    if not seconds:
        return "0"
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    text = f"{hours_left}:{minutes_left:02}:{seconds_left:02}"
    if days:
        return f"{days} d {text}"
    return text


def timestamp(at: datetime) -> str:
    """Formats a UTC time to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _account(
    subject: str,
    uuid: str,
    enrolled_seconds: float,
    account: Account,
) -> str:
    """Returns the account of the host or a GPU: a bar, and every state that took time."""
    seconds = structs.asdict(account.seconds)
    seconds["unreported"] = account.unreported_seconds
    times = ""
    bar = ""
    for state, value in seconds.items():
        if not value:
            continue
        times += _TIME.substitute(
            state=state,
            label=_STATE_WORDS.get(state, state),
            duration=duration(value),
            seconds=f"{value:,.3f}",
        )
        if enrolled_seconds:
            width = 100 * value / enrolled_seconds
            bar += f'<i class="{state}" style="width:{width:.4f}%"></i>'
    return _ACCOUNT.substitute(
        name=escape(subject),
        uuid=f"<small>{escape(uuid)}</small>" if uuid else "",
        bar=bar,
        times=times,
        uptime=percent(account.uptime_percent),
    )


def _gpu_word(index: int | None) -> str:
    if index is None:
        return "GPU"
    return f"GPU {index}"


def _notes(statement: Statement) -> str:
    notes = []
    if not statement.final:
        notes.append("Provisional: reports that belong to this period may still come.")
    if statement.forgotten_until:
        before = timestamp(statement.forgotten_until)
        notes.append(f"What was before {before} is no longer kept, and not in this account.")
    if len(statement.enrolled) > 1:
        parts = ", ".join(map(_span, statement.enrolled))
        notes.append(
            f"The host was removed and registered again meanwhile. Enrolled were: {parts}."
        )
    notes += _loss_notes(statement)
    if statement.simulated:
        notes.append("This host simulates: its GPUs do not exist.")
    if statement.conflicts:
        parts = ", ".join(map(_span, statement.conflicts))
        notes.append(
            f"Two agents answered in turn under this id: {parts}. "
            "Their answers cannot be told apart here, and the account mixes both."
        )
    notes += remark_sentences(statement.remarks)
    if statement.missed or statement.excused:
        missed = _counted(statement.missed, "ping")
        notes.append(f"{missed} missed, {statement.excused} excused.")
    for booked in statement.maintenance:
        begin, end = timestamp(booked.since), timestamp(booked.until)
        notes.append(
            f"Maintenance was booked from {begin} to {end}: {booked.reason}. Its time is excused."
        )
    paragraphs = ""
    for note in notes:
        paragraphs += f'<p class="note">{escape(note)}</p>'
    return paragraphs


def _loss_notes(statement: Statement) -> list[str]:
    """Returns what history lacks of the period, a sentence each."""
    notes = []
    if statement.missing_seqs:
        outcomes = _counted(statement.missing_seqs, "outcome")
        notes.append(f"{outcomes} never reached history; what they told is unreported here.")
    if statement.history_lost:
        parts = ", ".join(map(_span, statement.history_lost))
        notes.append(
            f"The host answered but its answer never reached history: {parts}. "
            "That time is excused; the loss is ours."
        )
    if statement.left_out:
        numbers = ", ".join(str(one.ping_seq) for one in statement.left_out)
        notes.append(f"Outcomes that cannot be accounted for are left out: pings {numbers}.")
    return notes


def remark_sentences(remarks: dict[str, int]) -> list[str]:
    """Returns what was found when reports were checked, a sentence each, with how often."""
    sentences = []
    for remark, count in remarks.items():
        words = REMARK_WORDS.get(remark)
        if words is not None:
            sentences.append(f"{words} ({_counted(count, 'report')}).")
    return sentences


def _span(span: Span) -> str:
    return f"{timestamp(span.since)} to {timestamp(span.until)}"


def _counted(count: int, thing: str) -> str:
    if count == 1:
        return f"1 {thing}"
    return f"{count} {thing}s"


def _replay(replay: Replay) -> str:
    return _REPLAY.substitute(
        change=replay.change,
        points=f"{abs(replay.change_percent):.3f}",
        now=_pay_row(replay.now),
        then=_pay_row(replay.then),
    )


def _pay_row(pay: Pay) -> str:
    pool = "in the pool" if pay.in_pool else "leaves the pool"
    return _PAY_ROW.substitute(
        rules=escape(pay.rules),
        source=escape(pay.source),
        uptime=percent(pay.uptime_percent),
        good=pay.good_pings,
        poor=pay.poor_pings,
        pool=pool,
        paid=percent(pay.paid_percent),
    )


def _incidents(statement: Statement) -> str:
    if not statement.incidents:
        return "<p>None.</p>"
    names = {gpu.uuid: _gpu_word(gpu.index) for gpu in statement.gpus}
    rows = ""
    for incident in statement.incidents[:SHOWN_INCIDENTS]:
        rows += _incident_row(incident, names)
    table = _INCIDENTS.substitute(rows=rows)
    more = len(statement.incidents) - SHOWN_INCIDENTS
    if more > 0:
        return f"{table}<p>And {more} more, in the JSON form of this statement.</p>"
    return table


def _incident_row(incident: Incident, names: dict[str, str]) -> str:
    """Returns the row. A GPU that is not in the statement is shown by the end of its UUID."""
    until = "went on"
    length = ""
    if incident.until:
        until = timestamp(incident.until)
        length = duration((incident.until - incident.since).total_seconds())
    subject = "host"
    if incident.gpu is not None:
        subject = names.get(incident.gpu, incident.gpu[-12:])
    return _INCIDENT_ROW.substitute(
        since=timestamp(incident.since),
        until=until,
        length=length,
        subject=escape(subject),
        state=escape(incident.state),
        reason=escape(reason_words(incident.reason)),
    )


def _splits(statement: Statement) -> str:
    if not statement.splits:
        return ""
    splits = escape("; ".join(map(_split, statement.splits)))
    return f"Reports that cross the period's edge were divided there ({splits})."


def _split(split: Split) -> str:
    method = "exact" if split.method == "exact" else "in proportion"
    return f"report {split.ping_seq} at {timestamp(split.at)}: {method}"
