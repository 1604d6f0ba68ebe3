"""Keeps a ledger on disk: opens it, takes what is to be written, writes it, and lives on when the disk is full.

`take` belongs to the loop, `write` may run in a thread, one at a time: a slow disk then delays neither
checks nor answers. kill -9 loses at most what was not yet handed to `write`: one check.
"""

import secrets
from pathlib import Path
from typing import NamedTuple

import structlog

from agentd.ledger.file import LedgerFile
from agentd.ledger.ledger import Ledger, Moment
from agentd.ledger.records import FORMAT, Began, Counted, Known, Record, line
from bus.settings import Settings

log = structlog.get_logger("agentd.ledger.store")

REWRITE_BYTES = (
    256 * 1024
)  # appended since the last rewrite, and no less than that rewrite: about twice a day
MOST_UNSAVED = 10_000  # records; a disk that is stuck for longer gets the whole ledger instead


class Batch(NamedTuple):
    """Lines for the file: added, or (`whole`) in place of all that is there."""

    lines: bytes
    whole: bool
    sync: bool


class Keeper:
    """A ledger and its file."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._file = LedgerFile(path)
        self._settings = settings
        self._unsaved: list[Record] = []
        self._whole = True
        self._whole_bytes = 0
        self._checks_unsynced = 0
        self.trouble: str | None = None
        self.ledger: Ledger

    @property
    def path(self) -> Path:
        """Where the ledger lies."""
        return self._file.path

    @property
    def bytes(self) -> int:
        """The file's length."""
        return self._file.size

    def open(self, wall: int) -> Ledger:
        """The ledger as it was left, or a new one. Raises LedgerInUseError; a disk's refusal is only told."""
        records: list[Record] = []
        try:
            self._file.lock()
            records = self._file.load(wall).records
        except OSError as error:
            self._troubled(error)
        began = records[0] if records else Began(FORMAT, secrets.token_hex(4), wall)
        assert isinstance(began, Began)  # noqa: S101  # load() sees to it
        self.ledger = Ledger(
            began,
            interval=self._settings.AGENT_GPU_CHECK_INTERVAL_SECONDS,
            limit=self._settings.AGENT_MAX_HISTORY_SIZE,
        )
        for record in records:
            self.ledger.apply(record)
        return self.ledger

    def resume(self, session: str, boot: str, now: Moment) -> None:
        """This process takes the ledger up."""
        self.note(self.ledger.resume(session, boot, now))

    def stop(self, now: Moment) -> None:
        """The process ends in good order: until now the last sample held."""
        self.note(self.ledger.stop(now))

    def note(self, records: list[Record]) -> None:
        """Remembers what is to be written."""
        self._unsaved += records
        if len(self._unsaved) > MOST_UNSAVED:
            self._unsaved.clear()
            self._whole = True

    def take(self, *, final: bool = False) -> Batch | None:
        """What is to be written now; None when there is nothing."""
        records, self._unsaved = self._unsaved, []
        if not (records or self._whole):
            return None
        whole, self._whole = self._whole, False
        whole |= self._file.size > max(REWRITE_BYTES, 2 * self._whole_bytes)
        self._checks_unsynced += sum(isinstance(record, Known) for record in records)
        changed = any(not isinstance(record, Known | Counted) for record in records)
        sync = (
            whole
            or changed
            or final
            or self._checks_unsynced >= self._settings.AGENT_CHECKPOINT_INTERVAL
        )
        if sync:
            self._checks_unsynced = 0
        return Batch(b"".join(map(line, self.ledger.records() if whole else records)), whole, sync)

    def write(self, batch: Batch) -> None:
        """Writes it. A disk that refuses is told once; the whole ledger is written when it takes it again."""
        try:
            if batch.whole:
                self._file.rewrite(batch.lines)
                self._whole_bytes = len(batch.lines)
            else:
                self._file.append(batch.lines)
                if batch.sync:
                    self._file.sync()
        except OSError as error:
            self._whole = True
            self._troubled(error)
        else:
            self._recovered()

    def save(self, *, final: bool = False) -> None:
        """`take` and `write` in one, for whoever has no loop to keep free."""
        if batch := self.take(final=final):
            self.write(batch)

    def close(self) -> None:
        """Writes what is left and lets go of the file."""
        self.save(final=True)
        self._file.close()

    def _troubled(self, error: OSError) -> None:
        if self.trouble is None:
            log.error(
                "ledger_not_written",
                file=str(self.path),
                detail=str(error),
                action="kept in memory",
            )
        self.trouble = str(error)

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.warning("ledger_written_again", file=str(self.path))
        self.trouble = None
