"""`gpuping token`: adds a bearer token to the gateway's tokens file, which holds hashes only."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bus import runner
from bus.errors import GpupingError, SettingsError
from bus.settings import Settings
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import CHECK, app, examples

Role = Literal["viewer", "operator", "admin"]


@app.command(
    group=CHECK,
    help_epilogue=examples("gpuping token alice --role operator --file deploy/tokens.toml"),
)
def token(
    name: Annotated[str, Parameter(help="who holds it; shown in the gateway's log")],
    /,
    *,
    role: Annotated[Role, Parameter(help="what its holder may do")] = "viewer",
    file: Annotated[
        Path | None, Parameter(help="where its hash is added [GPUPING_TOKENS_FILE]")
    ] = None,
) -> int:
    """Make a token for the REST interface.

    Its hash goes into the tokens file, the token itself is shown once.
    """
    settings = load_settings(default_log_level="error", GPUPING_TOKENS_FILE=file)
    print(add_token(settings, name, role))
    return runner.DONE


def add_token(
    settings: Settings,
    name: str,
    role: Role,
) -> str:
    """Adds a token's hash to the tokens file and returns the token.

    A missing file is made; a running gateway reads the file again by itself. Raises SettingsError
    when no file is named, and GpupingError when it has a token of that name already or cannot be
    written.
    """
    from bus.identity import tokens

    if not settings.GPUPING_TOKENS_FILE:
        raise SettingsError(
            "GPUPING_TOKENS_FILE is not set: say with --file where the gateway's tokens are kept"
        )
    path = Path(settings.GPUPING_TOKENS_FILE).expanduser()
    taken_names = set()
    if path.exists():
        taken_names = {entry.name for entry in tokens.load(path)}
    if name in taken_names:
        raise GpupingError(
            f"{path} has a token named {name!r} already: "
            "choose another name, or take that one out first"
        )
    secret, entry = tokens.create(name, role)
    _append(path, tokens.as_toml(entry))
    return secret


def _append(path: Path, text: str) -> None:
    """A new file may be read by everybody, whatever the umask is.

    It holds only hashes of random tokens, and in a container the gateway runs as another user. A
    file that exists keeps its mode. Nothing is written through a link.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if not path.exists():
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            os.fchmod(descriptor, 0o644)
        else:
            descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise GpupingError(f"{path} cannot be written: {error.strerror}") from None
