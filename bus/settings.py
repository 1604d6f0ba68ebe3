"""Every setting of the system, read from the environment once, at start.

A bad value, or an unknown name that looks like a setting, is refused in one line with exit code 2.
A setting that was ignored silently would be noticed only when somebody is paid too little.
"""

import difflib
import errno
import os
import re
import socket
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from bus.addresses import has_host_and_port
from bus.contract.subjects import AGENT_ID_PATTERN, RESERVED_IDS
from bus.errors import SettingsError
from bus.networks import AskableNetworks
from bus.redaction import HIDDEN, redact, redact_address

Positive = Annotated[float, Meta(gt=0.0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Percentage = Annotated[float, Meta(ge=0.0, le=100.0)]
Days = Annotated[int, Meta(ge=1, le=36_500)]
AgentIdSetting = Annotated[str, Meta(pattern=AGENT_ID_PATTERN)]

_PREFIXES = (
    "PING_",
    "AGENT_",
    "GPUPING_",
    "GATEWAY_",
    "STORAGE_",
    "SCHEDULER_",
    "ENROLMENT_",
    "ALERTS_",
    "NATS_",
)
_EXCLUSIVE_PREFIXES = ("GPUPING_", "PING_")  # no other program has variables that begin with these
_LOOSE_NUMBER = re.compile(r"\+?\.\d+|\+?\d+\.|\+\d+(\.\d+)?")  # `.5`, `5.` and `+5`
_NO_NUMBER = {"nan", "inf", "infinity"}  # floats to the parser, and nothing that a setting can mean
_BUS_ADDRESS = re.compile(r"((nats|tls|ws|wss)://)?[^/\s]+/?")
_PUBLIC_URL = re.compile(
    r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
_UNDECODED = re.compile("[\ud800-\udfff]")  # how Python reads bytes that are not UTF-8
_SECRET_NAME = re.compile(r"TOK|SECRET|PASS|KEY|CRED")  # its value is never shown
_WILDCARD = re.compile(r"[*?\[]")
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Settings(Struct, kw_only=True, frozen=True):
    """Every setting: its name in the environment and its default (docs/operations.md#settings)."""

    PING_BASE_INTERVAL_MINUTES: Positive = 15.0
    PING_UPTIME_THRESHOLD: Percentage = 99.0
    PING_ESCALATION_MULTIPLIER: Annotated[float, Meta(ge=1.0, le=1e6)] = 2.0
    PING_MAX_INTERVAL_HOURS: Positive = 24.0
    PING_RECOVERY_THRESHOLD_PINGS: Count = 3
    PING_FIRST_PING_GRACE_PERIOD: bool = True
    PING_RESPONSE_TIMEOUT_SECONDS: Annotated[float, Meta(gt=0.0, le=3600.0)] = 10.0
    PING_MAX_CONCURRENT_AGENTS: Annotated[int, Meta(ge=1, le=100_000)] = 100
    # what becomes of the time between two or more billed misses in a row
    PING_UNHEARD_TIME: Literal["unknown", "believed"] = "unknown"

    AGENT_GPU_CHECK_INTERVAL_SECONDS: Annotated[float, Meta(ge=0.05, le=3600.0)] = 5.0
    AGENT_MAX_HISTORY_SIZE: Count = 10_000
    AGENT_CHECKPOINT_INTERVAL: Count = 100
    AGENT_MODE: bool = False
    AGENT_ID: AgentIdSetting | None = None
    AGENT_HTTP_HOST: str = "127.0.0.1"
    AGENT_HTTP_PORT: Port = 8001
    # what whoever asks there must send as a bearer token; needed outside loopback
    AGENT_HTTP_TOKEN: Annotated[str, Meta(min_length=16, max_length=256)] | None = None
    AGENT_STATE_DIR: str | None = None
    AGENT_SCENARIO: str | None = None
    AGENT_XID_TABLE: str | None = None

    NATS_URL: str | None = None
    # of the embedded server; outside loopback it needs a certificate (`gpuping creds init`)
    NATS_HOST: str = "127.0.0.1"
    # of the embedded server; None: 4222, or any free port when that is in use
    NATS_PORT: Port | None = None
    # where the embedded server takes leaf nodes of sites; None: nowhere
    NATS_LEAF_PORT: Port | None = None
    # where GPU hosts reach the bus, as the command that enrols one names it
    NATS_PUBLIC_URL: str | None = None
    # who signed the certificate of the bus; None: those whom this machine trusts
    NATS_CA: str | None = None
    NATS_CREDS: str | None = None
    # of a scheduler, besides its own: lets it see who is connected
    NATS_SYSTEM_CREDS: str | None = None
    # of a gateway with GATEWAY_BRIDGE_NETWORKS, besides its own: with them it answers pings
    NATS_BRIDGE_CREDS: str | None = None
    NATS_CONTEXT: str | None = None

    GPUPING_DATA_DIR: str | None = None
    GPUPING_TOKENS_FILE: str | None = None
    # whom to tell what, and how: targets, routes and rules of alerts
    GPUPING_ALERTS_FILE: str | None = None
    # reports of hosts whose signing key is not known count as missed; None: as the data dir says
    GPUPING_REQUIRE_SIGNED: bool | None = None
    # where they count: until when; None: as the data dir says
    GPUPING_UNSIGNED_UNTIL: Annotated[datetime, Meta(tz=True)] | None = None
    # sent to the gateway by `gpuping top --server-url` and the other verbs with that option
    GPUPING_TOKEN: str | None = None
    GATEWAY_HOST: str = "127.0.0.1"
    GATEWAY_PORT: Port = 8000
    # networks (`10.0.0.0/8,fd00:1::/32`) in which gateways ask agents without the bus by HTTP
    GATEWAY_BRIDGE_NETWORKS: str | None = None
    # whether a network of this machine itself (127.0.0.0/8, ::1) may be among them
    GATEWAY_BRIDGE_LOOPBACK: bool = False
    # where browsers reach a gateway that another web server stands in front of, with its path
    GATEWAY_PUBLIC_URL: str | None = None
    # where services without a page answer /metrics; outside loopback for token holders
    GPUPING_METRICS_HOST: str = "127.0.0.1"
    # None: 9321, 9322, 9323, 9324, or none where that is taken
    SCHEDULER_METRICS_PORT: Port | None = None
    STORAGE_METRICS_PORT: Port | None = None
    ENROLMENT_METRICS_PORT: Port | None = None
    ALERTS_METRICS_PORT: Port | None = None
    # of one token or address, on average; four times as many at once
    GATEWAY_REQUESTS_PER_SECOND: Positive = 500.0

    # The least time between booking maintenance and its begin; how much a host may have in a month.
    GPUPING_MAINTENANCE_NOTICE_MINUTES: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    GPUPING_MAINTENANCE_BUDGET_HOURS: Annotated[float, Meta(ge=0.0, le=744.0)] | None = None

    GPUPING_REPLICAS: Literal[1, 3, 5] = 1
    GPUPING_HISTORY_STREAM_DAYS: Days = 400
    GPUPING_HISTORY_STREAM_GB: Annotated[int, Meta(ge=1, le=1_000_000)] = 8

    STORAGE_NAME: Annotated[str, Meta(pattern=AGENT_ID_PATTERN)] = "storage"
    STORAGE_MEMORY_LIMIT_MB: Annotated[int, Meta(ge=64, le=1_000_000)] = 1024
    STORAGE_RETENTION_DAYS: Days = 3650
    STORAGE_ARCHIVE_AFTER_DAYS: Days = 90
    STORAGE_QUERY_TIMEOUT_SECONDS: Positive = 10.0

    LOG_FORMAT: Literal["console", "json"] = "console"
    LOG_LEVEL: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def base_interval_seconds(self) -> float:
        """The interval of a host without poor outcomes."""
        return self.PING_BASE_INTERVAL_MINUTES * 60.0

    @property
    def max_interval_seconds(self) -> float:
        """The upper limit of every interval."""
        return self.PING_MAX_INTERVAL_HOURS * 3600.0

    @property
    def nats_url(self) -> str:
        """The address of the bus, or several with commas between them."""
        return self.NATS_URL or "nats://127.0.0.1:4222"

    @property
    def shown_nats_url(self) -> str:
        """The address of the bus as it may be shown: without user, password or token."""
        return redact_address(self.nats_url)

    @property
    def bridge_networks(self) -> AskableNetworks | None:
        """Where agents may be asked by HTTP; None: nowhere, which is the default."""
        if self.GATEWAY_BRIDGE_NETWORKS is None:
            return None
        return AskableNetworks.parse(
            self.GATEWAY_BRIDGE_NETWORKS, may_be_loopback=self.GATEWAY_BRIDGE_LOOPBACK
        )

    @property
    def data_dir(self) -> Path:
        """Where state is kept: GPUPING_DATA_DIR, or a folder under the user's data folder."""
        if self.GPUPING_DATA_DIR:
            return Path(self.GPUPING_DATA_DIR).expanduser()
        of_user = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        return Path(of_user) / "gpuping"

    @property
    def agent_id(self) -> str:
        """AGENT_ID, or the host name with what an id cannot have replaced by `-`."""
        if self.AGENT_ID:
            return self.AGENT_ID
        replaced = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname())
        fitted = replaced.lstrip("-_")[:63]
        if not fitted or fitted in RESERVED_IDS:
            return "agent"
        return fitted

    @property
    def agent_state_dir(self) -> Path:
        """Where agentd keeps its ledger."""
        if self.AGENT_STATE_DIR:
            return Path(self.AGENT_STATE_DIR).expanduser()
        return self.data_dir / "agentd"


def load(environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
    """Settings from the environment. Raises SettingsError for one that cannot be used.

    `overrides` are command-line options and take precedence; those that are None are ignored.
    """
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        text = environ.get(name, "").strip()
        if _UNDECODED.search(text):
            raise SettingsError(f"{name}={_shown(name, text)}: expected text in UTF-8")
        if text:
            values[name] = text
    values |= {name: value for name, value in overrides.items() if value is not None}
    converted = {name: _convert(name, value) for name, value in values.items()}
    settings = Settings(**converted)
    _check_together(settings)
    return settings


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raises SettingsError for an unknown name that was probably meant as a setting.

    That is every name with an exclusive prefix, with the other prefixes a near miss of a known
    name, and a known name that is not in capitals.
    """
    for name in sorted(environ):
        if name in Settings.__struct_fields__ or not name.upper().startswith(_PREFIXES):
            continue
        if name in _OF_COMPOSE:
            continue
        if name != name.upper():
            if name.upper() in Settings.__struct_fields__:
                raise SettingsError(f"{name}: did you mean {name.upper()}, in capitals?")
            continue
        close = difflib.get_close_matches(name, Settings.__struct_fields__, n=1, cutoff=0.85)
        value = _shown(name, environ[name])
        if close:
            raise SettingsError(f"{name}={value}: did you mean {close[0]}?")
        if name.startswith(_EXCLUSIVE_PREFIXES):
            raise SettingsError(f"{name}={value}: no such setting")


_OF_COMPOSE = {"GPUPING_VERSION", "GPUPING_MEMORY_LIMIT"}  # compose.yaml reads them, no program
_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
_PATHS = (
    "AGENT_STATE_DIR",
    "AGENT_SCENARIO",
    "AGENT_XID_TABLE",
    "NATS_CA",
    "NATS_CREDS",
    "NATS_SYSTEM_CREDS",
    "NATS_BRIDGE_CREDS",
    "GPUPING_DATA_DIR",
    "GPUPING_TOKENS_FILE",
    "GPUPING_ALERTS_FILE",
)
_SHOWN_PATH = 40  # characters of one that is too long
_TIMES = {"GPUPING_UNSIGNED_UNTIL"}


def _convert(name: str, value: Any) -> Any:
    kind = _FIELDS[name].type
    if kind in {bool, bool | None} and isinstance(value, str):
        return _boolean(name, value)
    try:
        if str(value).lower().lstrip("+-") in _NO_NUMBER:
            raise msgspec.ValidationError("Expected a finite number")
        if name in _TIMES:  # a number is no time: 20261231 would be a day in August 1970
            return msgspec.convert(value, kind)
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(value, str) and _LOOSE_NUMBER.fullmatch(value):
            return _convert(name, repr(float(value)))  # as JSON spells the same number
        expected = _expected(kind, str(error))
        raise SettingsError(f"{name}={_shown(name, value)}: {expected}") from None


def _shown(name: str, value: Any) -> str:
    """The value as a message may have it."""
    if _SECRET_NAME.search(name):
        return HIDDEN
    return repr(value)


def _boolean(name: str, text: str) -> bool:
    found = _BOOLEANS.get(text.lower())
    if found is None:
        raise SettingsError(f"{name}={text!r}: expected true or false")
    return found


def _expected(kind: Any, error: str) -> str:
    """What a setting must be, from msgspec's error, in words without types of Python."""
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        return f"expected one of {', '.join(choices)}"
    if "RFC3339" in error:
        return "expected a time like 2026-12-31T00:00:00Z"
    text = error.replace("Expected", "expected", 1).replace("`", "")
    text = re.sub(r"\bint( \| null)?, got str", "a whole number", text)
    return text.replace("float, got str", "a number")


def _check_together(settings: Settings) -> None:
    """Raises SettingsError for values that are valid by themselves and not together."""
    if settings.max_interval_seconds < settings.base_interval_seconds:
        base_hours = settings.PING_BASE_INTERVAL_MINUTES / 60
        raise SettingsError(
            f"PING_MAX_INTERVAL_HOURS={settings.PING_MAX_INTERVAL_HOURS:g}: "
            f"expected at least the base interval, {base_hours:g} hours "
            "(PING_BASE_INTERVAL_MINUTES)"
        )
    if settings.AGENT_ID in RESERVED_IDS:
        raise SettingsError(
            f"AGENT_ID={settings.AGENT_ID!r}: expected another id, this one is reserved"
        )
    _check_paths(settings)
    data_dir = str(settings.data_dir)
    if _WILDCARD.search(data_dir):  # DuckDB would read the files of every folder that matches
        raise SettingsError(
            f"GPUPING_DATA_DIR={data_dir!r}: "
            "expected a path without * ? [, which stand for other names"
        )
    _check_bridge(settings)
    public_url = settings.GATEWAY_PUBLIC_URL
    if public_url is not None and not _PUBLIC_URL.fullmatch(public_url):
        raise SettingsError(
            f"GATEWAY_PUBLIC_URL={redact_address(public_url)!r}: "
            "expected an address like https://fleet.example/ or https://example.org/gpuping/"
        )
    if settings.NATS_PUBLIC_URL is not None:
        for address in settings.NATS_PUBLIC_URL.split(","):
            if not _is_bus_address(address.strip()):
                raise SettingsError(
                    f"NATS_PUBLIC_URL={redact_address(settings.NATS_PUBLIC_URL)!r}: "
                    "expected an address like tls://bus.example:4222"
                )
    for address in settings.nats_url.split(","):
        if not _is_bus_address(address.strip()):
            raise SettingsError(
                f"NATS_URL={settings.shown_nats_url!r}: expected an address like nats://127.0.0.1:4222"
            )


def _is_bus_address(text: str) -> bool:
    return bool(_BUS_ADDRESS.fullmatch(text)) and has_host_and_port(text)


def _check_paths(settings: Settings) -> None:
    for name in _PATHS:
        _check_path(name, getattr(settings, name))


def _check_path(name: str, text: str | None) -> None:
    """Raises SettingsError for what can be no path. Whether there is a file is seen later."""
    if text is None:
        return
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise SettingsError(
            f"{name}={text!r}: expected a path; no such user has a home here"
        ) from None
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SettingsError(
                f"{name}={redact(text)[:_SHOWN_PATH]!r}...: expected a shorter path"
            ) from None


def _check_bridge(settings: Settings) -> None:
    try:
        settings.bridge_networks  # noqa: B018  # reads it
    except ValueError as error:
        raise SettingsError(
            f"GATEWAY_BRIDGE_NETWORKS={settings.GATEWAY_BRIDGE_NETWORKS!r}: {error}"
        ) from None
