"""The history file for asyncio: one thread writes, a few read, and a file that fails is opened again.

The event loop never waits for the disk. A question that takes too long is interrupted; a disk that is full
makes ingest wait; what is damaged, the file or a partition of the archive, is set aside by itself and made again
from the stream and what is left of both.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
from msgspec import Struct

from bus.errors import UnavailableError
from bus.settings import Settings
from storage.archive import day_folders, inspection
from storage.engine import database, rollups, table_files
from storage.engine.dictionary import Dictionaries
from storage.engine.errors import CannotWriteError, DamagedError, FlawedError
from storage.engine.partitions import DAY_US, Partitions
from storage.engine.rows import Arrival, microseconds
from storage.ingest.decode import DecodedBatch, decode_batch
from storage.ingest.sequences import SequenceRanges
from storage.ingest.writer import Ingest, WriteResult
from storage.store import opening
from storage.store.query_timeout import QueryTimeout

READERS = 3
T = TypeVar("T")


class Reader(Struct, frozen=True):
    """What a question needs: a snapshot's cursor, where the rows are, and what ingest remembers anyway."""

    cursor: database.Connection
    partitions: Partitions
    names: Dictionaries
    sequences: SequenceRanges
    newest_us: int


class Prepared(Struct, frozen=True, gc=False):
    """A batch, what it says, and the names that its rows have numbers of."""

    batch: list[Arrival]
    decoded: DecodedBatch
    names: Dictionaries


