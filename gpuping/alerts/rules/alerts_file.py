"""The alerts file: targets, routes and rules, in TOML, read strictly.

    group_seconds = 15                   # how long changes are collected into one message

    [[target]]
    name = "ops-mail"
    url = "mailtos://user:password@smtp.example.org?to=ops@example.org"    # any URL of apprise

    [[target]]
    name = "pager"
    webhook = "https://pager.example.org/gpuping"
    secret = "whsec_..."                 # signs what is sent

    [[route]]
    targets = ["pager"]
    severity = "critical"

    [[rule]]
    on = "missing"
    match = {site = "LAB"}
    enabled = false

Without a route every target is told of everything. The ready-made rules are in
`gpuping/alerts/rules/ready_made.toml`.
"""

import base64
import binascii
import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from bus.contract.alerts import RuleName, Severity
from bus.contract.subjects import END
from bus.errors import SettingsError

SECRET_PREFIX = "whsec_"  # noqa: S105  # how the secrets of signed webhooks begin
SHORTEST_SECRET = 16
THRESHOLDS = ("minutes", "percent", "days", "outcomes", "seconds")
MAX_CERTIFICATES = 100

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}" + END)]
Match = dict[str, str]
Threshold = Annotated[float, Meta(ge=0, le=1e9)]
Hours = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d" + END)]


class Target(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Whom to tell: an URL of apprise, or a webhook and the secret that signs what it is sent."""

    name: Name
    url: str | None = None
    webhook: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Target({self.name})"


class Rule(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is told of one kind of change. None stands for what the ready-made rule says."""

    on: RuleName
    match: Match = {}
    enabled: bool | None = None
    severity: Severity | None = None
    resolved: bool | None = None
    minutes: Threshold | None = None
    percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    days: Threshold | None = None
    outcomes: Threshold | None = None
    seconds: Threshold | None = None


class Route(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which targets are told of what.

    `severity` is the lowest that is told. Changes with the same values of the labels `group_by`
    come in one message. In quiet hours, which are those of `zone`, only critical ones are told; the
    others follow when those hours end.
    """

    targets: Annotated[tuple[Name, ...], Meta(min_length=1)]
    match: Match = {}
    rules: tuple[RuleName, ...] = ()
    severity: Severity = "info"
    group_by: tuple[str, ...] = ("site",)
    quiet: Hours | None = None
    zone: str = "UTC"


class AlertsFile(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole file. `certificates` are more addresses (`host:port`) whose expiry is watched."""

    group_seconds: Annotated[float, Meta(ge=0, le=3600)] = 15.0
    certificates: Annotated[tuple[str, ...], Meta(max_length=MAX_CERTIFICATES)] = ()
    target: tuple[Target, ...] = ()
    route: tuple[Route, ...] = ()
    rule: tuple[Rule, ...] = ()


@cache
def ready_made() -> tuple[Rule, ...]:
    """The rules that apply unless a file says otherwise."""
    text = resources.files(__package__).joinpath("ready_made.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), AlertsFile).rule


def parse(text: str, setting: str) -> AlertsFile:
    """Reads a file's text. Raises SettingsError, one line that begins with `setting`.

    What it says never shows the address or the secret of a target.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{setting}: no TOML: {error}") from None
    try:
        file = msgspec.convert(content, AlertsFile)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{setting}: {_sentence(content, error)}") from None
    for problem in _problems(file):
        raise SettingsError(f"{setting}: {problem}")
    return file


def _sentence(content: dict[str, Any], error: msgspec.ValidationError) -> str:
    """The error with the name of the target, or the rule, instead of only its number."""
    text = str(error).replace("`", "")
    for table, key in (("target", "name"), ("rule", "on")):
        entries = content.get(table)
        if not isinstance(entries, list):
            continue
        for number, entry in enumerate(entries):
            named = entry.get(key) if isinstance(entry, dict) else None
            if f"$.{table}[{number}]" in text and isinstance(named, str):
                return f"{text} ({table} {named!r})"
    return text


def _problems(file: AlertsFile) -> list[str]:
    """What is wrong with a file whose every part is right by itself."""
    names = [target.name for target in file.target]
    problems = []
    for name in names:
        if names.count(name) > 1:
            problems.append(f"two targets are called {name!r}")
    for target in file.target:
        problems += _problems_of_target(target)
    for route in file.route:
        problems += _problems_of_route(route, names)
    for rule in file.rule:
        problems += _problems_of_rule(rule)
    for address in file.certificates:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            problems.append(f"certificates: expected host:port, got {address!r}")
    return problems


def _problems_of_target(target: Target) -> list[str]:
    problem = None
    if (target.url is None) == (target.webhook is None):
        problem = "expected either url or webhook"
    elif target.webhook is not None:
        problem = _problem_of_webhook(target.webhook, target.secret)
    elif target.secret is not None:
        problem = "a secret belongs to a webhook"
    elif "://" not in (target.url or ""):
        problem = "expected an URL of apprise, such as mailto://..."
    if problem is None:
        return []
    return [f"target {target.name!r}: {problem}"]


def _problem_of_webhook(url: str, secret: str | None) -> str | None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "expected a webhook like https://example.org/alerts"
    if secret is None:
        return "a webhook needs a secret: `openssl rand -hex 32`"
    try:
        key = secret_key(secret)
    except ValueError:
        return f"what follows {SECRET_PREFIX} in its secret is no base64"
    if len(key) < SHORTEST_SECRET:
        return f"its secret needs {SHORTEST_SECRET} bytes or more"
    return None


def _problems_of_route(route: Route, names: list[str]) -> list[str]:
    problems = []
    for name in route.targets:
        if name not in names:
            problems.append(f"a route names the target {name!r}, which is not in the file")
    try:
        ZoneInfo(route.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(f"zone {route.zone!r}: expected one like Europe/Berlin")
    return problems


def _problems_of_rule(rule: Rule) -> list[str]:
    problems = []
    for threshold in THRESHOLDS:
        if (
            getattr(rule, threshold) is not None
            and ready_made_threshold(rule.on, threshold) is None
        ):
            problems.append(f"rule {rule.on!r}: it has no {threshold}")
    return problems


def ready_made_threshold(on: RuleName, threshold: str) -> float | None:
    """The value of a ready-made rule; None where the rule has no such threshold."""
    for rule in ready_made():
        if rule.on == on:
            value: float | None = getattr(rule, threshold)
            return value
    return None


def secret_key(secret: str) -> bytes:
    """The bytes of a webhook's secret: base64 behind `whsec_`, else the text itself.

    Raises ValueError for what is no base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
