"""Keeps a ledger on disk: opens it, queues its new records, writes them, and survives a full disk.

`take_batch` is called in the event loop, `write` may run in a thread, one at a time: a slow disk
then delays neither checks nor answers. kill -9 loses at most what was not yet handed to `write`,
which is one check.
"""

import secrets
from pathlib import Path
from typing import NamedTuple

import structlog

from agentd.ledger.chain import LedgerChain, SealKey
from agentd.ledger.file import LedgerFile
from agentd.ledger.ledger import ClockReading, Ledger
from agentd.ledger.records import (
    FORMAT,
    CountedUntil,
    LedgerCreated,
    Progress,
    Record,
)
from bus.settings import Settings

log = structlog.get_logger("agentd.ledger.store")

# The file is written anew once it has grown by this much, and by no less than its last full length:
# twice a day.
REWRITE_BYTES = 256 * 1024
# With more records than this waiting for a slow disk, they are dropped and the next write is the
# whole ledger, which has them too.
MOST_QUEUED = 10_000


class Batch(NamedTuple):
    """Lines for the file: appended, or (`whole`) in place of everything that is there.

    `head` is the newest head of a report in them, or before them.
    """

    lines: bytes
    head: str
    whole: bool
    sync: bool


class LedgerStore:
    """A ledger and its file.

    `write_error` says why the last write failed; None when it succeeded. `synced_head` is the head
    of the newest report whose record is on the disk: what a power cut leaves contains it.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        seal_key: SealKey | None = None,
    ) -> None:
        self._file = LedgerFile(path)
        self._settings = settings
        self._chain = LedgerChain(seal_key)
        self._queued: list[Record] = []
        self._queued_lines: list[bytes] = []
        self.synced_head = ""
        self._write_whole = True
        self._whole_bytes = 0
        self._checks_unsynced = 0
        self.write_error: str | None = None
        self.ledger: Ledger

    @property
    def path(self) -> Path:
        """The ledger's file."""
        return self._file.path

    @property
    def bytes(self) -> int:
        """The file's length."""
        return self._file.size

    def open(self, wall: int) -> Ledger:
        """Loads the ledger as it was left, or begins a new one.

        Raises LedgerInUseError. A disk that refuses is only logged; the ledger then begins anew in
        memory.
        """
        records: list[Record] = []
        try:
            self._file.lock()
            records = self._file.load(wall, self._chain).records
        except OSError as error:
            self._on_write_failed(error)
        created = LedgerCreated(FORMAT, secrets.token_hex(4), wall)
        if records:
            first = records[0]
            assert isinstance(first, LedgerCreated)  # noqa: S101  # load() refuses any other file
            created = first
        self.ledger = Ledger(
            created,
            interval=self._settings.AGENT_GPU_CHECK_INTERVAL_SECONDS,
            limit=self._settings.AGENT_MAX_HISTORY_SIZE,
        )
        for record in records:
            self.ledger.apply(record)
        self.synced_head = self._chain.newest_reported
        return self.ledger

    def resume(
        self,
        session: str,
        boot: str,
        now: ClockReading,
    ) -> None:
        """Records that this process goes on with the ledger, in a session of its own."""
        self.queue(self.ledger.resume(session, boot, now))

    def stop(self, now: ClockReading) -> None:
        """Records a regular end of the process, until which the last sample counts.

        It counts for half a check interval at most.
        """
        self.queue(self.ledger.stop(now))

    def queue(self, records: list[Record]) -> None:
        """Adds records to the next batch."""
        self._queued += records
        self._queued_lines += [self._chain.line(record) for record in records]
        if len(self._queued) > MOST_QUEUED:
            self._queued.clear()
            self._queued_lines.clear()
            self._write_whole = True

    def extension(self, heads: tuple[str, ...]) -> str:
        """Says what this ledger is to the heads that the scheduler holds: see `LedgerChain`."""
        return self._chain.extension(self.ledger.created.ledger, heads)

    def take_batch(self, *, sync: bool = False) -> Batch | None:
        """What must be written now; None when there is nothing.

        With `sync` the batch is synced to the disk in any case, and not only when it has to be.
        """
        records = self._queued
        lines = self._queued_lines
        self._queued = []
        self._queued_lines = []
        if not records and not self._write_whole:
            return None
        grown = self._file.size > max(REWRITE_BYTES, 2 * self._whole_bytes)
        whole = self._write_whole or grown
        self._write_whole = False
        must_sync = self._must_sync(records) or whole or sync
        if must_sync:
            self._checks_unsynced = 0
        if whole:
            ledger = self.ledger
            data = self._chain.whole_file(ledger.created.ledger, ledger.records())
        else:
            data = b"".join(lines)
        return Batch(data, self._chain.newest_reported, whole, must_sync)

    def _must_sync(self, records: list[Record]) -> bool:
        """Whether something changed, or AGENT_CHECKPOINT_INTERVAL checks have passed."""
        changed = False
        for record in records:
            if isinstance(record, Progress):
                self._checks_unsynced += 1
            elif not isinstance(record, CountedUntil):
                changed = True
        return changed or self._checks_unsynced >= self._settings.AGENT_CHECKPOINT_INTERVAL

    def write(self, batch: Batch) -> None:
        """Writes the batch. After a failure, the next batch is the whole ledger."""
        try:
            if batch.whole:
                self._file.rewrite(batch.lines)
                self._whole_bytes = len(batch.lines)
            else:
                self._file.append(batch.lines)
                if batch.sync:
                    self._file.sync()
        except OSError as error:
            self._write_whole = True
            self._on_write_failed(error)
        else:
            if batch.sync:
                self.synced_head = batch.head
            self._on_written()

    def save(self, *, sync: bool = False) -> None:
        """`take_batch` and `write` in one, where there is no loop to keep free."""
        batch = self.take_batch(sync=sync)
        if batch is not None:
            self.write(batch)

    def close(self) -> None:
        """Writes what is queued and closes the file."""
        self.save(sync=True)
        self._file.close()

    def _on_write_failed(self, error: OSError) -> None:
        """Logs the first of several failures in a row."""
        if self.write_error is None:
            log.error(
                "ledger_write_failed",
                file=str(self.path),
                detail=str(error),
                action="kept in memory",
            )
        self.write_error = str(error)

    def _on_written(self) -> None:
        if self.write_error is not None:
            log.warning("ledger_write_recovered", file=str(self.path))
        self.write_error = None
