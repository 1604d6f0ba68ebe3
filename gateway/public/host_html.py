"""A host's own view as HTML: plain, without scripts, and without any other address. Pure."""

from datetime import date, datetime
from html import escape
from pathlib import Path
from string import Template

from bus.contract.explanations import Cause, IntervalStep
from bus.contract.reasons import UPTIME_BELOW_THRESHOLD, reason_words
from gateway.public import parts, words
from gateway.public.host_view import HostView, OwnBooking, OwnMonth, OwnPing, month_beside

_PAGE = Template(Path(__file__).with_name("host.html").read_text(encoding="utf-8"))
_FIGURE = Template("<div$kind><dt>$name</dt><dd>$value</dd>$note</div>")
_TABLE = Template(
    '<div class="panel"><div class="wide" tabindex="0" role="region" aria-label="$label">'
    "<table><thead><tr>$heads</tr></thead><tbody>$rows</tbody></table></div></div>"
)
_SAID_BY_FIGURES = frozenset({UPTIME_BELOW_THRESHOLD})
MOST_CAUSES = 10
MOST_STEPS = 10
_VERDICT_TONES = {"good": "good", "poor": "poor", "first": "first", "excused": "excused"}


def render(view: HostView, secret: str) -> str:
    """Returns the text of the page. Addresses in it are relative to the page's own."""
    tone: str = view.state
    state = words.STATE_WORDS[view.state]
    if view.removed_at is not None:
        tone = "pending"
        state = f"Removed on {words.moment(view.removed_at)}"
    simulated = ""
    if view.simulated:
        simulated = f" {parts.SIMULATED}"
    expires = ""
    if view.expires_at is not None:
        expires = f"The link is good until {words.moment(view.expires_at)} UTC."
    return _PAGE.substitute(
        agent_id=escape(view.agent_id),
        simulated=simulated,
        expires=escape(expires),
        tone=tone,
        glyph=parts.glyph(tone),
        state=escape(state),
        as_of=words.moment(view.as_of),
        month_name=_month_name(view.month),
        months=_months(view, secret),
        month=_month(view),
        held=_held(view),
        gpus=_gpus(view),
        maintenance=_maintenance(view),
        pings=_pings(view),
        downloads=_downloads(view, secret),
    )


def _months(view: HostView, secret: str) -> str:
    links: list[str] = []
    before = month_beside(view.month, -1)
    if before >= f"{view.registered_at:%Y-%m}":
        links.append(f'<a href="{secret}?month={before}">{_month_name(before)}</a>')
    after = month_beside(view.month, 1)
    if after <= f"{view.as_of:%Y-%m}":
        links.append(f'<a href="{secret}?month={after}">{_month_name(after)}</a>')
    return " ".join(links)


def _month(view: HostView) -> str:
    month = view.own_month
    if month is None:
        return f'<p class="stale" role="status">{escape(view.problem or "")}</p>'
    finality = "provisional"
    if month.final:
        finality = "final"
    excused = "nothing excused"
    if month.excused_seconds:
        excused = f"{words.length(month.excused_seconds)} excused"
    lost = "nothing"
    lost_exactly = ""
    if month.lost_seconds:
        lost = words.length(month.lost_seconds)
        lost_exactly = _exact(month.lost_seconds)
    unjudged = f"{month.missed:,} missed, {month.excused:,} excused"
    figures = [
        _figure(
            "Uptime of the statement",
            words.percent(month.uptime_percent, 3),
            finality,
            kind="big",
        ),
        _figure("Judged", words.length(month.judged_seconds), excused),
        _figure("Lost", lost, lost_exactly),
        _figure("Pings", f"{month.pings:,}", unjudged),
    ]
    return (
        f'<dl class="figures">{"".join(figures)}</dl>'
        f'{parts.bars(month.days)}<p class="legend">{parts.legend()}</p>'
        f"{parts.day_list(month.days)}{_causes(month)}"
    )


def _causes(month: OwnMonth) -> str:
    if not month.causes:
        return ""
    rows = [_cause(cause) for cause in month.causes[:MOST_CAUSES]]
    more = len(month.causes) - len(rows)
    table = _table("What was lost, by cause", ("Lost to", "Times", "First", "Time", "Points"), rows)
    if more > 0:
        table += f'<p class="note">and {words.plural(more, "more cause")}</p>'
    return table


def _cause(cause: Cause) -> tuple[str, ...]:
    if cause.state == "unreported":
        what = "Asked and never answered"
    else:
        subject = "Host"
        if cause.gpu is not None and cause.index is None:
            subject = "GPU ?"
        elif cause.gpu is not None:
            subject = f"GPU {cause.index}"
        what = f"{subject} {cause.state}"
    if cause.reason:
        what += f": {reason_words(cause.reason)}"
    return (
        f'<td class="text">{escape(what)}</td>',
        f"<td>{cause.losses:,}</td>",
        f"<td>{words.moment(cause.since)}</td>",
        f"<td>{words.length(cause.seconds)}</td>",
        f"<td>{cause.points:.3f}</td>",
    )


def _held(view: HostView) -> str:
    conditions = view.conditions
    recovery = words.plural(conditions.recovery_pings, "good ping")
    poor = words.plural(view.consecutive_poor_uptime, "poor ping")
    figures = [
        _figure(
            "A ping is good from",
            f"{conditions.threshold_percent:g} %",
            "uptime of its window",
        ),
        _figure(
            "Pinged every",
            words.length(view.interval_minutes * 60),
            f"normally every {words.length(conditions.base_interval_minutes * 60)}",
        ),
        _figure(
            "After a poor ping",
            f"{conditions.multiplier:g} times longer",
            f"at most {words.length(conditions.max_interval_minutes * 60)}; now {poor} in a row",
        ),
        _figure("Back to normal after", recovery, "in a row"),
    ]
    return f'<dl class="figures">{"".join(figures)}</dl>{_steps(view.own_month)}'