class Store:
    """Open or waiting; `waiting` says why."""

    def __init__(self, settings: Settings, file: Path | None = None) -> None:
        self.settings = settings
        self.paths = database.HistoryPaths(settings)
        self.file = file or self.paths.file
        self.waiting: str | None = "starting"
        self.ingest: Ingest | None = None
        self.failed = asyncio.Event()  # the file must be opened again
        self._swept = False
        self._damage = opening.Damage()
        self._writer = ThreadPoolExecutor(1, "storage-writer")
        self._decoder = ThreadPoolExecutor(1, "storage-decoder")
        self._readers = ThreadPoolExecutor(READERS, "storage-reader")
        self._idle: asyncio.Queue[database.Connection] = asyncio.Queue()
        self._connection: database.Connection | None = None

    async def open(self, now: datetime) -> None:
        """Opens the file, a damaged one set aside first. Raises CannotWriteError; `waiting` then says why."""
        try:
            await self._in_writer(lambda: self._open(now))
        except CannotWriteError as error:
            self.waiting = str(error)
            raise
        assert self._connection  # noqa: S101  # just opened
        self._idle = asyncio.Queue()
        for _ in range(READERS):
            self._idle.put_nowait(database.reading_cursor(self._connection))
        self.waiting = None
        self.failed.clear()

    async def close(self) -> None:
        """Ends what runs, writes the log into the file, closes."""
        await self._in_writer(self._close)
        self._writer.shutdown()
        self._decoder.shutdown()
        self._readers.shutdown()

    async def prepare(self, batch: list[Arrival]) -> Prepared:
        """Decodes a batch in a thread of its own, while the one before it is written."""
        names = self._open_ingest().names
        return await asyncio.get_running_loop().run_in_executor(
            self._decoder, _prepare, batch, names
        )

    async def write(self, stream_us: int, prepared: Prepared) -> WriteResult:
        """Rows and position, committed. After CannotWriteError or DamagedError, `open` again before anything else."""

        def step() -> WriteResult:
            ingest = self._open_ingest()
            if ingest.names is not prepared.names:
                raise CannotWriteError(
                    "the history file was opened again after this batch was decoded"
                )
            return ingest.write(stream_us, prepared.batch, prepared.decoded)

        return await self._in_writer(step)

    async def seal(self, now: datetime) -> bool:
        """Sums one more day; true while there is more to do. Time is what both clocks say, ours and the outcomes'."""
        now_us = microseconds(now)

        def step() -> bool:
            ingest = self._open_ingest()
            return rollups.seal(ingest.connection, ingest.partitions, min(ingest.newest_us, now_us))

        return await self._in_writer(step)

    async def move(self, now: datetime) -> bool:
        """Moves one more old day into Parquet, and lets go what retention does not keep; true while there is more.

        Like `seal`: a clock of this host that is far ahead makes nothing old.
        """
        now_us = microseconds(now)

        def step() -> bool:
            ingest = self._open_ingest()
            more = day_folders.archive_step(
                ingest.connection, ingest.partitions, self.settings, min(ingest.newest_us, now_us)
            )
            ingest.expire()
            return more

        return await self._in_writer(step)

    async def forget(self, before_us: int) -> None:
        """Lets go of the days before this moment, whatever retention says."""

        def step() -> None:
            ingest = self._open_ingest()
            day_folders.expire(ingest.connection, ingest.partitions, before_us // DAY_US)

        await self._in_writer(step)

    async def read(self, question: Callable[[Reader], T], seconds: float | None = None) -> T:
        """Answers from a snapshot. Raises UnavailableError while the file is not open, or when it takes too long.

        `seconds`: how long it may take, where that is not STORAGE_QUERY_TIMEOUT_SECONDS.
        """
        if self.waiting is not None:
            raise UnavailableError(f"history cannot be read now: {self.waiting}")
        assert self.ingest  # noqa: S101  # open
        ingest, known = self.ingest, Partitions(self.paths.archive, {})
        idle, cursor = self._idle, await self._idle.get()
        timeout = self.settings.STORAGE_QUERY_TIMEOUT_SECONDS if seconds is None else seconds
        alarm = QueryTimeout(cursor, timeout)
        work = partial(_snapshot, cursor, ingest, known, question, alarm)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except duckdb.InterruptException:
            raise UnavailableError(
                f"the question took longer than {timeout:g} s; ask for a shorter period"
            ) from None
        except duckdb.OutOfMemoryException:
            raise UnavailableError(
                "the question needs more memory than STORAGE_MEMORY_LIMIT_MB allows"
            ) from None
        except inspection.READING_ERRORS as error:
            if idle is not self._idle:
                raise UnavailableError(
                    "the history file was opened again meanwhile; ask again"
                ) from None
            raise await self._failed(error, known, self._readers) from None
        finally:
            alarm.cancel()
            idle.put_nowait(cursor)

    def _open_ingest(self) -> Ingest:
        """Looked at where the work is done: the file may have been closed since it was ordered."""
        if self.ingest is None or self._connection is None:
            raise CannotWriteError(self.waiting or "the history file is not open")
        return self.ingest

    async def _in_writer(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)
        except (*inspection.READING_ERRORS, OSError, FlawedError) as error:
            known = self.ingest.partitions if self.ingest else Partitions(self.paths.archive, {})
            raise await self._failed(error, known, self._writer) from error

    async def _failed(self, error: Exception, known: Partitions, thread: Executor) -> Exception:
        """What it means, and whether the history must be opened again for it."""
        look = partial(self._damage.note, error, known, self.file)
        failure = await asyncio.get_running_loop().run_in_executor(thread, look)
        if isinstance(failure, CannotWriteError | DamagedError):
            self.waiting = str(failure)
            self.failed.set()
        return failure

    def _open(self, now: datetime) -> None:
        self._close()
        self.ingest = opening.opened(self.settings, self.paths, self.file, self._damage, now)
        self._connection = self.ingest.connection
        if not self._swept:  # what others wrote here, nobody offers any more: the file is ours
            table_files.sweep(self.paths.scratch)
            self._swept = True

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _snapshot(
    cursor: database.Connection,
    ingest: Ingest,
    known: Partitions,
    question: Callable[[Reader], T],
    alarm: QueryTimeout,
) -> T:
    cursor.execute("BEGIN")
    try:
        # which days are archived is part of the snapshot: a day that moves meanwhile is neither lost nor doubled
        known.days |= day_folders.days(cursor)
        return question(Reader(cursor, known, ingest.names, ingest.sequences, ingest.newest_us))
    finally:
        alarm.ended()
        cursor.execute("ROLLBACK")


def _prepare(batch: list[Arrival], names: Dictionaries) -> Prepared:
    return Prepared(batch, decode_batch(batch, names), names)
