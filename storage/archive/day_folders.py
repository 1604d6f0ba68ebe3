"""Old days as Parquet, one folder a day.

Any engine can read the files, and storage reads them together with the history file. A day is
archived in three steps, and a crash may come between any two of them.

1. The files of the other tables are written and fsynced, then the file of `pings`. It makes the
   folder a partition, and its metadata tells how many rows the other files have.
2. One transaction deletes the day's rows and records the partition's generation.
3. Files of other generations no longer count; a later sweep removes them.

An outcome that comes late for an archived day makes a new generation.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog
from msgspec.json import encode

from bus.settings import Settings
from storage.engine.bounds import FIRST_US
from storage.engine.database import (
    Connection,
    execute_all,
    rows_as,
    sql,
    transaction,
    value_of,
)
from storage.engine.literals import quoted
from storage.engine.partitions import (
    DAY_US,
    TABLES,
    Partition,
    PartitionFile,
    Partitions,
    day_bounds,
    label,
    partition_files,
)

log = structlog.get_logger("storage")

Content = dict[str, tuple[int, int]]  # the number of rows and a hash of them, by table


class _ArchivedDay(NamedTuple):
    day: int
    generation: int
    pings: int
    gpus: int | None
    incidents: int | None
    evidence: int | None


class _TableContent(NamedTuple):
    table: str
    rows: int
    hash: int


def days(connection: Connection) -> dict[int, Partition]:
    """Returns the archived days, as the transaction of this connection sees them."""
    text = "SELECT day, generation, pings, gpus, incidents, evidence FROM archived"
    found = {}
    for row in rows_as(_ArchivedDay, connection, text):
        rows = {table: getattr(row, table) for table in TABLES}
        found[row.day] = Partition(row.generation, rows)
    return found


def partitions(connection: Connection, folder: Path) -> Partitions:
    """Returns the archived days and the folder that has their files."""
    return Partitions(folder, days(connection))


def content(connection: Connection, folder: Path) -> Content:
    """Returns counts and hashes of all that history has, archive included."""
    return content_of(connection, partitions(connection, folder))


def content_of(connection: Connection, known: Partitions) -> Content:
    """Returns counts and hashes of what the history file and these partitions have."""
    found = rows_as(_TableContent, connection, known.fill(sql("fingerprint")))
    return {row.table: (row.rows, row.hash) for row in found}


def record(
    connection: Connection,
    day: int,
    partition: Partition,
) -> None:
    """Makes this partition the one that counts for the day, within the caller's transaction."""
    values = {"day": day, "generation": partition.generation, **partition.rows}
    execute_all(connection, sql("record_day"), values)


def retention_cutoff_us(connection: Connection) -> int:
    """Returns the time before which retention has expired all outcomes, in microseconds.

    FIRST_US where it has expired none.
    """
    cutoff_us: int | None = value_of(connection, "SELECT max(until_us) FROM forgotten")
    if cutoff_us is None:
        return FIRST_US
    return cutoff_us


