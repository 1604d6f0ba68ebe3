"""A status page as HTML: plain, without scripts, and without any other address. Pure."""

from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from bus.contract.publishing import INCIDENT_DAYS, STATUS_DAYS
from gateway.public import parts, words
from gateway.public.status_page import (
    ShownHost,
    ShownIncident,
    ShownMaintenance,
    StatusView,
)

_PAGE = Template(Path(__file__).with_name("status.html").read_text(encoding="utf-8"))
_HOST = Template(
    '<article class="host"><div class="host-head"><h3>$name</h3>$chip</div>$bars'
    '<p class="bars-axis"><span class="all-days">$days days ago</span>'
    '<span class="fewer-days">$fewer days ago</span>'
    "<b>$uptime</b><span>today</span></p>$list</article>"
)
_INCIDENT = Template(
    '<li class="incident tone-$tone">$glyph<div><p><strong>$host</strong> $what</p>'
    '<p class="note">$span</p></div></li>'
)
_MAINTENANCE = Template(
    '<li class="incident tone-maintenance">$glyph<div><p><strong>$hosts</strong> $when</p>'
    '<p class="note">$span</p></div></li>'
)


def render(view: StatusView) -> str:
    """Returns the text of the page."""
    return _PAGE.substitute(
        name=escape(view.name),
        title=escape(view.title),
        summary=escape(view.summary),
        tone=view.state,
        glyph=parts.glyph(view.state),
        as_of=f"{'Known at' if view.stale else 'As of'} {words.moment(view.as_of)}",
        notes=_notes(view),
        days=STATUS_DAYS,
        hosts="\n".join(_host(host) for host in view.hosts) or _nothing("There is no host here."),
        legend=parts.legend(),
        maintenance=_maintenance(view),
        incident_days=INCIDENT_DAYS,
        incidents=_incidents(view),
    )


def _notes(view: StatusView) -> str:
    notes: list[str] = []
    if view.stale:
        notes.append(
            "This page cannot be brought up to date at the moment. It shows what was known at "
            f"{words.moment(view.as_of)} UTC."
        )
    if view.history_as_of is None:
        notes.append("Days and incidents cannot be shown at the moment.")
    elif view.history_stale and not view.stale:
        notes.append(
            "Days and incidents cannot be brought up to date at the moment. They show what was "
            f"known at {words.moment(view.history_as_of)} UTC."
        )
    return "".join(f'<p class="stale" role="status">{escape(note)}</p>' for note in notes)


def _host(host: ShownHost) -> str:
    name = escape(host.name)
    if isinstance(host.agent_id, str) and host.agent_id != host.name:
        name += f" <code>{escape(host.agent_id)}</code>"
    if host.simulated:
        name += f" {parts.SIMULATED}"
    return _HOST.substitute(
        name=name,
        chip=parts.chip(host.state),
        bars=parts.bars(host.days),
        days=STATUS_DAYS,
        fewer=parts.MANY_DAYS,
        uptime=f"{words.percent(host.uptime_percent)} uptime"
        if host.uptime_percent is not None
        else "no uptime yet",
        list=parts.day_list(host.days),
    )


def _incidents(view: StatusView) -> str:
    if view.history_as_of is None:
        return _nothing("They cannot be shown at the moment.")
    if not view.incidents:
        return _nothing(f"None. Since {_begin(view.as_of)} nothing went wrong.")
    items = "".join(_incident(one, view.as_of) for one in view.incidents)
    more = view.incidents_total - len(view.incidents)
    if more > 0:
        items += f'<li class="note">and {words.plural(more, "earlier incident")}</li>'
    return f'<ul class="incidents">{items}</ul>'


def _incident(one: ShownIncident, now: datetime) -> str:
    return _INCIDENT.substitute(
        tone=one.state,
        glyph=parts.glyph(one.state),
        host=escape(one.host),
        what=escape(_lower(one.what)),
        span=_when(one, now),
    )


def _when(one: ShownIncident, now: datetime) -> str:
    if one.times == 1:
        return parts.span(one.since, one.until, now)
    day = words.day_name(one.since.date())
    return f"{day}, {one.times} times, {words.length(one.seconds)} in all"


def _maintenance(view: StatusView) -> str:
    if not view.maintenance:
        return ""
    items = "".join(_booked(one, view.as_of) for one in view.maintenance)
    return (
        '<section aria-labelledby="maintenance"><h2 id="maintenance">Planned maintenance</h2>'
        f'<ul class="incidents">{items}</ul></section>'
    )


def _booked(one: ShownMaintenance, now: datetime) -> str:
    when = "was maintained"
    if one.since > now:
        when = "will be maintained"
    elif one.until > now:
        when = "is being maintained"
    if len(one.hosts) > 1:
        when = when.replace("was", "were").replace("is ", "are ")
    return _MAINTENANCE.substitute(
        glyph=parts.glyph("maintenance"),
        hosts=escape(_listed(one.hosts)),
        when=when,
        span=parts.span(one.since, one.until, now),
    )


def _listed(hosts: tuple[str, ...]) -> str:
    """Names in a sentence; of many the first few."""
    if len(hosts) > 4:
        return f"{', '.join(hosts[:3])} and {len(hosts) - 3} more"
    if len(hosts) == 1:
        return hosts[0]
    return f"{', '.join(hosts[:-1])} and {hosts[-1]}"


def _lower(text: str) -> str:
    """`The host was down` after the host's name: `was down`; `A GPU ...` becomes `: a GPU ...`."""
    if text.startswith("The host "):
        return text.removeprefix("The host ")
    return f"– {text[0].lower()}{text[1:]}"  # noqa: RUF001


def _begin(now: datetime) -> str:
    days = words.last_days(now, INCIDENT_DAYS)
    return words.day_name(days[0])


def _nothing(text: str) -> str:
    return f'<p class="nothing">{escape(text)}</p>'
