"""Imports a Parquet archive into the history file, of another history or of this one.

For `gpuping storage import`, with the service stopped. Outcomes that the file has already are left
as they are, so an import may be repeated. A day's partition is imported whole or not at all, and
each of its outcomes once. A partition that is not what it should be is refused.
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
from storage.engine.database import Connection, sql, transaction, value_of
from storage.engine.errors import StorageError, explained
from storage.engine.partitions import (
    DAY_US,
    HOUR_US,
    Partition,
    Partitions,
    day_bounds,
    label,
    rows_in,
)

log = structlog.get_logger("storage")

Progress = Callable[[int, int], None]  # called with the days imported so far, and all days


class Imported(Struct, frozen=True):
    """The days read, the outcomes that were new, and those that the history file had already."""

    days: int
    added: int
    held: int


def _no_progress(_done: int, _all: int) -> None:
    pass


def import_archive(
    settings: Settings,
    folder: Path,
    *,
    progress: Progress = _no_progress,
) -> Imported:
    """Imports every partition under `folder`.

    A partition is `day=YYYY-MM-DD/pings-N.parquet` with the files beside it. Raises
    CannotWriteError while the service runs, StorageError for a partition that cannot be read.
    """
    generations = adoption.find_generations(folder)
    if not generations:
        raise StorageError(f"{folder}: no partitions (day=YYYY-MM-DD/pings-N.parquet) there")
    paths = database.HistoryPaths(settings)
    connection = database.open_file(settings, paths)
    try:
        known = adoption.recorded(connection, paths.archive, utc_now())
        adoption.adopt(connection, known, utc_now())
        all_added = 0
        all_held = 0
        for done, day in enumerate(sorted(generations), 1):
            newest = generations[day][0]
            foreign = _inspected(folder, day, newest)
            added = _import_day(connection, known, foreign, day, paths.scratch)
            held = (foreign.days[day].rows["pings"] or 0) - added
            all_added += added
            all_held += held
            log.info(
                "day_imported",
                day=label(day),
                added=added,
                held=held,
            )
            progress(done, len(generations))
        return Imported(len(generations), all_added, all_held)
    except (*inspection.READING_ERRORS, OSError) as error:
        raise explained(error, folder) from None
    finally:
        connection.close()


def _inspected(
    folder: Path,
    day: int,
    generation: int,
) -> Partitions:
    """A day's partition after its files were inspected. Raises FlawedError."""
    foreign = Partitions(folder, {})
    rows = inspection.count_rows(foreign, day, generation, once=False)
    foreign.days[day] = Partition(generation, rows)
    return foreign


def _import_day(
    connection: Connection,
    known: Partitions,
    foreign: Partitions,
    day: int,
    scratch: Path,
) -> int:
    """Imports one partition in one transaction. Returns how many of its outcomes were new.

    The files are copied first, for the database may read its own folder only.
    """
    files = foreign.files(day)
    copies = {table: scratch / f"import-{secrets.token_hex(8)}.parquet" for table in files}
    hours = np.arange(day * DAY_US, (day + 1) * DAY_US, HOUR_US)
    added = 0
    try:
        for table, file in files.items():
            shutil.copyfile(file, copies[table])
        with transaction(connection):
            adoption.adopt_names(connection, copies["pings"])
            # `pings` comes first in TABLES and goes in last.
            for table in reversed(copies):
                added = _insert_new(connection, known, table, copies[table], day)
            if added:
                rollups.sum_again(connection, known, hours)
    finally:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
    return added


def _insert_new(
    connection: Connection,
    known: Partitions,
    table: str,
    copy: Path,
    day: int,
) -> int:
    """Inserts the rows of outcomes that history does not have. Returns how many rows that is."""
    bounds = day_bounds(day)
    text = known.fill(sql(f"import_{table}"), bounds["since_us"], bounds["until_us"] - 1)
    text = text.replace("{partition}", rows_in(table, [copy]))
    return int(value_of(connection, text, bounds))
