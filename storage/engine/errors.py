"""What can go wrong with the history file, told apart by what must be done about it."""

import duckdb

from bus.errors import GpupingError

_DAMAGE = (
    "corrupt",
    "checksum",
    "not a valid duckdb",
    "serialization",
    "deserial",
    "wal file",
    "while replaying",
    "could not read enough",
)
_ROOM = (
    *(
        "no space",
        "file too large",
        "permission denied",
        "permission error",
        "read-only",
        "not a directory",
    ),
    *(
        "could not set lock",
        "already attached",
        "out of memory",
        "quota",
        "cannot open file",
        "input/output error",
    ),
    *("file exists", "no such file"),
)


class StorageError(GpupingError):
    """Root of what storage raises on purpose."""


class CannotWriteError(StorageError):
    """The disk is full, the folder cannot be written, another process holds the file: ingest waits."""


class DamagedError(StorageError):
    """The history file or its log is not what DuckDB wrote: set it aside and make it again."""


class FlawedError(DamagedError):
    """A partition of the archive is not what it should be: it is set aside by itself, the history file stays."""


def explained(error: Exception, path: object) -> StorageError:
    """What an error of DuckDB or the file system means for the history file at `path`."""
    text = " ".join(str(error).split())
    lowered = text.lower()
    if isinstance(error, OSError) or any(sign in lowered for sign in _ROOM):
        return CannotWriteError(f"{path}: {text[:300]}")
    if any(sign in lowered for sign in _DAMAGE) or isinstance(
        error, duckdb.InternalException | duckdb.IOException
    ):
        return DamagedError(f"{path}: {text[:300]}")
    return StorageError(f"{path}: {text[:300]}")
