"""What the rules say of one change: whether it is told, how severe it is, and to whom. Pure."""

from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import NamedTuple
from zoneinfo import ZoneInfo

from bus.contract.alerts import AlertChange, Labels, RuleName, Severity
from gpuping.alerts.rules.alerts_file import (
    AlertsFile,
    Match,
    Route,
    Rule,
    ready_made,
    ready_made_threshold,
)

RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}


class Decision(NamedTuple):
    """Whether a change is told, and how severe it is."""

    is_told: bool
    severity: Severity


class Rulebook:
    """The rules of an alerts file before the ready-made ones."""

    def __init__(self, file: AlertsFile) -> None:
        self.file = file
        self._routes = file.route
        if not file.route and file.target:
            everybody = tuple(target.name for target in file.target)
            self._routes = (Route(targets=everybody),)

    def threshold(self, rule: RuleName, name: str) -> float:
        """A rule's limit, such as `minutes`; the first rule that names it counts."""
        for own in self.file.rule:
            value: float | None = getattr(own, name)
            if own.on == rule and value is not None:
                return value
        ready = ready_made_threshold(rule, name)
        assert ready is not None  # noqa: S101  # callers ask for thresholds that exist
        return ready

    def decide(
        self,
        rule: RuleName,
        labels: Labels,
        *,
        is_end: bool = False,
    ) -> Decision:
        """What the first rule of the file that fits says, else the first ready-made one."""
        own = _first(self.file.rule, rule, labels)
        ready = _first(ready_made(), rule, labels)
        enabled, severity, resolved = ready.enabled, ready.severity, ready.resolved
        if own.enabled is not None:
            enabled = own.enabled
        if own.severity is not None:
            severity = own.severity
        if own.resolved is not None:
            resolved = own.resolved
        is_told = enabled is not False
        if is_end and not resolved:
            is_told = False
        return Decision(is_told, severity or "warning")

    def routes(self, change: AlertChange, severity: Severity) -> dict[str, Route]:
        """The targets that are told of a change, each with the first route that names it."""
        found: dict[str, Route] = {}
        for route in self._routes:
            if route.rules and change.rule not in route.rules:
                continue
            if RANK[severity] < RANK[route.severity] or not fits(route.match, labels_of(change)):
                continue
            for target in route.targets:
                found.setdefault(target, route)
        return found


def _first(rules: tuple[Rule, ...], rule: RuleName, labels: Labels) -> Rule:
    """The first rule that fits, or one that says nothing."""
    for one in rules:
        if one.on == rule and fits(one.match, labels):
            return one
    return Rule(on=rule)


def labels_of(change: AlertChange) -> Labels:
    """Everything that a route, a rule or a silence can ask of a change."""
    return change.labels | {"rule": change.rule, "about": change.about, "kind": change.kind}


def fits(match: Match, labels: Labels) -> bool:
    """Whether all these labels are there, with these values; `*` and `?` are wildcards."""
    for name, pattern in match.items():
        if name not in labels or not fnmatchcase(labels[name], pattern):
            return False
    return True


def quiet_until(route: Route, now: datetime) -> datetime | None:
    """When the quiet hours end that go on now; None where there are none."""
    if route.quiet is None:
        return None
    begin, end = (time.fromisoformat(part) for part in route.quiet.split("-"))
    zone = ZoneInfo(route.zone)
    local = now.astimezone(zone)
    for day in (local.date() - timedelta(days=1), local.date()):
        began = datetime.combine(day, begin, zone)
        until = datetime.combine(day, end, zone)
        if end <= begin:
            until = datetime.combine(day + timedelta(days=1), end, zone)
        if began <= local < until:
            return until
    return None
