"""Parts of the pages that need no login, as HTML without scripts. Pure.

Every text that comes from elsewhere is escaped here.
"""

from collections.abc import Iterable
from datetime import datetime
from html import escape
from string import Template

from gateway.public import words
from gateway.public.status_page import ShownDay

GOOD_PERCENT = 99.0
POOR_PERCENT = 90.0
LEVELS = 10
SIMULATED = '<span class="simulated">simulated GPUs</span>'  # beside a host's name
MANY_DAYS = 45  # narrow screens show so many, the newest

# as gateway/static/js/parts/glyph.js: colour is never the only sign
_SHAPES = {
    "up": "M3.2 8.4l3.1 3.1 6.5-7",
    "degraded": "M8 2.5L14.2 13.5H1.8zM8 6.8v2.6M8 11.4h.01",
    "down": "M4 4l8 8M12 4l-8 8",
    "maintenance": "M5 3v10M11 3v10",
    "pending": "M3 8h.01M8 8h.01M13 8h.01",
}
_GLYPH = Template(
    '<svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d="$shape"/></svg>'
)
_DAY = Template(
    '<li class="d-$tone l$level" title="$words"><span class="spoken">$words</span></li>'
)
_DAY_ROW = Template("<tr><td>$day</td><td>$uptime</td><td>$lost</td><td>$excused</td></tr>")
_DAY_TABLE = Template(
    '<details class="day-list"><summary>$summary</summary><div class="wide" tabindex="0" '
    'role="region" aria-label="Days"><table><thead><tr><th scope="col">Day</th>'
    '<th scope="col">Uptime</th><th scope="col">Lost</th><th scope="col">Maintenance</th></tr>'
    "</thead><tbody>$rows</tbody></table></div></details>"
)
LEGEND = (
    ("whole", "nothing lost"),
    ("up", f"at least {GOOD_PERCENT:g} %"),
    ("degraded", f"at least {POOR_PERCENT:g} %"),
    ("down", "less"),
    ("maintenance", "maintenance"),
    ("none", "nothing known"),
)


def glyph(state: str) -> str:
    """The sign of a state."""
    return _GLYPH.substitute(shape=_SHAPES.get(state, _SHAPES["pending"]))


def chip(state: str) -> str:
    """The state of a host as a label."""
    return f'<span class="chip tone-{state}">{glyph(state)}{words.STATE_WORDS[state]}</span>'


def bars(days: Iterable[ShownDay]) -> str:
    """A bar for each day. Its height is the uptime, and its text can be read aloud."""
    items = [
        _DAY.substitute(tone=day_tone(day), level=_level(day), words=escape(day_words(day)))
        for day in days
    ]
    kind = "bars"
    if len(items) > MANY_DAYS:
        kind = "bars many"
    return f'<ol class="{kind}">{"".join(items)}</ol>'


def legend() -> str:
    """What the colours of the bars mean."""
    return " ".join(f'<span><i class="d-{tone}"></i>{escape(text)}</span>' for tone, text in LEGEND)


def day_tone(day: ShownDay) -> str:
    """The class of a day's colour."""
    uptime = day.uptime_percent
    if uptime is None and day.excused_seconds:
        return "maintenance"
    if uptime is None:
        return "none"
    if uptime >= 100.0:
        return "whole"
    if uptime >= GOOD_PERCENT:
        return "up"
    if uptime >= POOR_PERCENT:
        return "degraded"
    return "down"


def day_words(day: ShownDay) -> str:
    """A day in words."""
    name = words.day_name(day.day)
    extra = ""
    if day.excused_seconds >= 1:
        extra = f", {words.length(day.excused_seconds)} of maintenance"
    if day.uptime_percent is None and extra:
        return f"{name}: nothing judged{extra}"
    if day.uptime_percent is None:
        return f"{name}: nothing known"
    lost = ""
    if day.lost_seconds > 0:
        lost = f", {words.length(day.lost_seconds)} lost"
    return f"{name}: {words.percent(day.uptime_percent)}{lost}{extra}"


def day_list(days: Iterable[ShownDay]) -> str:
    """The days on which something was lost or maintained, as a table to be opened."""
    listed = [day for day in days if day.lost_seconds > 0 or day.excused_seconds > 0]
    if not listed:
        return ""
    rows = [
        _DAY_ROW.substitute(
            day=words.day_name(day.day),
            uptime=words.percent(day.uptime_percent, 3),
            lost=words.length_or_nothing(day.lost_seconds),
            excused=words.length_or_nothing(day.excused_seconds),
        )
        for day in reversed(listed)
    ]
    summary = f"{words.plural(len(listed), 'day')} with time lost or maintained"
    return _DAY_TABLE.substitute(summary=summary, rows="".join(rows))


def span(
    since: datetime,
    until: datetime | None,
    now: datetime,
) -> str:
    """From when to when, and how long."""
    begin = words.short_moment(since, now)
    if until is None:
        return f"since {begin}, for {words.length((now - since).total_seconds())}"
    end = words.short_moment(until, now)
    if until.date() == since.date():
        end = f"{until:%H:%M}"
    return f"{begin} to {end}, {words.length((until - since).total_seconds())}"


def _level(day: ShownDay) -> int:
    """The height of a day's bar, 1 to LEVELS; the full height where nothing was judged."""
    if day.uptime_percent is None:
        return LEVELS
    return max(1, int(day.uptime_percent / 100 * LEVELS))