def archive_step(
    connection: Connection,
    known: Partitions,
    settings: Settings,
    now_us: int,
    due_before: int | None = None,
) -> bool:
    """Expires what retention does not keep, and archives one day that is old enough.

    Days before `due_before` (since 1970) are archived whatever the setting is.
    Returns whether a day was archived, for then there may be another. Otherwise the archive is
    swept.
    """
    today = now_us // DAY_US
    _expire_old_days(connection, known, today - settings.STORAGE_RETENTION_DAYS)
    oldest_us = value_of(connection, "SELECT min(pinged_us) FROM pings")
    archive_before = today - settings.STORAGE_ARCHIVE_AFTER_DAYS
    if due_before is not None:
        archive_before = max(archive_before, due_before)
    if oldest_us is None or oldest_us // DAY_US >= archive_before:
        _sweep(connection, known)
        return False
    archive_day(connection, known, oldest_us // DAY_US)
    return True


def days_in_file_only(connection: Connection, before_us: int) -> int:
    """Returns how many days have rows that are neither in the archive nor in the stream.

    `before_us` is where the stream begins. Today is one of them where the stream begins today.
    """
    days: int = value_of(
        connection,
        sql("days_in_file_only"),
        {"day_us": DAY_US, "before_us": before_us},
    )
    return days


def archive_day(
    connection: Connection,
    known: Partitions,
    day: int,
) -> None:
    """Moves the rows of a day, late ones included, into a partition of a new generation."""
    newest = 0
    for file in partition_files(known.folder):
        if file.day == day:
            newest = max(newest, file.generation)
    generation = newest + 1
    rows = write_day(connection, known, day, generation)
    partition = Partition(generation, rows)
    with transaction(connection):
        execute_all(connection, sql("delete_live"), day_bounds(day))
        record(connection, day, partition)
    known.days[day] = partition
    log.info(
        "day_archived",
        day=label(day),
        pings=rows["pings"],
        generation=generation,
    )


def write_day(
    connection: Connection,
    known: Partitions,
    day: int,
    generation: int,
) -> dict[str, int]:
    """Writes the files of a day and fsyncs them.

    They do not count until `record`. Returns the rows by table.

    `pings` comes last: files that a crash leaves without it are not a partition.
    """
    rows: dict[str, int] = {}
    for table in reversed(TABLES):
        file = known.file(day, table, generation)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        text = sql(f"archive_{table}").replace("{beside}", encode(rows).decode())
        rows[table] = _copy(connection, known, text, day, partial)
        if rows[table] or table == "pings":
            _make_durable(partial, file)
        else:
            partial.unlink()
    return rows


def _copy(
    connection: Connection,
    known: Partitions,
    text: str,
    day: int,
    partial: Path,
) -> int:
    """Writes one file and returns its rows.

    COPY has no parameters, so the values are put into its text.
    """
    bounds = day_bounds(day)
    for name, value in bounds.items():
        text = text.replace(f"{{{name}}}", str(value))
    text = known.fill(text, bounds["since_us"], bounds["until_us"] - 1)
    text = text.replace("{file}", quoted(partial))
    return int(value_of(connection, text))


def _make_durable(partial: Path, file: Path) -> None:
    """Fsyncs a file, gives it its name, and fsyncs its folder, which has the name."""
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _expire_old_days(
    connection: Connection,
    known: Partitions,
    before_day: int,
) -> None:
    oldest_us = value_of(connection, known.fill("SELECT min(pinged_us) FROM {pings}"))
    if oldest_us is not None and oldest_us < before_day * DAY_US:
        expire(connection, known, before_day)


def expire(
    connection: Connection,
    known: Partitions,
    before_day: int,
) -> None:
    """Removes all outcomes before that day from the history.

    Their files are removed by a later sweep.
    """
    with transaction(connection):
        execute_all(connection, sql("expire"), {"until_us": before_day * DAY_US})
    for day in list(known.days):
        if day < before_day:
            del known.days[day]
    log.info("history_expired", before=label(before_day))


def _sweep(connection: Connection, known: Partitions) -> None:
    """Removes the files that did not count at the last sweep either.

    The first time such a file is seen it stays, for a question that began before may still read it.
    """
    stale = set(_stale_files(known, retention_cutoff_us(connection)))
    for path in stale & known.stale:
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    known.stale = stale


def _stale_files(known: Partitions, cutoff_us: int) -> Iterator[Path]:
    """Yields files of superseded generations or expired days, and files half written.

    Files that were set aside are never among them.
    """
    for file in partition_files(known.folder):
        if file.path.suffix not in {".parquet", ".partial"} or file.path.is_dir():
            continue
        archived = file.day in known.days
        expired = file.day * DAY_US < cutoff_us
        if (archived or expired) and not _counts(known, file):
            yield file.path


def _counts(known: Partitions, file: PartitionFile) -> bool:
    partition = known.days.get(file.day)
    if partition is None or file.path.suffix != ".parquet":
        return False
    return file.generation == partition.generation
