"""States, incidents and times in plain words, for people who know nothing of gpuping. Pure."""

from datetime import date, datetime, timedelta

from bus.contract.publishing import SILENT, HostIncident
from bus.contract.questions import Agent
from bus.contract.reasons import reason_words

HostState = str  # one of STATE_WORDS
STATE_WORDS = {
    "up": "Up",
    "degraded": "Degraded",
    "down": "Down",
    "maintenance": "Maintenance",
    "pending": "Not seen yet",
}
MISSING = "missing"
# reasons that name parts of gpuping, which the public does not know
_PUBLIC_REASONS = {
    "not-running": "its monitoring did not run",
    "starting": "its monitoring had just started",
    "probe-starting": "its monitoring had just started",
    "probe-died": "its monitoring failed",
    "no-sample": "its monitoring was late",
}
NOTHING = "–"  # noqa: RUF001  # an en dash, as a table shows "none"
_SPACE = "\u00a0"  # keeps a number and its unit on one line


def host_state(agent: Agent) -> HostState:
    """How a host is now, by its last ping and its GPUs."""
    if agent.status in {"maintenance", "pending"}:
        return agent.status
    if agent.status == MISSING:
        return "down"
    states = {gpu.state for gpu in agent.gpus if gpu.expected}
    if not states or states & {"down", "unknown"}:
        return "down"
    if "degraded" in states:
        return "degraded"
    return "up"


def summary(states: list[HostState]) -> str:
    """A sentence about all hosts of a page."""
    if not states:
        return "There is no host on this page"
    if len(states) == 1:
        return {
            "up": "Everything is up",
            "degraded": "Up, with degraded performance",
            "down": "Down",
            "maintenance": "Planned maintenance",
            "pending": "Not seen yet",
        }[states[0]]
    total = len(states)
    for state, word in (("down", "down"), ("degraded", "degraded"), ("maintenance", "maintained")):
        count = states.count(state)
        if count == total:
            return f"All {total} hosts are {word}"
        if count:
            verb = "are"
            if count == 1:
                verb = "is"
            return f"{count} of {total} hosts {verb} {word}"
    if "pending" in states:
        return f"{states.count('pending')} of {total} hosts were not seen yet"
    return f"All {total} hosts are up"


def worst(states: list[HostState]) -> HostState:
    """The state of a page: that of its worst host."""
    for state in ("down", "degraded", "maintenance", "pending"):
        if state in states:
            return state
    if states:
        return "up"
    return "pending"


def incident_words(incident: HostIncident) -> str:
    """What happened, without naming a GPU."""
    if incident.reason == SILENT:
        return "The host did not answer"
    subject = "The host"
    verb = "was"
    if incident.gpus == 1:
        subject = "A GPU"
    elif incident.gpus > 1:
        subject = f"{incident.gpus} GPUs"
        verb = "were"
    what = {
        "down": f"{verb} down",
        "degraded": f"{verb} degraded",
        "unknown": f"{verb} not seen",
    }.get(incident.state, incident.state)
    if not incident.reason:
        return f"{subject} {what}"
    reason = _PUBLIC_REASONS.get(incident.reason) or reason_words(incident.reason)
    return f"{subject} {what}: {reason}"


def length(seconds: float) -> str:
    """A duration in at most two units, cut: `3 minutes`, `2 h 5 min`, `4 d 2 h`."""
    whole = int(seconds)
    if whole < 1:
        return "less than a second"
    if whole < 60:
        return plural(whole, "second")
    minutes, _ = divmod(whole, 60)
    if minutes < 60:
        return plural(minutes, "minute")
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        text = f"{hours} h"
        if minutes:
            text += f" {minutes} min"
        return text
    days, hours = divmod(hours, 24)
    if not hours:
        return plural(days, "day")
    return f"{days} d {hours} h"


def length_or_nothing(seconds: float) -> str:
    """A duration, or a dash for none at all."""
    if not seconds:
        return NOTHING
    return length(seconds)


def plural(count: int, noun: str) -> str:
    """A number with its noun: `1 host`, `2 hosts`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}s"


def percent(value: float | None, places: int = 2) -> str:
    """A percentage, cut and not rounded: 99.999 is never shown as 100. A dash for None."""
    if value is None:
        return NOTHING
    if value >= 100.0:
        return f"100{_SPACE}%"
    scale = 10**places
    return f"{int(value * scale) / scale:.{places}f}{_SPACE}%"


def moment(at: datetime) -> str:
    """A time in UTC to the minute, as `26 Nov 2026, 21:58`."""
    return f"{at.day} {at:%b %Y, %H:%M}"


def short_moment(at: datetime, now: datetime) -> str:
    """A time in UTC; the year is left out where it is this one."""
    if at.year == now.year:
        return f"{at.day} {at:%b, %H:%M}"
    return moment(at)


def day_name(day: date) -> str:
    """A day, as `26 Nov`."""
    return f"{day.day} {day:%b}"


def last_days(until: datetime, count: int) -> list[date]:
    """The newest `count` days, oldest first."""
    today = until.date()
    return [today - timedelta(days=back) for back in range(count - 1, -1, -1)]
