"""Takes a Parquet archive of another history (or of this one, long ago) into the history file.

For people, with the service stopped. Outcomes that are held already are left as they are, so it may be done twice;
a day's partition goes in whole or not at all, each outcome once. One that is not what it should be is refused.
"""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import structlog
from msgspec import Struct

from bus.clock import utc_now
from bus.settings import Settings
from storage.archive import adoption, inspection
from storage.engine import database, rollups
from storage.engine.database import Connection, rows_of, sql, transaction
from storage.engine.errors import StorageError, explained
from storage.engine.partitions import DAY_US, HOUR_US, Partition, Partitions, label, rows_in

log = structlog.get_logger("storage")

Progress = Callable[[int, int], None]  # days taken in, days there


class Imported(Struct, frozen=True):
    """Days read, outcomes that were new, and those that were held already."""

    days: int
    added: int
    held: int


def import_archive(
    settings: Settings, folder: Path, *, progress: Progress = lambda _done, _there: None
) -> Imported:
    """Every partition under `folder` (`day=YYYY-MM-DD/pings-N.parquet` and what lies beside it).

    Raises CannotWriteError while the service runs, StorageError for a partition that cannot be read.
    """
    foreign = adoption.found(folder)
    if not foreign:
        raise StorageError(f"{folder}: no partitions (day=YYYY-MM-DD/pings-N.parquet) there")
    paths = database.HistoryPaths(settings)
    connection = database.open_file(settings, paths)
    try:
        known = adoption.recorded(connection, paths.archive, utc_now())
        adoption.adopt(connection, known, utc_now())
        added = held = 0
        for done, (day, generations) in enumerate(sorted(foreign.items()), 1):
            new, there = _day(
                connection, known, _inspected(folder, day, generations[0]), day, paths.scratch
            )
            added, held = added + new, held + there - new
            log.info("day_imported", day=label(day), added=new, held=there - new)
            progress(done, len(foreign))
        return Imported(len(foreign), added, held)
    except (*inspection.READING_ERRORS, OSError) as error:
        raise explained(error, folder) from None
    finally:
        connection.close()


def _inspected(folder: Path, day: int, generation: int) -> Partitions:
    """A day's partition whose files are what they should be. Raises FlawedError."""
    foreign = Partitions(folder, {})
    foreign.days[day] = Partition(
        generation, inspection.counted(foreign, day, generation, once=False)
    )
    return foreign


def _day(
    connection: Connection, known: Partitions, foreign: Partitions, day: int, scratch: Path
) -> tuple[int, int]:
    """One partition in one transaction: how many of its outcomes were new, and how many it has."""
    hours = np.arange(day * DAY_US, (day + 1) * DAY_US, HOUR_US)
    copies = {
        table: scratch / f"import-{secrets.token_hex(8)}.parquet" for table in foreign.files(day)
    }
    try:
        for table, file in foreign.files(day).items():
            shutil.copyfile(file, copies[table])  # the database may read its own folder only
        with transaction(connection):
            adoption.adopt_names(connection, copies["pings"])
            new = {
                table: _insert(connection, known, table, copies[table], day)
                for table in reversed(copies)
            }
            if new["pings"]:
                rollups.make_again(connection, known, hours)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
    return new["pings"], foreign.days[day].rows["pings"] or 0


def _insert(connection: Connection, known: Partitions, table: str, copy: Path, day: int) -> int:
    """What is not held yet; returns how much that is."""
    since_us, until_us = day * DAY_US, (day + 1) * DAY_US
    text = known.fill(sql(f"import_{table}"), since_us, until_us - 1).replace(
        "{partition}", rows_in(table, [copy])
    )
    count: int = rows_of(connection, text, {"since_us": since_us, "until_us": until_us})[0][0]
    return count
