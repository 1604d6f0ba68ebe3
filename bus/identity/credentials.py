"""Credentials files: a user's token and its private key, as nats-py and the `nats` CLI read them.

They are secrets: written so that only their owner can read them, and refused when others can.
"""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from bus.errors import GpupingError
from bus.identity.keys import InvalidKeyError, SigningKey

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END \1-{3,}")
_TOKEN_BLOCK = "NATS USER JWT"  # noqa: S105  # the name of a block, not a secret
_SEED_BLOCK = "USER NKEY SEED"


class CredentialsError(GpupingError):
    """A credentials file that cannot be used; the text says what to do about it."""


class Credentials(Struct, frozen=True):
    """What one file holds."""

    token: str
    key: SigningKey

    def __repr__(self) -> str:
        return f"Credentials({self.key.public})"


def to_text(token: str, key: SigningKey) -> str:
    """The text of a credentials file."""
    return (
        f"-----BEGIN {_TOKEN_BLOCK}-----\n{token}\n------END {_TOKEN_BLOCK}------\n\n"
        f"-----BEGIN {_SEED_BLOCK}-----\n{key.seed}\n------END {_SEED_BLOCK}------\n"
    )


def read(path: Path) -> Credentials:
    """Reads a credentials file. Raises CredentialsError, which never shows what is in it."""
    blocks = dict(_BLOCK.findall(read_secret(path)))
    try:
        return Credentials(blocks[_TOKEN_BLOCK], SigningKey.from_seed(blocks[_SEED_BLOCK]))
    except (KeyError, InvalidKeyError):
        raise CredentialsError(f"{path}: not a NATS credentials file") from None


def read_secret(path: Path) -> str:
    """The text of a file that only its owner can read. Raises CredentialsError otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from None
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        os.close(descriptor)
        raise CredentialsError(f"{path}: Is a directory")
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        if status.st_mode & _OTHERS and not _is_from_systemd(path):
            raise CredentialsError(
                f"{path}: others can read this secret; make it yours alone: chmod 600 {path}"
            )
        return file.read()


def refuse_readable(paths: Iterable[Path]) -> None:
    """Raises CredentialsError, with one line that mends all, where others can read any of these."""
    readable = []
    for path in paths:
        if path.is_file() and path.stat().st_mode & _OTHERS and not _is_from_systemd(path):
            readable.append(str(path))
    if readable:
        names = " ".join(sorted(readable))
        raise CredentialsError(
            f"{names}: others can read what is secret there; make it yours alone: chmod 600 {names}"
        )


def _is_from_systemd(path: Path) -> bool:
    """Whether systemd guards it, by access lists, which show as rights of the group."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.parent == Path(folder)


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all, and never through a link."""
    path.parent.mkdir(
        mode=0o700,
        parents=True,
        exist_ok=True,
    )
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)
