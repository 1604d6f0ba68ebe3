"""Every setting of the system, read from the environment once, at start.

Strict: a bad value, or a name that looks like one of ours and is none, is refused in one line with
exit code 2, because a setting that is silently ignored is found out on pay day.
"""

import difflib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from bus.contract.subjects import AGENT_ID_PATTERN, RESERVED_IDS
from bus.errors import SettingsError

Positive = Annotated[float, Meta(gt=0.0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
AgentIdSetting = Annotated[str, Meta(pattern=AGENT_ID_PATTERN)]

_OURS = ("PING_", "AGENT_", "GPUPING_", "GATEWAY_", "STORAGE_")
_LOOSE_NUMBER = re.compile(r"\+?\.\d+|\+?\d+\.|\+\d+(\.\d+)?")
_BUS_ADDRESS = re.compile(r"((nats|tls|ws|wss)://)?[^/\s]+/?")
_PATTERN = re.compile(r"[*?\[]")
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


class Settings(Struct, kw_only=True, frozen=True):
    """Every setting, with its name in the environment and its default (docs/operations.md#settings)."""

    PING_BASE_INTERVAL_MINUTES: Positive = 15.0
    PING_UPTIME_THRESHOLD: Annotated[float, Meta(ge=0.0, le=100.0)] = 99.0
    PING_ESCALATION_MULTIPLIER: Annotated[float, Meta(ge=1.0, le=1e6)] = 2.0
    PING_MAX_INTERVAL_HOURS: Positive = 24.0
    PING_RECOVERY_THRESHOLD_PINGS: Count = 3
    PING_FIRST_PING_GRACE_PERIOD: bool = True
    PING_RESPONSE_TIMEOUT_SECONDS: Annotated[float, Meta(gt=0.0, le=3600.0)] = 10.0
    PING_MAX_CONCURRENT_AGENTS: Annotated[int, Meta(ge=1, le=100_000)] = 100

    AGENT_GPU_CHECK_INTERVAL_SECONDS: Annotated[float, Meta(ge=0.05, le=3600.0)] = 5.0
    AGENT_MAX_HISTORY_SIZE: Count = 10_000
    AGENT_CHECKPOINT_INTERVAL: Count = 100
    AGENT_MODE: bool = False
    AGENT_ID: AgentIdSetting | None = None
    AGENT_HTTP_HOST: str = "127.0.0.1"
    AGENT_HTTP_PORT: Port = 8001
    AGENT_STATE_DIR: str | None = None
    AGENT_SCENARIO: str | None = None
    AGENT_XID_TABLE: str | None = None

    NATS_URL: str | None = None
    NATS_PORT: Port | None = (
        None  # of the embedded server; None: 4222, or a free one when that is busy
    )
    NATS_CREDS: str | None = None
    NATS_CONTEXT: str | None = None

    GPUPING_DATA_DIR: str | None = None
    GPUPING_TOKENS_FILE: str | None = None
    GPUPING_TOKEN: str | None = (
        None  # what `gpuping top --server-url` and its like show to a gateway with tokens
    )
    GATEWAY_HOST: str = "127.0.0.1"
    GATEWAY_PORT: Port = 8000
    GATEWAY_REQUESTS_PER_SECOND: Positive = (
        500.0  # of one token or address, on average; four seconds' worth at once
    )

    GPUPING_REPLICAS: Literal[1, 3, 5] = 1
    GPUPING_HISTORY_STREAM_DAYS: Annotated[int, Meta(ge=1, le=36_500)] = 400
    GPUPING_HISTORY_STREAM_GB: Annotated[int, Meta(ge=1, le=1_000_000)] = 8

    STORAGE_NAME: Annotated[str, Meta(pattern=AGENT_ID_PATTERN)] = "storage"
    STORAGE_MEMORY_LIMIT_MB: Annotated[int, Meta(ge=64, le=1_000_000)] = 1024
    STORAGE_RETENTION_DAYS: Annotated[int, Meta(ge=1, le=36_500)] = 3650
    STORAGE_ARCHIVE_AFTER_DAYS: Annotated[int, Meta(ge=1, le=36_500)] = 90
    STORAGE_QUERY_TIMEOUT_SECONDS: Positive = 10.0

    LOG_FORMAT: Literal["console", "json"] = "console"
    LOG_LEVEL: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def base_interval_seconds(self) -> float:
        """The interval of a host in good standing."""
        return self.PING_BASE_INTERVAL_MINUTES * 60.0

    @property
    def max_interval_seconds(self) -> float:
        """The cap on every interval."""
        return self.PING_MAX_INTERVAL_HOURS * 3600.0

    @property
    def nats_url(self) -> str:
        """Where the bus is."""
        return self.NATS_URL or "nats://127.0.0.1:4222"

    @property
    def data_dir(self) -> Path:
        """Where state is kept: GPUPING_DATA_DIR, or gpuping's place under the user's data folder."""
        if self.GPUPING_DATA_DIR:
            return Path(self.GPUPING_DATA_DIR).expanduser()
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "gpuping"

    @property
    def agent_id(self) -> str:
        """AGENT_ID, or the host name made to fit."""
        if self.AGENT_ID:
            return self.AGENT_ID
        fitted = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).lstrip("-_")[:63]
        return fitted if fitted and fitted not in RESERVED_IDS else "agent"

    @property
    def agent_state_dir(self) -> Path:
        """Where agentd keeps its ledger."""
        return (
            Path(self.AGENT_STATE_DIR).expanduser()
            if self.AGENT_STATE_DIR
            else self.data_dir / "agentd"
        )


def load(environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (of command-line options) win. Raises SettingsError."""
    _refuse_unknown(environ)
    values: dict[str, Any] = {
        n: environ[n].strip() for n in Settings.__struct_fields__ if environ.get(n, "").strip()
    }
    values |= {name: value for name, value in overrides.items() if value is not None}
    settings = Settings(**{name: _convert(name, value) for name, value in values.items()})
    return _check_together(settings)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """GPUPING_* and PING_* are ours alone; of other prefixes only a near miss of a known name is refused."""
    for name in sorted(environ):
        if name in Settings.__struct_fields__ or not name.startswith(_OURS):
            continue
        close = difflib.get_close_matches(name, Settings.__struct_fields__, n=1, cutoff=0.85)
        if close or name.startswith(("GPUPING_", "PING_")):
            hint = f"did you mean {close[0]}?" if close else "no such setting"
            raise SettingsError(f"{name}={environ[name]!r}: {hint}")


_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def _convert(name: str, value: Any) -> Any:
    kind = _FIELDS[name].type
    if kind is bool and isinstance(value, str):
        lowered = value.lower()
        if lowered not in _TRUE | _FALSE:
            raise SettingsError(f"{name}={value!r}: expected true or false")
        return lowered in _TRUE
    try:
        # "nan" and "inf" are floats to the parser and nonsense to us
        if isinstance(value, str) and value.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
            raise msgspec.ValidationError("Expected a finite number")
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(value, str) and _LOOSE_NUMBER.fullmatch(value):
            return _convert(name, repr(float(value)))  # `.5`, `5.` and `+5` as JSON spells them
        raise SettingsError(f"{name}={value!r}: {_expected(kind, str(error))}") from None


def _expected(kind: Any, error: str) -> str:
    if get_origin(kind) is Literal:
        return f"expected one of {', '.join(str(choice) for choice in get_args(kind))}"
    text = error.replace("Expected", "expected", 1).replace("`", "")
    return re.sub(r"\bint( \| null)?, got str", "a whole number", text).replace(
        "float, got str", "a number"
    )


def _check_together(settings: Settings) -> Settings:
    if settings.max_interval_seconds < settings.base_interval_seconds:
        raise SettingsError(
            f"PING_MAX_INTERVAL_HOURS={settings.PING_MAX_INTERVAL_HOURS:g}: expected at least the base interval, "
            f"{settings.PING_BASE_INTERVAL_MINUTES / 60:g} hours (PING_BASE_INTERVAL_MINUTES)"
        )
    if settings.AGENT_ID in RESERVED_IDS:
        raise SettingsError(
            f"AGENT_ID={settings.AGENT_ID!r}: expected another id, this one is reserved"
        )
    if _PATTERN.search(
        str(settings.data_dir)
    ):  # DuckDB would read the files of every folder that fits
        raise SettingsError(
            f"GPUPING_DATA_DIR={str(settings.data_dir)!r}: expected a path without * ? [, which stand for other names"
        )
    for address in settings.nats_url.split(","):
        if not _BUS_ADDRESS.fullmatch(address.strip()):
            raise SettingsError(
                f"NATS_URL={settings.NATS_URL!r}: expected an address like nats://127.0.0.1:4222"
            )
    return settings
