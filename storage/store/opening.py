"""Opens the history of one storage: the file and its archive. What is damaged is set aside by itself.

A partition that cannot be read is let go, and its day comes back from the stream; the file is set aside only for its
own damage, and made again from the archive and the stream.
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
    """What was seen while the history was open. Then opening alone proves nothing, for it reads few of the rows."""

    days: set[int] = set()
    in_file: bool = False

    def note(self, error: Exception, known: Partitions, file: Path) -> StorageError:
        """What an error means; a damaged partition fails in any way, so those that were read are looked at first."""
        failure = error if isinstance(error, FlawedError) else explained(error, file)
        if isinstance(failure, CannotWriteError):
            return failure
        if flaws := inspection.find_flaws(known, known.touched, error):
            self.days.update(flaws)
            return FlawedError("; ".join(flaws.values()))
        self.in_file |= isinstance(failure, DamagedError) and not isinstance(failure, FlawedError)
        return failure


def opened(
    settings: Settings, paths: HistoryPaths, file: Path, damage: Damage, now: datetime
) -> Ingest:
    """The writing side of the open file; `damage` is mended when this returns. Raises CannotWriteError."""
    try:
        ingest = _opened(settings, paths, file, damage, now)
    except CannotWriteError:
        raise
    except StorageError as error:
        _set_aside(file, error, now)
        ingest = _opened(settings, paths, file, damage, now)
    damage.in_file = False
    return ingest


def _opened(
    settings: Settings, paths: HistoryPaths, file: Path, damage: Damage, now: datetime
) -> Ingest:
    connection, known = database.open_file(settings, paths, file), Partitions(paths.archive, {})
    try:
        known = adoption.recorded(connection, paths.archive, now)
        _mend(connection, known, file, damage, now)
        adoption.adopt(connection, known, now)
        return Ingest(connection, known)
    except inspection.READING_ERRORS as error:
        connection.close()
        failure = damage.note(error, known, file)
        if not isinstance(failure, FlawedError):
            raise failure from None
    except BaseException:
        connection.close()
        raise
    return _opened(settings, paths, file, damage, now)  # without the partitions that failed


def _mend(
    connection: Connection, known: Partitions, file: Path, damage: Damage, now: datetime
) -> None:
    """Looks at what damage was seen in. Lets go of partitions; raises DamagedError for the file itself."""
    seen = set(damage.days)
    repair.remove(
        connection, known, inspection.find_flaws(known, known.days if damage.in_file else seen), now
    )
    damage.days -= seen
    if damage.in_file:
        log.warning(
            "history_file_checked", file=str(file), reason="damage was seen while it was read"
        )
        _read_all(connection, file)


def _read_all(connection: Connection, file: Path) -> None:
    """Reads every column of every row of the file itself. Raises DamagedError."""
    try:
        day_folders.content_of(connection, Partitions(file.parent, {}))
    except inspection.READING_ERRORS as error:
        raise DamagedError(f"{file}: {error}") from None


def _set_aside(file: Path, error: Exception, now: datetime) -> None:
    moved = database.set_aside(file, now)
    log.error(
        "history_file_damaged",
        detail=str(error),
        set_aside=[str(path) for path in moved],
        action="making it again from the stream and the archive",
    )
