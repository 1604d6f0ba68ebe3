"""Which changes go into a notification now, which wait, and which nobody wants. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from bus.contract.alerts import AlertChange, Labels, Severity, Silence
from bus.contract.messages import encode
from gpuping.alerts.board import Kept
from gpuping.alerts.rules.alerts_file import Route
from gpuping.alerts.rules.rulebook import Rulebook, fits, labels_of, quiet_until

MOST_CHANGES = 500  # in one notification; an atomic batch holds 1,000 writes
# Of the changes of one notification: each has all labels of its host, and a message has 1 MB.
MOST_BYTES = 500_000

Change = Kept[AlertChange]


class Group(NamedTuple):
    """Changes that belong into one message to one target."""

    target: str
    severity: Severity
    labels: Labels
    changes: list[Change]


class Plan(NamedTuple):
    """`groups` are sent now; `settled` can be forgotten; `held` changes wait."""

    groups: list[Group]
    settled: list[Change]
    held: int


class _Key(NamedTuple):
    target: str
    rule: str
    kind: str
    severity: Severity
    labels: tuple[tuple[str, str], ...]


def plan(
    changes: Iterable[Change],
    rulebook: Rulebook,
    silences: Iterable[Silence],
    now: datetime,
) -> Plan:
    """Decides on every change that is still to be told."""
    waiting = list(changes)
    in_force = [silence for silence in silences if silence.until > now]
    untold = _untold_ends(waiting, in_force)
    gathered: dict[_Key, list[Change]] = {}
    settled: list[Change] = []
    held = 0
    for change in waiting:
        wanted = _wanted(change, rulebook)
        if not wanted or change.value.change_id in untold:
            settled.append(change)
            continue
        if is_silenced(labels_of(change.value), in_force):
            held += 1
            continue
        severity = _severity(change, rulebook)
        for target, route in wanted.items():
            if severity != "critical" and quiet_until(route, now) is not None:
                held += 1
                continue
            key = _key(change.value, target, route, severity)
            gathered.setdefault(key, []).append(change)
    groups = []
    for key, members in gathered.items():
        if _is_ripe(members, rulebook, now):
            groups += _groups(key, members)
        else:
            held += len(members)
    return Plan(groups, settled, held)


def remaining(change: Change, rulebook: Rulebook) -> set[str]:
    """The targets that are still to be told of a change."""
    return set(_wanted(change, rulebook))


def is_silenced(labels: Labels, silences: Iterable[Silence]) -> bool:
    """Whether one of these silences is about something with these labels."""
    return any(fits(silence.match, labels) for silence in silences)


def _wanted(change: Change, rulebook: Rulebook) -> dict[str, Route]:
    value = change.value
    decision = rulebook.decide(value.rule, value.labels, is_end=value.kind == "ended")
    if not decision.is_told:
        return {}
    routes = rulebook.routes(value, decision.severity)
    for target in value.done:
        routes.pop(target, None)
    return routes


def _severity(change: Change, rulebook: Rulebook) -> Severity:
    return rulebook.decide(change.value.rule, change.value.labels).severity


def _untold_ends(changes: list[Change], silences: list[Silence]) -> set[str]:
    """What began and ended while it was silenced, which nobody needs to be told of any more."""
    began: dict[tuple[str, str], str] = {}
    untold: set[str] = set()
    for change in changes:
        value = change.value
        if not is_silenced(labels_of(value), silences):
            continue
        key = (value.about, value.condition)
        if value.kind == "began" and not value.done:
            began[key] = value.change_id
        elif value.kind == "ended" and key in began:
            untold |= {began.pop(key), value.change_id}
    return untold


def _key(
    change: AlertChange,
    target: str,
    route: Route,
    severity: Severity,
) -> _Key:
    common = []
    for name in route.group_by:
        if name in change.labels:
            common.append((name, change.labels[name]))
    return _Key(target, change.rule, change.kind, severity, tuple(common))


def _is_ripe(members: list[Change], rulebook: Rulebook, now: datetime) -> bool:
    if len(members) >= MOST_CHANGES:
        return True
    first = min(change.value.recorded_at for change in members)
    return now - first >= timedelta(seconds=rulebook.file.group_seconds) or first > now


def _groups(key: _Key, members: list[Change]) -> list[Group]:
    """As few groups as hold all members, none larger than a message of the bus."""
    parts: list[list[Change]] = [[]]
    size = 0
    for member in members:
        member_size = len(encode(member.value))
        is_full = len(parts[-1]) == MOST_CHANGES or size + member_size > MOST_BYTES
        if is_full and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(member)
        size += member_size
    return [Group(key.target, key.severity, dict(key.labels), part) for part in parts]
