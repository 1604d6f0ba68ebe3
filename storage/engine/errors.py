"""What can go wrong with the history file, told apart by what must be done about it."""

import duckdb

from bus.errors import GpupingError

STARTING = "starting"  # why a store waits that has not been opened yet

# Parts of the messages of DuckDB and the operating system, in lower case. Both tables were made by
# damaging files and filling disks, and reading what came out.
_DAMAGE_SIGNS = (
    "corrupt",
    "checksum",
    "not a valid duckdb",
    "serialization",
    "deserial",
    "wal file",
    "while replaying",
    "could not read enough",
)
_CANNOT_WRITE_SIGNS = (
    "no space",
    "file too large",
    "permission denied",
    "permission error",
    "read-only",
    "not a directory",
    "could not set lock",
    "already attached",
    "out of memory",
    "quota",
    "cannot open file",
    "input/output error",
    "file exists",
    "no such file",
)

# The same signs in words for everybody, who need not know the paths of this machine. The first that
# fits is taken.
_REASONS = (
    (("could not set lock", "already attached"), "another process holds the lock on its file"),
    (("no space", "file too large", "quota"), "the disk has no room"),
    (
        ("permission denied", "permission error", "read-only", "not a directory", "file exists"),
        "its folder cannot be written",
    ),
    (("out of memory",), "it has not enough memory"),
    (("history file has schema",), "its file is of another version of gpuping"),
    (_DAMAGE_SIGNS, "its file is damaged, and is made again"),
)
_OTHER_REASON = "its file or the history stream cannot be read"


class StorageError(GpupingError):
    """The root of the errors that storage raises on purpose."""


class CannotWriteError(StorageError):
    """The disk is full, the folder cannot be written, or another process holds the file.

    Ingest waits.
    """


class DamagedError(StorageError):
    """The history file or its log is not what DuckDB wrote. It is set aside and made again."""


class FlawedError(DamagedError):
    """A partition of the archive is not what it should be.

    It is set aside alone; the history file stays.
    """


def reason_for(detail: str) -> str:
    """Why storage waits, in words that name no file. The log and `gpuping doctor` have `detail`."""
    if detail == STARTING:
        return detail
    lowered = detail.lower()
    for signs, reason in _REASONS:
        if any(sign in lowered for sign in signs):
            return reason
    return _OTHER_REASON


def explained(error: Exception, path: object) -> StorageError:
    """Returns what an error of DuckDB or the file system means for the file at `path`.

    The signs that writing is impossible come first: a full disk also breaks reads, and nothing is
    damaged then.
    """
    text = " ".join(str(error).split())
    detail = f"{path}: {text[:300]}"
    lowered = text.lower()
    if isinstance(error, OSError) or any(sign in lowered for sign in _CANNOT_WRITE_SIGNS):
        return CannotWriteError(detail)
    if isinstance(error, duckdb.InternalException | duckdb.IOException):
        return DamagedError(detail)
    if any(sign in lowered for sign in _DAMAGE_SIGNS):
        return DamagedError(detail)
    return StorageError(detail)
