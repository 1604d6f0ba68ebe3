"""NATS_CONTEXT: the connections that a person saved with `nats context add`, read as the nats CLI reads them.

So one name says where the bus is and who is asking, for the nats CLI and for gpuping alike.
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
    """One context file; what is not used here (descriptions, JetStream domains, ...) is ignored."""

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
    """The context of that name. Raises SettingsError that says which file was looked for."""
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
    """The arguments of `nats.connect` that the context stands for; empty ones are left out."""
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


def _folder(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    return Path(base) / "nats" / "context"


def _path(text: str) -> str:
    return str(Path(text).expanduser()) if text else ""


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
