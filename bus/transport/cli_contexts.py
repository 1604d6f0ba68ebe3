"""NATS_CONTEXT: connections saved by `nats context add`, read as the nats CLI reads them.

One name stands for the address of the bus and the identity, for the nats CLI and for gpuping alike.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bus.errors import SettingsError


class Context(Struct, kw_only=True, frozen=True):
    """One context file. Fields that are not used here are ignored."""

    url: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    nkey: str = ""
    cert: str = ""
    key: str = ""
    ca: str = ""
    inbox_prefix: str = ""


def load(name: str, environ: Mapping[str, str] = os.environ) -> Context:
    """The context of that name. Raises SettingsError, which names the file that it expected."""
    path = _folder(environ) / f"{name}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Context)
    except OSError:
        raise SettingsError(
            f"NATS_CONTEXT={name!r}: expected a saved context, and {path} cannot be read"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"NATS_CONTEXT={name!r}: expected a context file, and {path} is none: {error}"
        ) from None


def connect_options(context: Context) -> dict[str, Any]:
    """The arguments of `nats.connect` for a context, without the empty ones."""
    options: dict[str, Any] = {
        "user": context.user,
        "password": context.password,
        "token": context.token,
        "user_credentials": _path(context.creds),
        "nkeys_seed": _path(context.nkey),
        "inbox_prefix": context.inbox_prefix,
    }
    if context.ca or context.cert:
        options["tls"] = _tls(context)
    return {name: value for name, value in options.items() if value}


def trusting(ca_file: str) -> ssl.SSLContext:
    """Believes servers whose certificate one authority signed, and no others (NATS_CA)."""
    try:
        return ssl.create_default_context(cafile=_path(ca_file))
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"NATS_CA={ca_file!r}: expected a file of certificates: {reason}"
        ) from None


def _folder(environ: Mapping[str, str]) -> Path:
    config_home = environ.get("XDG_CONFIG_HOME")
    if config_home:
        return Path(config_home) / "nats" / "context"
    home = environ.get("HOME") or str(Path.home())
    return Path(home) / ".config" / "nats" / "context"


def _path(text: str) -> str:
    if not text:
        return ""
    return str(Path(text).expanduser())


def _tls(context: Context) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=_path(context.ca) or None)
        if context.cert:
            tls.load_cert_chain(_path(context.cert), _path(context.key) or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"NATS_CONTEXT: expected readable TLS files (ca, cert, key): {error}"
        ) from None
    return tls
