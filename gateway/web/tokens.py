"""Bearer tokens: how they are made, kept and recognised.

The file is TOML, one table a token, and holds hashes only:

    [[token]]
    name = "ops-laptop"                  # who holds it; shown in the log
    role = "operator"                    # viewer | operator | admin
    sha256 = "9f86d08...0a08"            # of the token
    expires = 2027-01-01T00:00:00Z       # optional

A token is 256 random bits, so a plain SHA-256 keeps it: there is nothing to guess that a slow hash would slow down.
The file is read again when it changes; a token that was taken out is refused from then on.
"""

import hashlib
import hmac
import secrets
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import structlog
from msgspec import Meta, Struct

from bus.contract.subjects import END
from bus.errors import SettingsError

log = structlog.get_logger("gateway.web.tokens")

Role = Literal["viewer", "operator", "admin"]
RANK: dict[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}
PREFIX = "gpuping_"
LONGEST = 256
RECHECK_SECONDS = 1.0


class Token(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One entry of the file."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}" + END)]
    role: Role
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + END)]
    expires: datetime | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    token: tuple[Token, ...]


def create(name: str, role: Role, expires: datetime | None = None) -> tuple[str, Token]:
    """A new token: the secret, to be shown once, and its entry for the file. Raises SettingsError for a bad name."""
    secret = PREFIX + secrets.token_urlsafe(32)
    entry = Token(name=name, role=role, sha256=digest(secret), expires=expires)
    return secret, _checked({"token": [msgspec.to_builtins(entry)]}, "the new token")[0]


def digest(secret: str) -> str:
    """What the file keeps of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def as_toml(token: Token) -> str:
    """The entry as text, to be added to the file. Every value is checked to need no quoting."""
    expires = (
        f"expires = {token.expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}\n" if token.expires else ""
    )
    return f'[[token]]\nname = "{token.name}"\nrole = "{token.role}"\nsha256 = "{token.sha256}"\n{expires}'


def load(path: Path) -> tuple[Token, ...]:
    """The entries of a file. Raises SettingsError: one line that says what is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"GPUPING_TOKENS_FILE={str(path)!r}: {error.strerror or error}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"GPUPING_TOKENS_FILE={str(path)!r}: no TOML: {error}") from None
    return _checked(content, f"GPUPING_TOKENS_FILE={str(path)!r}")


def _checked(content: object, what: str) -> tuple[Token, ...]:
    try:
        found = msgspec.convert(content, _File).token
    except msgspec.ValidationError as error:
        raise SettingsError(f"{what}: {str(error).replace('`', '')}") from None
    if not found:
        raise SettingsError(f"{what}: it holds no token, so nobody could use the gateway")
    if len({token.name for token in found}) < len(found):
        raise SettingsError(f"{what}: a name stands twice")
    if naive := [token.name for token in found if token.expires and token.expires.tzinfo is None]:
        raise SettingsError(f"{what}: expires of {naive[0]} names no time zone; end it with Z")
    return found


def verify(secret: str, tokens: Iterable[Token], now: datetime) -> Token | None:
    """The entry of a token that is known and has not expired. Takes as long for a wrong one as for a right one."""
    if len(secret) > LONGEST:
        return None
    presented = digest(secret)
    found = None
    for token in tokens:
        if hmac.compare_digest(presented, token.sha256):
            found = token
    return found if found and (found.expires is None or now < found.expires) else None


class TokenFile:
    """The file's entries as they are now. A change that cannot be read leaves the old ones in force, loudly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens = load(path)
        self._stamp = self._look()
        self._looked_at = 0.0

    def tokens(self, clock: float) -> tuple[Token, ...]:
        """The entries; `clock` is any clock in seconds that never goes back."""
        if clock - self._looked_at >= RECHECK_SECONDS:
            self._looked_at = clock
            self._reread()
        return self._tokens

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _reread(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = load(self._path)
            log.info("tokens_reread", count=len(self._tokens))
        except SettingsError as error:
            log.error("tokens_unreadable", detail=str(error), action="the old ones stay in force")
