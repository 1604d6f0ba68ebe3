"""The words of a notification: one title, and a line for each change. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from bus.contract.alerts import AlertChange, Labels, RuleName

MOST_LINES = 50


class _Words(NamedTuple):
    """Behind a name in the singular, and behind a number of hosts in the plural."""

    one: str
    many: str
    one_ended: str
    many_ended: str


_WORDS: dict[RuleName, _Words] = {
    "poor": _Words(
        "has too little uptime",
        "with too little uptime",
        "has enough uptime again",
        "have enough uptime again",
    ),
    "missing": _Words("is missing", "missing", "answers again", "answer again"),
    "escalated": _Words(
        "is pinged at the longest interval",
        "pinged at the longest interval",
        "is pinged more often again",
        "are pinged more often again",
    ),
    "recovered": _Words("has recovered", "recovered", "has recovered", "have recovered"),
    "gpu-incident": _Words(
        "has a GPU incident",
        "with GPU incidents",
        "has no such GPU incident any more",
        "have no such GPU incidents any more",
    ),
    "gpu-set-changed": _Words(
        "has other GPUs than expected",
        "with other GPUs than expected",
        "has the expected GPUs again",
        "have the expected GPUs again",
    ),
    "twin": _Words(
        "is one id of two hosts",
        "that are one id of two hosts",
        "is one host again",
        "are one host each again",
    ),
    "disconnected": _Words(
        "is disconnected",
        "disconnected",
        "is connected again",
        "are connected again",
    ),
    "storage-lag": _Words(
        "has a history that lags behind",
        "with a history that lags behind",
        "has its whole history again",
        "have their whole history again",
    ),
    "disk": _Words(
        "has little room on its disk",
        "with little room on their disks",
        "has room on its disk again",
        "have room on their disks again",
    ),
    "clock": _Words(
        "has a wrong clock",
        "with wrong clocks",
        "has a right clock again",
        "have right clocks again",
    ),
    "certificate": _Words(
        "knows a certificate that expires",
        "that know certificates that expire",
        "knows certificates that last again",
        "know certificates that last again",
    ),
    "credential": _Words(
        "knows credentials that expire",
        "that know credentials that expire",
        "knows credentials that last again",
        "know credentials that last again",
    ),
    "maintenance-budget": _Words(
        "has little of its maintenance budget left",
        "with little of their maintenance budget left",
        "has maintenance budget again",
        "have maintenance budget again",
    ),
}


def title(changes: Sequence[AlertChange], group: Labels) -> str:
    """One line about all changes of a group, such as `14 hosts of site FRA missing since 12:03`.

    All are of one rule and one kind; `group` are the labels that they have in common.
    """
    first = changes[0]
    words = _WORDS[first.rule]
    is_end = first.kind == "ended"
    names = {change.about for change in changes}
    if len(names) == 1:
        said = f"{first.about} {words.one_ended if is_end else words.one}"
    else:
        of = "".join(f" of {name} {value}" for name, value in group.items())
        said = f"{len(names)} hosts{of} {words.many_ended if is_end else words.many}"
    reasons = sorted({change.labels["reason"] for change in changes if "reason" in change.labels})
    if reasons:
        said += f" ({', '.join(reasons[:5])})"
    if is_end:
        return f"{said} since {_clock(min(change.at for change in changes))}"
    if first.kind == "happened":
        return f"{said} at {_clock(max(change.at for change in changes))}"
    return f"{said} since {_clock(min(change.since for change in changes))}"


def text(changes: Sequence[AlertChange]) -> str:
    """A line for each change, MOST_LINES at most."""
    lines = []
    for change in changes[:MOST_LINES]:
        line = f"{change.about}: {change.rule}"
        if change.kind == "ended":
            line += " ended"
        if change.detail:
            line += f", {change.detail}"
        lines.append(f"{line} ({change.since:%Y-%m-%d %H:%M:%S} UTC)")
    left = len(changes) - MOST_LINES
    if left > 0:
        lines.append(f"and {left} more")
    return "\n".join(lines)


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
