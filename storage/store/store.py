"""The history file for asyncio.

One thread writes and a few threads read. A file that fails is opened again.

The event loop never waits for the disk. A question that takes too long is interrupted. A full disk
makes ingest wait. What is damaged, the file or a partition of the archive, is set aside by itself,
and made again from the stream and from what is left of both.
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

from bus.clock import boottime
from bus.errors import UnavailableError
from bus.settings import Settings
from storage.archive import day_folders, inspection
from storage.engine import database, rollups, table_files
from storage.engine.dictionary import Dictionaries
from storage.engine.errors import STARTING, CannotWriteError, DamagedError, FlawedError
from storage.engine.partitions import DAY_US, Partitions
from storage.engine.rows import Arrival, microseconds
from storage.ingest.decode import DecodedBatch, decode_batch
from storage.ingest.sequences import SequenceRanges
from storage.ingest.writer import Ingest, WriteResult
from storage.store.opening import HistoryOpener
from storage.store.query_timeout import QueryTimeout

READERS = 3
ENGINE_READ_SECONDS = 1.0
T = TypeVar("T")


class Reader(Struct, frozen=True):
    """A cursor in a transaction, where the rows are, and what ingest remembers.

    `newest_us` is the time of the newest outcome in the history.
    """

    cursor: database.Connection
    partitions: Partitions
    names: Dictionaries
    sequences: SequenceRanges
    newest_us: int


class Prepared(Struct, frozen=True, gc=False):
    """A decoded batch, and the dictionaries that its rows have numbers of."""

    batch: list[Arrival]
    decoded: DecodedBatch
    names: Dictionaries


class Store:
    """The history of one storage.

    It is open where `waiting` is None; otherwise `waiting` says why it is not.

    `failed` is set when the file must be opened again.
    """

    def __init__(self, settings: Settings, file: Path | None = None) -> None:
        self.settings = settings
        self.paths = database.HistoryPaths(settings)
        self.file = file or self.paths.file
        self.waiting: str | None = STARTING
        self.ingest: Ingest | None = None
        self.failed = asyncio.Event()
        self.engine_bytes: int | None = None  # memory in use by DuckDB
        self._engine_read_at = 0.0
        self._opener = HistoryOpener(settings, self.paths, self.file)
        self._scratch_swept = False
        self._writer = ThreadPoolExecutor(1, "storage-writer")
        self._decoder = ThreadPoolExecutor(1, "storage-decoder")
        self._readers = ThreadPoolExecutor(READERS, "storage-reader")
        self._idle: asyncio.Queue[database.Connection] = asyncio.Queue()
        self._connection: database.Connection | None = None

    async def open(self, now: datetime) -> None:
        """Opens the file; a damaged one is set aside first.

        Raises CannotWriteError, and `waiting` then says why.
        """
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
        """Waits for what runs, and closes the file, by which its log is written into it."""
        await self._in_writer(self._close)
        self._writer.shutdown()
        self._decoder.shutdown()
        self._readers.shutdown()

    async def prepare(self, batch: list[Arrival]) -> Prepared:
        """Decodes a batch in a thread of its own, while the batch before it may be written."""
        names = self._open_ingest().names
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoder, _prepare, batch, names)

    async def write(self, stream_us: int, prepared: Prepared) -> WriteResult:
        """Commits the rows of a batch and the position after it.

        `stream_us` is the creation time of the stream.

        After CannotWriteError or DamagedError the file must be opened again before anything else.
        """

        def step() -> WriteResult:
            ingest = self._open_ingest()
            if ingest.names is not prepared.names:
                detail = "the history file was opened again after this batch was decoded"
                raise CannotWriteError(detail)
            result = ingest.write(stream_us, prepared.batch, prepared.decoded)
            self._read_engine_memory(ingest.connection)
            return result

        return await self._in_writer(step)

    async def seal(self, now: datetime) -> bool:
        """Sums one more day. Returns whether there is more to do.

        The time that counts is the earlier of this host's clock and the newest outcome's time. So a
        clock that is far ahead seals nothing too early.
        """
        now_us = microseconds(now)

        def step() -> bool:
            ingest = self._open_ingest()
            newest_us = min(ingest.newest_us, now_us)
            return rollups.seal(ingest.connection, ingest.partitions, newest_us)

        return await self._in_writer(step)

    async def archive_next_day(self, now: datetime, due_before: int | None = None) -> bool:
        """Moves one more old day into Parquet, and expires what retention does not keep.

        Days before `due_before` (since 1970) are moved whatever the setting is.
        Returns whether there is more to do. The time that counts is the same as for `seal`.
        """
        now_us = microseconds(now)

        def step() -> bool:
            ingest = self._open_ingest()
            newest_us = min(ingest.newest_us, now_us)
            more = day_folders.archive_step(
                ingest.connection,
                ingest.partitions,
                self.settings,
                newest_us,
                due_before,
            )
            ingest.expire()
            return more

        return await self._in_writer(step)

    async def days_in_file_only(self, before_us: int) -> int:
        """Returns how many days before this time have rows that no archive holds."""

        def step() -> int:
            return day_folders.days_in_file_only(self._open_ingest().connection, before_us)

        return await self._in_writer(step)

    async def expire(self, before_us: int) -> None:
        """Expires the days before this time, whatever the retention setting is."""

        def step() -> None:
            ingest = self._open_ingest()
            day_folders.expire(ingest.connection, ingest.partitions, before_us // DAY_US)

        await self._in_writer(step)

    async def read(self, question: Callable[[Reader], T], seconds: float | None = None) -> T:
        """Answers a question from one state of the history, in a reader's thread.

        It may take `seconds`, by default STORAGE_QUERY_TIMEOUT_SECONDS. Raises UnavailableError
        when it takes longer, needs too much memory, or the file is not open.
        """
        if self.waiting is not None:
            raise UnavailableError(f"history cannot be read now: {self.waiting}")
        assert self.ingest  # noqa: S101  # open
        if seconds is None:
            seconds = self.settings.STORAGE_QUERY_TIMEOUT_SECONDS
        ingest = self.ingest
        known = Partitions(self.paths.archive, {})
        # The cursor goes back to the queue that it came from: after an opening there is a new
        # queue.
        idle = self._idle
        cursor = await idle.get()
        timeout = QueryTimeout(cursor, seconds)
        work = partial(_ask, cursor, ingest, known, question, timeout)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except duckdb.InterruptException:
            detail = f"the question took longer than {seconds:g} s; ask for a shorter period"
            raise UnavailableError(detail) from None
        except duckdb.OutOfMemoryException:
            detail = "the question needs more memory than STORAGE_MEMORY_LIMIT_MB allows"
            raise UnavailableError(detail) from None
        except inspection.READING_ERRORS as error:
            if idle is not self._idle:
                detail = "the history file was opened again meanwhile; ask again"
                raise UnavailableError(detail) from None
            raise await self._failure(error, known, self._readers) from None
        finally:
            timeout.cancel()
            idle.put_nowait(cursor)

    def _read_engine_memory(self, connection: database.Connection) -> None:
        now = boottime()
        if now - self._engine_read_at > ENGINE_READ_SECONDS:
            self._engine_read_at = now
            text = "SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()"
            self.engine_bytes = database.value_of(connection, text)

    def _open_ingest(self) -> Ingest:
        """Returns the open file's writing side. Raises CannotWriteError.

        It is called where the work is done, for the file may have been closed since the work was
        ordered.
        """
        if self.ingest is None or self._connection is None:
            raise CannotWriteError(self.waiting or "the history file is not open")
        return self.ingest

    async def _in_writer(self, work: Callable[[], T]) -> T:
        """Runs work in the writer's thread. Raises StorageError where it fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, work)
        except (*inspection.READING_ERRORS, OSError, FlawedError) as error:
            known = Partitions(self.paths.archive, {})
            if self.ingest is not None:
                known = self.ingest.partitions
            raise await self._failure(error, known, self._writer) from error

    async def _failure(
        self,
        error: Exception,
        known: Partitions,
        thread: Executor,
    ) -> Exception:
        """Returns what an error means, found out in `thread`.

        Sets `failed` where the file must be opened again.
        """
        look = partial(self._opener.damage.note, error, known, self.file)
        failure = await asyncio.get_running_loop().run_in_executor(thread, look)
        if isinstance(failure, CannotWriteError | DamagedError):
            self.waiting = str(failure)
            self.failed.set()
        return failure

    def _open(self, now: datetime) -> None:
        self._close()
        self.ingest = self._opener.open(now)
        self._connection = self.ingest.connection
        self._read_engine_memory(self._connection)
        if not self._scratch_swept:
            # The file is ours now, so whoever left files in the scratch folder has ended.
            table_files.sweep(self.paths.scratch)
            self._scratch_swept = True

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _ask(
    cursor: database.Connection,
    ingest: Ingest,
    known: Partitions,
    question: Callable[[Reader], T],
    timeout: QueryTimeout,
) -> T:
    """Answers a question within one transaction.

    Which days are archived is read in it too, so that a day which is archived meanwhile is neither
    lost nor doubled.
    """
    cursor.execute("BEGIN")
    try:
        known.days |= day_folders.days(cursor)
        reader = Reader(cursor, known, ingest.names, ingest.sequences, ingest.newest_us)
        return question(reader)
    finally:
        timeout.ended()
        cursor.execute("ROLLBACK")


def _prepare(batch: list[Arrival], names: Dictionaries) -> Prepared:
    decoded = decode_batch(batch, names)
    return Prepared(batch, decoded, names)
