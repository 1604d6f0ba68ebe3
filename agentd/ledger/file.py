"""The ledger's file: checksummed lines, appended, and from time to time written anew.

An append reaches the page cache, so it survives kill -9; only `sync` waits for the disk. When the
end of a file fails its checksum, the damaged file is set aside and an error is logged. The records
before the damage still count, because their checksums prove them; the time after them is unknown.
The same is done with a line that somebody changed without the host's key.
"""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

import structlog

from agentd.ledger.chain import LedgerChain
from agentd.ledger.records import FORMAT, LedgerCreated, Record
from bus.errors import GpupingError

log = structlog.get_logger("agentd.ledger.file")


class LedgerInUseError(GpupingError):
    """Another process has this ledger open."""


class Found(NamedTuple):
    """The file's valid records (none: a new ledger begins), and where a damaged file went."""

    records: list[Record]
    set_aside: Path | None


class LedgerFile:
    """One file, for one process.

    Raises OSError when the disk refuses; the file then keeps what it held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._lock: int | None = None
        self._out: int | None = None

    def lock(self) -> None:
        """Raises LedgerInUseError when another process holds the lock.

        A killed process holds it no more.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = self.path.with_suffix(".lock")
        self._lock = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerInUseError(
                f"{self.path}: another agentd keeps this ledger; stop it first"
            ) from None

    def load(self, wall: int, chain: LedgerChain) -> Found:
        """Reads the file, and takes up its chain.

        One that is torn, corrupt or changed is set aside as `*.corrupt-<wall>`.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Found([], None)
        except OSError as error:
            return Found([], self._set_aside(wall, detail=str(error)))
        records, valid_bytes, is_edited = chain.read(data)
        lost_bytes = len(data) - valid_bytes
        if not _is_ledger(records):
            return Found([], self._set_aside(wall, lost_bytes=len(data)))
        if lost_bytes:
            aside = self._set_aside(
                wall,
                kept_bytes=valid_bytes,
                lost_bytes=lost_bytes,
                edited=is_edited,
            )
            return Found(records, aside)
        return Found(records, None)

    def _set_aside(self, wall: int, **details: object) -> Path:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{wall}")
        self.path.replace(aside)
        log.error(
            "ledger_damaged",
            file=str(self.path),
            set_aside=str(aside),
            **details,
        )
        return aside

    def append(self, lines: bytes) -> None:
        """Adds lines at the end. A write that fails halfway is undone."""
        if self._out is None:
            raise OSError("the ledger's file was never written")
        try:
            written = os.write(self._out, lines)
            if written < len(lines):
                raise OSError("the disk took only a part")
        except OSError:
            os.ftruncate(self._out, self.size)
            raise
        self.size += written

    def sync(self) -> None:
        """Returns when everything that was appended is on the disk."""
        if self._out is not None:
            os.fdatasync(self._out)

    def rewrite(self, lines: bytes) -> None:
        """Replaces the whole file: writes a new one, syncs it, renames it.

        Power may fail at any point.
        """
        beside = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        out = os.open(beside, flags, 0o600)
        try:
            with memoryview(lines) as rest:
                done = 0
                while done < len(rest):
                    done += os.write(out, rest[done:])
            os.fsync(out)
            beside.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError:
            os.close(out)
            beside.unlink(missing_ok=True)
            raise
        self._close_out()
        self._out = out
        self.size = len(lines)

    def close(self) -> None:
        """Closes the file and releases its lock."""
        self._close_out()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close_out(self) -> None:
        if self._out is not None:
            os.close(self._out)
            self._out = None


def _is_ledger(records: list[Record]) -> bool:
    """Whether these are the records of a ledger in the format that this version reads."""
    if not records:
        return False
    first = records[0]
    return isinstance(first, LedgerCreated) and first.format == FORMAT


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
