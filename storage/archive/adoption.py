"""Adds archived days to a history file that does not know them.

So a file that was made anew finds its old days. The files stay where they are. Each day is
inspected first; one that is not what it should be is set aside, and the others are added.
"""

from datetime import datetime
from pathlib import Path

import structlog

from storage.archive import day_folders, inspection, repair
from storage.engine.database import Connection, rows_of, sql, transaction, value_of
from storage.engine.errors import FlawedError
from storage.engine.partitions import (
    DAY_US,
    TABLES,
    Partition,
    Partitions,
    day_bounds,
    label,
    parse_path,
)

log = structlog.get_logger("storage")


def recorded(
    connection: Connection,
    folder: Path,
    now: datetime,
) -> Partitions:
    """Returns the partitions that the history file knows.

    Those that have lost a file are removed from it first.
    """
    known = day_folders.partitions(connection, folder)
    repair.remove(connection, known, inspection.missing_files(known), now)
    repair.remove(connection, known, _count_uncounted(connection, known), now)
    return known


def adopt(
    connection: Connection,
    known: Partitions,
    now: datetime,
) -> None:
    """Adds the partitions on disk that the file does not know.

    Days of which the file has rows itself are left out, and days that retention has expired.
    """
    cutoff_us = day_folders.retention_cutoff_us(connection)
    for day, generations in sorted(find_generations(known.folder).items()):
        if day in known.days or day * DAY_US < cutoff_us or _has_rows(connection, day):
            continue
        _adopt_newest(connection, known, day, generations, now)


def adopt_names(connection: Connection, pings: Path) -> None:
    """Gives numbers to the agents and GPUs of a `pings` file that are new to the history file."""
    for name in ("adopt_agents", "adopt_gpu_sets"):
        connection.execute(sql(name), {"file": str(pings)})


def find_generations(folder: Path) -> dict[int, list[int]]:
    """Returns the generations on disk of each day's partition, the newest first."""
    generations: dict[int, list[int]] = {}
    for path in folder.glob("day=*/pings-*.parquet"):
        file = parse_path(path)
        if file is None:
            expected = "day=YYYY-MM-DD/pings-N.parquet"
            log.warning("archive_name_ignored", path=str(path), expected=expected)
        else:
            generations.setdefault(file.day, []).append(file.generation)
    for numbers in generations.values():
        numbers.sort(reverse=True)
    return generations


def _adopt_newest(
    connection: Connection,
    known: Partitions,
    day: int,
    generations: list[int],
    now: datetime,
) -> None:
    """Adds the newest generation that is intact. An older one lacks only what came late."""
    for generation in generations:
        try:
            _adopt_day(connection, known, day, generation)
        except FlawedError as flaw:
            repair.set_aside(known.folder, day, generation, str(flaw), now)
        else:
            return


def _adopt_day(
    connection: Connection,
    known: Partitions,
    day: int,
    generation: int,
) -> None:
    """Adds one partition in one transaction: its names get numbers, its rows are counted.

    Raises FlawedError.
    """
    rows = inspection.count_rows(known, day, generation)
    partition = Partition(generation, rows)
    with transaction(connection):
        adopt_names(connection, known.file(day, "pings", generation))
        day_folders.record(connection, day, partition)
    known.days[day] = partition
    log.info("archive_day_adopted", day=label(day), pings=rows["pings"])


def _count_uncounted(connection: Connection, known: Partitions) -> dict[int, str]:
    """Counts the rows that a program of schema 1 did not count.

    Returns the days whose files cannot be read, and why.
    """
    flaws = {}
    for day, partition in list(known.days.items()):
        if None not in partition.rows.values():
            continue
        rows = dict.fromkeys(TABLES, 0)
        try:
            for table, file in known.files(day).items():
                rows[table] = _rows_of_file(connection, file)
        except inspection.READING_ERRORS as error:
            flaws[day] = str(error)
            continue
        counted = Partition(partition.generation, rows)
        with transaction(connection):
            day_folders.record(connection, day, counted)
        known.days[day] = counted
    return flaws


def _rows_of_file(connection: Connection, file: Path) -> int:
    text = "SELECT count(*) FROM read_parquet($file)"
    return int(value_of(connection, text, {"file": str(file)}))


def _has_rows(connection: Connection, day: int) -> bool:
    text = "SELECT 1 FROM pings WHERE pinged_us >= $since_us AND pinged_us < $until_us LIMIT 1"
    return bool(rows_of(connection, text, day_bounds(day)))
