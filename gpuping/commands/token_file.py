"""Adds a bearer token to the gateway's tokens file, which holds hashes only."""

from pathlib import Path
from typing import Literal

from bus.errors import GpupingError, SettingsError
from bus.settings import Settings


def add(settings: Settings, name: str, role: Literal["viewer", "operator", "admin"]) -> str:
    """The new token. The file is made when it is missing; a running gateway reads it again by itself."""
    from gateway.web import tokens

    if not settings.GPUPING_TOKENS_FILE:
        raise SettingsError(
            "GPUPING_TOKENS_FILE is not set: say with --file where the gateway's tokens are kept"
        )
    path = Path(settings.GPUPING_TOKENS_FILE).expanduser()
    if path.exists() and any(entry.name == name for entry in tokens.load(path)):
        raise GpupingError(
            f"{path} has a token named {name!r} already: choose another name, or take that one out first"
        )
    secret, entry = tokens.create(name, role)
    _append(path, tokens.as_toml(entry))
    return secret


def _append(path: Path, text: str) -> None:
    """Readable by all: it holds hashes of random tokens, and the gateway's user in a container must read it."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise GpupingError(f"{path} cannot be written: {error.strerror}") from None