def _steps(month: OwnMonth | None) -> str:
    if month is None or len(month.steps) < 2:
        return ""
    rows = [_step(step) for step in reversed(month.steps[-MOST_STEPS:])]
    return (
        f'<details class="day-list"><summary>{words.plural(len(month.steps) - 1, "change")} of the '
        f"interval in this month</summary>"
        f"{_table('Changes of the interval', ('From', 'Every', 'Poor pings in a row'), rows)}"
        "</details>"
    )


def _step(step: IntervalStep) -> tuple[str, ...]:
    return (
        f"<td>{words.moment(step.at)}</td>",
        f"<td>{words.length(step.interval_minutes * 60)}</td>",
        f"<td>{step.consecutive_poor_uptime}</td>",
    )


def _gpus(view: HostView) -> str:
    found = {gpu.uuid: gpu for gpu in view.gpus}
    uuids = [*view.expected_gpus, *(gpu.uuid for gpu in view.gpus if not gpu.expected)]
    if not uuids:
        return '<p class="nothing">None yet: those of the first report will be expected.</p>'
    rows: list[tuple[str, ...]] = []
    for uuid in uuids:
        gpu = found.get(uuid)
        state = "unknown"
        name = ""
        if gpu is not None:
            state = gpu.state
            name = gpu.name
        note = ", not expected"
        if uuid in view.expected_gpus:
            note = ""
        rows.append(
            (
                f'<td class="tone-{state} tone-cell">{state}{note}</td>',
                f"<td>{escape(name)}</td>",
                f"<td><code>{escape(uuid)}</code></td>",
            )
        )
    return _table("GPUs of the host", ("Last ping", "Name", "UUID"), rows)


def _maintenance(view: HostView) -> str:
    if not view.maintenance:
        return '<p class="nothing">None in this month, and none to come.</p>'
    items = "".join(_booked(one, view.as_of) for one in view.maintenance)
    return f'<ul class="incidents">{items}</ul>'


def _booked(one: OwnBooking, now: datetime) -> str:
    when = "over"
    if one.since > now:
        when = "to come"
    elif one.until > now:
        when = "going on"
    return (
        f'<li class="incident tone-maintenance">{parts.glyph("maintenance")}<div>'
        f"<p><strong>{escape(one.reason)}</strong> {when}</p>"
        f'<p class="note">{parts.span(one.since, one.until, now)}</p></div></li>'
    )


def _pings(view: HostView) -> str:
    if not view.pings_known:
        return '<p class="stale" role="status">They cannot be read at the moment.</p>'
    if not view.pings:
        return '<p class="nothing">None in the last 31 days.</p>'
    heads = ("Ping", "Outcome", "Uptime", "Window", "Up", "Not up", "Excused", "Answer")
    return _table("Pings", heads, [_ping(ping) for ping in view.pings])


def _ping(ping: OwnPing) -> tuple[str, ...]:
    tone = "missed"
    word = "missed"
    if ping.outcome != "missed":
        tone = _VERDICT_TONES[ping.verdict]
        word = ping.verdict
    if ping.reason and ping.reason not in _SAID_BY_FIGURES:
        word += f": {reason_words(ping.reason)}"
    up = lost = excused = words.NOTHING
    if ping.seconds is not None:
        up = _exact(ping.seconds.up + ping.seconds.degraded)
        lost = _exact(ping.seconds.down + ping.seconds.unknown)
        excused = _exact(ping.seconds.excused)
    window = "open"
    if ping.window_seconds is not None:
        window = _exact(ping.window_seconds)
    response = words.NOTHING
    if ping.response_ms is not None:
        response = f"{ping.response_ms:.0f} ms"
    return (
        f'<td>{ping.pinged_at:%d %b %H:%M:%S} <span class="quiet">#{ping.ping_seq}</span></td>',
        f'<td class="tone-{tone} tone-cell">{escape(word)}</td>',
        f"<td>{words.percent(ping.uptime_percent, 3)}</td>",
        f"<td>{window}</td>",
        f"<td>{up}</td>",
        f"<td>{lost}</td>",
        f"<td>{excused}</td>",
        f"<td>{response}</td>",
    )


def _downloads(view: HostView, secret: str) -> str:
    statement = f"{secret}/statement?month={view.month}&amp;format="
    links = (
        (f"{statement}html", "The statement, to print"),
        (f"{statement}csv", "Statement as CSV"),
        (f"{statement}json", "Statement as JSON"),
        (f"{statement}bundle", "Evidence of the month: the signed reports"),
        (f"{secret}/history?hours=744&amp;format=csv", "Pings of 31 days as CSV"),
        (f"{secret}.json?month={view.month}", "This page as JSON"),
    )
    return " ".join(f'<a href="{address}">{text}</a>' for address, text in links)


def _table(label: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return _TABLE.substitute(label=label, heads=cells, rows=body)


def _figure(
    name: str,
    value: str,
    note: str = "",
    kind: str = "",
) -> str:
    css_class = ""
    if kind:
        css_class = f' class="{kind}"'
    below = ""
    if note:
        below = f'<dd class="note">{escape(note)}</dd>'
    return _FIGURE.substitute(kind=css_class, name=name, value=escape(value), note=below)


def _exact(seconds: float) -> str:
    return f"{seconds:,.3f} s"


def _month_name(month: str) -> str:
    return f"{date.fromisoformat(f'{month}-01'):%B %Y}"
