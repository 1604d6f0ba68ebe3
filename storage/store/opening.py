"""Opens the history of one storage: the file and its archive.

What is damaged is set aside by itself.

A partition that cannot be read is removed, and its day comes back from the stream. The history file
is set aside only where it is damaged itself, and is then made again from the archive and the
stream.
"""

from datetime import datetime
from pathlib import Path

import structlog
from msgspec import Struct

from bus.settings import Settings
from storage.archive import adoption, day_folders, inspection, repair
from storage.engine import database
from storage.engine.database import Connection, HistoryPaths
from storage.engine.errors import (
    CannotWriteError,
    DamagedError,
    FlawedError,
    StorageError,
    explained,
)
from storage.engine.partitions import Partitions
from storage.ingest.writer import Ingest

log = structlog.get_logger("storage")


class Damage(Struct):
    """The damage seen while the history was open.

    `days` are archived days that are damaged, `in_file` says so of the history file itself. This is
    remembered for the next opening, which would not see it by itself, for it reads few of the rows.
    """

    days: set[int] = set()
    in_file: bool = False

    def note(
        self,
        error: Exception,
        known: Partitions,
        file: Path,
    ) -> StorageError:
        """Returns what an error means, and notes the damage that it shows.

        A damaged partition can cause any error, so the partitions that were read are inspected
        first.
        """
        if isinstance(error, FlawedError):
            failure: StorageError = error
        else:
            failure = explained(error, file)
        if isinstance(failure, CannotWriteError):
            return failure
        flaws = inspection.find_flaws(known, known.touched, error)
        if flaws:
            self.days.update(flaws)
            return FlawedError("; ".join(flaws.values()))
        if isinstance(failure, DamagedError) and not isinstance(failure, FlawedError):
            self.in_file = True
        return failure


class HistoryOpener:
    """Opens the history file of one storage, and mends the damage that was noted."""

    def __init__(
        self,
        settings: Settings,
        paths: HistoryPaths,
        file: Path,
    ) -> None:
        self.damage = Damage()
        self._settings = settings
        self._paths = paths
        self._file = file

    def open(self, now: datetime) -> Ingest:
        """Returns the writing side of the open file. Raises CannotWriteError."""
        try:
            ingest = self._open(now)
        except CannotWriteError:
            raise
        except StorageError as error:
            self._set_aside(error, now)
            ingest = self._open(now)
        self.damage.in_file = False
        return ingest

    def _open(self, now: datetime) -> Ingest:
        """Opens the file; where a partition fails meanwhile, again without it.

        Raises StorageError.
        """
        while True:
            connection = database.open_file(self._settings, self._paths, self._file)
            known = Partitions(self._paths.archive, {})
            try:
                known = adoption.recorded(connection, self._paths.archive, now)
                self._mend(connection, known, now)
                adoption.adopt(connection, known, now)
                return Ingest(connection, known)
            except inspection.READING_ERRORS as error:
                connection.close()
                failure = self.damage.note(error, known, self._file)
                if not isinstance(failure, FlawedError):
                    raise failure from None
            except BaseException:
                connection.close()
                raise

    def _mend(
        self,
        connection: Connection,
        known: Partitions,
        now: datetime,
    ) -> None:
        """Inspects where damage was seen, and removes partitions.

        Raises DamagedError for the file itself.

        When the file is suspect, all partitions are inspected.
        """
        seen = set(self.damage.days)
        suspects = set(known.days) if self.damage.in_file else seen
        flaws = inspection.find_flaws(known, suspects)
        repair.remove(connection, known, flaws, now)
        self.damage.days -= seen
        if self.damage.in_file:
            reason = "damage was seen while it was read"
            log.warning("history_file_checked", file=str(self._file), reason=reason)
            self._read_all(connection)

    def _read_all(self, connection: Connection) -> None:
        """Reads every value in the file itself. Raises DamagedError."""
        without_archive = Partitions(self._file.parent, {})
        try:
            day_folders.content_of(connection, without_archive)
        except inspection.READING_ERRORS as error:
            raise DamagedError(f"{self._file}: {error}") from None

    def _set_aside(self, error: Exception, now: datetime) -> None:
        renamed = database.set_aside(self._file, now)
        log.error(
            "history_file_damaged",
            detail=str(error),
            set_aside=[str(path) for path in renamed],
            action="making it again from the stream and the archive",
        )
