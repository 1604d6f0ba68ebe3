"""The ledger's file: checksummed lines, appended, and now and then written anew.

An append reaches the page cache, so it survives kill -9; only `sync` asks for the disk. What does not
check out at the end of a file is cut off, and the damaged file is set aside and said loudly: the records
before it are proven by their checksums and still count, the time after them is unknown.
"""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

import structlog

from agentd.ledger.records import FORMAT, Began, Record, read
from bus.errors import GpupingError

log = structlog.get_logger("agentd.ledger.file")


class LedgerInUseError(GpupingError):
    """Another process keeps this ledger."""


class Found(NamedTuple):
    """What was in the file: its valid records (none: a new ledger begins), and where the damaged file went."""

    records: list[Record]
    set_aside: Path | None


class LedgerFile:
    """One file, one process. Raises OSError when the disk refuses; the file then still holds what it held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._lock: int | None = None
        self._out: int | None = None

    def lock(self) -> None:
        """Raises LedgerInUseError when another process holds it; a killed one's lock is gone with it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(
            self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerInUseError(
                f"{self.path}: another agentd keeps this ledger; stop it first"
            ) from None

    def load(self, wall: int) -> Found:
        """Reads the file; one that is torn or corrupt is set aside as `*.corrupt-<wall>`."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Found([], None)
        except OSError as error:
            return Found([], self._set_aside(wall, detail=str(error)))
        records, good = read(data)
        if not _begins_well(records):
            return Found([], self._set_aside(wall, lost_bytes=len(data)))
        if good < len(data):
            return Found(
                records, self._set_aside(wall, kept_bytes=good, lost_bytes=len(data) - good)
            )
        return Found(records, None)

    def _set_aside(self, wall: int, **details: object) -> Path:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{wall}")
        self.path.replace(aside)
        log.error("ledger_damaged", file=str(self.path), set_aside=str(aside), **details)
        return aside

    def append(self, lines: bytes) -> None:
        """Adds lines; a write that fails halfway is taken back."""
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
        """What was appended is on the disk when this returns."""
        if self._out is not None:
            os.fdatasync(self._out)

    def rewrite(self, lines: bytes) -> None:
        """Replaces the whole file: written beside it, synced, renamed. Power may fail at any point."""
        beside = self.path.with_suffix(".new")
        out = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
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
        self._out, self.size = out, len(lines)

    def close(self) -> None:
        """Lets go of the file and its lock."""
        self._close_out()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close_out(self) -> None:
        if self._out is not None:
            os.close(self._out)
            self._out = None


def _begins_well(records: list[Record]) -> bool:
    return bool(records) and isinstance(records[0], Began) and records[0].format == FORMAT


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
