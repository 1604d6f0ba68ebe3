"""Takes a Parquet archive of another history (or of this one, long ago) into the history file.

For people, with the service stopped. Outcomes that are held already are left as they are, so it may be done twice;
a day's partition goes in whole or not at all.
"""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import structlog
from msgspec import Struct

from bus.settings import Settings
from storage import archive, database, rollups
from storage.database import Connection, rows_of, sql, transaction
from storage.errors import StorageError, explained
from storage.partitions import DAY_US, TABLES, Partitions, label

log = structlog.get_logger("storage")

Progress = Callable[[int, int], None]  # days taken in, days there


class Imported(Struct, frozen=True):
    """Days read, outcomes that were new, and those that were held already."""

    days: int
    added: int
    held: int


def import_archive(settings: Settings, folder: Path, *, progress: Progress = lambda _done, _there: None) -> Imported:
    """Every partition under `folder` (`day=YYYY-MM-DD/pings-N.parquet` and what lies beside it).

    Raises CannotWriteError while the service runs, StorageError for a partition that cannot be read.
    """
    foreign = Partitions(folder, archive.found(folder))
    if not foreign.days:
        raise StorageError(f"{folder}: no partitions (day=YYYY-MM-DD/pings-N.parquet) there")
    places = database.Places(settings)
    connection = database.open_file(settings, places)
    try:
        known = archive.adopt(connection, places.archive)
        added = held = 0
        for done, day in enumerate(sorted(foreign.days), 1):
            new, there = _day(connection, known, foreign, day, places.scratch)
            added, held = added + new, held + there - new
            log.info("day_imported", day=label(day), added=new, held=there - new)
            progress(done, len(foreign.days))
        return Imported(len(foreign.days), added, held)
    except (duckdb.Error, OSError) as error:
        raise explained(error, folder) from None
    finally:
        connection.close()


def _day(connection: Connection, known: Partitions, foreign: Partitions, day: int, scratch: Path) -> tuple[int, int]:
    """One partition in one transaction: how many of its outcomes were new, and how many it has."""
    since_us, until_us = day * DAY_US, (day + 1) * DAY_US
    copies = _copied(foreign, day, scratch)  # the database may read its own folder only
    try:
        with transaction(connection):
            for name in ("adopt_agents", "adopt_gpu_sets"):
                connection.execute(sql(name), {"file": str(copies["pings"])})
            new = 0
            for table, copy in copies.items():
                text = known.fill(sql(f"import_{table}"), since_us, until_us - 1)
                asked = {"file": str(copy), "since_us": since_us, "until_us": until_us}
                count: int = rows_of(connection, text, asked)[0][0]
                new = count if table == "pings" else new
            count_rows = "SELECT count(*) FROM read_parquet($file)"
            there: int = rows_of(connection, count_rows, {"file": str(copies["pings"])})[0][0]
            if new:
                rollups.make_again(connection, known, np.arange(since_us, until_us, rollups.GRAINS["fleet_hours"]))
    finally:
        for copy in copies.values():
            copy.unlink()
    return new, there


def _copied(foreign: Partitions, day: int, scratch: Path) -> dict[str, Path]:
    """Copies of a day's files in a folder of ours; details first, for they ask which outcomes are not held yet."""
    copies = {}
    for table in sorted(TABLES, key=lambda table: table == "pings"):
        if (file := foreign.file(day, table)).exists():
            copies[table] = scratch / f"import-{secrets.token_hex(8)}.parquet"
            shutil.copyfile(file, copies[table])
    return copies
