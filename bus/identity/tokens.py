"""Bearer tokens: creating them, keeping them in a file, recognising them.

The file is TOML with one table for each token, and holds hashes only:

    [[token]]
    name = "ops-laptop"                  # who holds it; shown in the log
    role = "operator"                    # viewer | operator | admin
    sha256 = "9f86d08...0a08"            # of the token
    expires = 2027-01-01T00:00:00Z       # optional

A token is 256 random bits. It cannot be guessed, so a plain SHA-256 is enough and a slow password
hash would gain nothing. The file is read again when it changes; a token that was taken out of it is
refused from then on.
"""

import hashlib
import hmac
import secrets
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
import structlog
from msgspec import Meta, Struct

from bus.contract.subjects import END
from bus.errors import SettingsError

log = structlog.get_logger("bus.identity.tokens")

TokenRole = Literal["viewer", "operator", "admin"]
RANK: dict[TokenRole, int] = {"viewer": 0, "operator": 1, "admin": 2}
PREFIX = "gpuping_"
MAX_SECRET_LENGTH = 256
RECHECK_SECONDS = 1.0


class Token(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One token of the file. `sha256` is that of the secret; the secret itself is kept nowhere."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}" + END)]
    role: TokenRole
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + END)]
    expires: datetime | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    token: tuple[Token, ...]


class _FileStamp(NamedTuple):
    """What differs after the file was written or replaced."""

    modified_ns: int
    size: int
    inode: int


def create(
    name: str,
    role: TokenRole,
    expires: datetime | None = None,
) -> tuple[str, Token]:
    """A new secret, to be shown once, and its entry for the file.

    Raises SettingsError for a name that the file could not hold.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token(
        name=name,
        role=role,
        sha256=digest(secret),
        expires=expires,
    )
    content = {"token": [msgspec.to_builtins(token)]}
    checked = _check(content, "the new token")
    return secret, checked[0]


def digest(secret: str) -> str:
    """The hexadecimal SHA-256 that the file keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def as_toml(token: Token) -> str:
    """The entry as text to append to the file. No value can contain what TOML would have quoted."""
    lines = [
        "[[token]]",
        f'name = "{token.name}"',
        f'role = "{token.role}"',
        f'sha256 = "{token.sha256}"',
    ]
    if token.expires:
        lines.append(f"expires = {token.expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def load(path: Path) -> tuple[Token, ...]:
    """The tokens of a file. Raises SettingsError, whose one line says what is wrong with it."""
    setting = f"GPUPING_TOKENS_FILE={str(path)!r}"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{setting}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: no TOML: {error}") from None
    return _check(content, setting)


def _check(content: object, source: str) -> tuple[Token, ...]:
    """The tokens of a parsed file. Raises SettingsError, which begins with `source`."""
    try:
        tokens = msgspec.convert(content, _File).token
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {str(error).replace('`', '')}") from None
    if not tokens:
        raise SettingsError(f"{source}: it holds no token, so nobody could use the gateway")
    names: set[str] = set()
    for token in tokens:
        names.add(token.name)
    if len(names) < len(tokens):
        raise SettingsError(f"{source}: a name stands twice")
    for token in tokens:
        if token.expires and token.expires.tzinfo is None:
            raise SettingsError(
                f"{source}: expires of {token.name} names no time zone; end it with Z"
            )
    return tokens


def verify(
    secret: str,
    tokens: Iterable[Token],
    now: datetime,
) -> Token | None:
    """The token whose secret this is, or None if it is unknown or has expired.

    Always compares with every token, so that the time taken tells nothing about the secret.
    """
    if len(secret) > MAX_SECRET_LENGTH:
        return None
    presented = digest(secret)
    found = None
    for token in tokens:
        if hmac.compare_digest(presented, token.sha256):
            found = token
    if found is None:
        return None
    if found.expires is not None and found.expires <= now:
        return None
    return found


class TokenFile:
    """The tokens of a file that may change while the gateway runs.

    If a changed file cannot be read or is invalid, that is logged and the old tokens stay valid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens = load(path)
        self._stamp = self._read_stamp()
        self._checked_at = 0.0

    def tokens(self, clock: float) -> tuple[Token, ...]:
        """The tokens of now. Looks at the file at most once in RECHECK_SECONDS.

        `clock` is in seconds and never goes back.
        """
        if clock - self._checked_at >= RECHECK_SECONDS:
            self._checked_at = clock
            self._reload_if_changed()
        return self._tokens

    def _read_stamp(self) -> _FileStamp | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return _FileStamp(stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _reload_if_changed(self) -> None:
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = load(self._path)
        except SettingsError as error:
            log.error("tokens_reload_failed", detail=str(error), action="old tokens stay valid")
            return
        log.info("tokens_reloaded", count=len(self._tokens))
