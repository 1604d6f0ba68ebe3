"""Partitions that the history file does not know are taken in where they lie: a file made anew finds its old days.

Each is inspected first. One that is not what it should be is set aside, and the others come in.
"""

from datetime import datetime
from pathlib import Path

import structlog

from storage.archive import day_folders, inspection, repair
from storage.engine.database import Connection, rows_of, sql, transaction
from storage.engine.errors import FlawedError
from storage.engine.partitions import DAY_US, TABLES, Partition, Partitions, label, named

log = structlog.get_logger("storage")


def recorded(connection: Connection, folder: Path, now: datetime) -> Partitions:
    """The partitions that the file knows, without those that have lost a file."""
    known = day_folders.partitions(connection, folder)
    repair.let_go(connection, known, inspection.lacking(known), now)
    repair.let_go(connection, known, _count(connection, known), now)
    return known


def adopt(connection: Connection, known: Partitions, now: datetime) -> None:
    """Takes in the partitions that the file does not know, but for days that it holds itself or has forgotten."""
    kept_from_us = day_folders.retention_cutoff_us(connection)
    for day, generations in sorted(found(known.folder).items()):
        if day not in known.days and day * DAY_US >= kept_from_us and not _live(connection, day):
            _adopt_newest(connection, known, day, generations, now)


def adopt_names(connection: Connection, pings: Path) -> None:
    """Gives numbers to the agents and GPUs of a file that the history file does not know."""
    for name in ("adopt_agents", "adopt_gpu_sets"):
        connection.execute(sql(name), {"file": str(pings)})


def found(folder: Path) -> dict[int, list[int]]:
    """The generations of each day's partition on disk, the newest first."""
    generations: dict[int, list[int]] = {}
    for path in folder.glob("day=*/pings-*.parquet"):
        if name := named(path):
            day, _, generation = name
            generations.setdefault(day, []).append(generation)
        else:
            log.warning(
                "archive_name_ignored", path=str(path), expected="day=YYYY-MM-DD/pings-N.parquet"
            )
    return {day: sorted(those, reverse=True) for day, those in generations.items()}


def _adopt_newest(
    connection: Connection, known: Partitions, day: int, generations: list[int], now: datetime
) -> None:
    """The newest that is whole: an older one has all but what came late."""
    for generation in generations:
        try:
            _adopt_day(connection, known, day, generation)
        except FlawedError as flaw:
            repair.set_aside(known.folder, day, generation, str(flaw), now)
        else:
            return


def _adopt_day(connection: Connection, known: Partitions, day: int, generation: int) -> None:
    """One partition, its names numbered and its rows counted, in a transaction. Raises FlawedError."""
    rows = inspection.counted(known, day, generation)
    with transaction(connection):
        adopt_names(connection, known.file(day, "pings", generation))
        day_folders.record(connection, day, Partition(generation, rows))
    known.days[day] = Partition(generation, rows)
    log.info("archive_day_adopted", day=label(day), pings=rows["pings"])


def _count(connection: Connection, known: Partitions) -> dict[int, str]:
    """Counts rows where a program of schema 1 did not; returns the days whose files cannot be read."""
    flaws = {}
    for day in [day for day, kept in known.days.items() if None in kept.rows.values()]:
        try:
            rows = dict.fromkeys(TABLES, 0) | {
                t: _rows(connection, file) for t, file in known.files(day).items()
            }
        except inspection.READING_ERRORS as error:
            flaws[day] = str(error)
            continue
        kept = Partition(known.days[day].generation, rows)
        with transaction(connection):
            day_folders.record(connection, day, kept)
        known.days[day] = kept
    return flaws


def _rows(connection: Connection, file: Path) -> int:
    count: int = rows_of(
        connection, "SELECT count(*) FROM read_parquet($file)", {"file": str(file)}
    )[0][0]
    return count


def _live(connection: Connection, day: int) -> bool:
    asked = {"since_us": day * DAY_US, "until_us": (day + 1) * DAY_US}
    text = "SELECT 1 FROM pings WHERE pinged_us >= $since_us AND pinged_us < $until_us LIMIT 1"
    return bool(rows_of(connection, text, asked))
