"""Old days as Parquet: one folder a day, readable by any engine, and read together with the file as one history.

A day moves in three steps that a crash may interrupt anywhere: write and fsync the partition, check it, then
one transaction that deletes the rows and names the partition's generation. Files of another generation do not
count; a late outcome for an archived day makes a new generation.
"""

import os
from datetime import date
from pathlib import Path

import structlog

from bus.settings import Settings
from storage.database import Connection, execute_all, rows_of, sql, transaction
from storage.partitions import DAY_US, TABLES, Partitions, label

log = structlog.get_logger("storage")

Content = dict[str, tuple[int, int]]  # rows and hash by table


def partitions(connection: Connection, folder: Path) -> Partitions:
    """The archived days, as this connection's snapshot sees them."""
    return Partitions(folder, dict(rows_of(connection, "SELECT day, generation FROM archived")))


def content(connection: Connection, folder: Path) -> Content:
    """Counts and hashes of all that history holds, archive included."""
    known = partitions(connection, folder)
    return {table: (count, value) for table, count, value in rows_of(connection, known.fill(sql("fingerprint")))}


def adopt(connection: Connection, folder: Path) -> Partitions:
    """Takes in partitions that the file does not know: a file made anew finds its old days here."""
    known = partitions(connection, folder)
    for day, generation in sorted(found(folder).items()):
        if day not in known.days and not _live(connection, day):
            adopt_day(connection, known, day, generation)
    return known


def adopt_day(connection: Connection, known: Partitions, day: int, generation: int) -> int:
    """One partition, its names numbered and its rows counted, in a transaction. Returns its pings."""
    file = str(known.file(day, "pings", generation))
    with transaction(connection):
        for name in ("adopt_agents", "adopt_gpu_sets"):
            connection.execute(sql(name), {"file": file})
        connection.execute(sql("adopt_day"), {"file": file, "day": day, "generation": generation})
    known.days[day] = generation
    pings: int = rows_of(connection, "SELECT pings FROM archived WHERE day = $day", {"day": day})[0][0]
    log.info("archive_day_adopted", day=label(day), pings=pings)
    return pings


def found(folder: Path) -> dict[int, int]:
    """The newest generation of each day's partition on disk."""
    newest: dict[int, int] = {}
    for file in folder.glob("day=*/pings-*.parquet"):
        day = _day_of(file.parent.name)
        generation = file.stem.rpartition("-")[2]
        if day is not None and generation.isdigit():
            newest[day] = max(newest.get(day, 0), int(generation))
    return newest


def tend(connection: Connection, known: Partitions, settings: Settings, now_us: int) -> bool:
    """Moves one day that is old enough, and lets go what retention does not keep; true while there is more."""
    today = now_us // DAY_US
    _forget(connection, known, today - settings.STORAGE_RETENTION_DAYS)
    oldest = rows_of(connection, "SELECT min(pinged_us) // 86400000000 FROM pings")[0][0]
    if oldest is None or oldest >= today - settings.STORAGE_ARCHIVE_AFTER_DAYS:
        _sweep(known)
        return False
    move_day(connection, known, oldest)
    return True


def move_day(connection: Connection, known: Partitions, day: int) -> None:
    """A day's rows, late ones included, become a partition of a new generation."""
    generation = max(known.days.get(day, 0), found(known.folder).get(day, 0)) + 1
    pings = write_day(connection, known, day, generation)
    with transaction(connection):
        execute_all(connection, sql("delete_live"), {"since_us": day * DAY_US, "until_us": (day + 1) * DAY_US})
        connection.execute("DELETE FROM archived WHERE day = $1", [day])
        connection.execute("INSERT INTO archived VALUES ($1, $2, $3)", [day, generation, pings])
    known.days[day] = generation
    log.info("day_archived", day=label(day), pings=pings, generation=generation)


def write_day(connection: Connection, known: Partitions, day: int, generation: int) -> int:
    """Writes the partition and makes it last; it counts only when the transaction names it."""
    since_us, until_us = day * DAY_US, (day + 1) * DAY_US
    pings = 0
    for table in TABLES:
        file = known.file(day, table, generation)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        text = known.fill(sql(f"archive_{table}"), since_us, until_us - 1).replace("{file}", _quoted(partial))
        text = text.replace("{since_us}", str(since_us)).replace("{until_us}", str(until_us))  # COPY has no parameters
        count: int = rows_of(connection, text)[0][0]
        if table == "pings":
            pings = count
        elif not count:
            partial.unlink()
            continue
        _settle(partial, file)
    return pings


def _settle(partial: Path, file: Path) -> None:
    """On the disk for good, under its name."""
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _forget(connection: Connection, known: Partitions, before_day: int) -> None:
    oldest = rows_of(connection, known.fill("SELECT min(pinged_us) // 86400000000 FROM {pings}"))[0][0]
    if oldest is None or oldest >= before_day:
        return
    with transaction(connection):
        execute_all(connection, sql("forget"), {"until_us": before_day * DAY_US})
    for day in [day for day in known.days if day < before_day]:
        del known.days[day]
    log.info("history_forgotten", before=label(before_day))


def _sweep(known: Partitions) -> None:
    """Removes files that do not count; not at once when they stop counting, for a question may be reading them."""
    for file in known.folder.glob("day=*/*"):
        day = _day_of(file.parent.name)
        if day is None or file.stem.rpartition("-")[2] == str(known.days.get(day)):
            continue
        file.unlink(missing_ok=True)
        if not any(file.parent.iterdir()):
            file.parent.rmdir()


def _live(connection: Connection, day: int) -> bool:
    asked = {"since_us": day * DAY_US, "until_us": (day + 1) * DAY_US}
    text = "SELECT 1 FROM pings WHERE pinged_us >= $since_us AND pinged_us < $until_us LIMIT 1"
    return bool(rows_of(connection, text, asked))


def _day_of(name: str) -> int | None:
    try:
        return date.fromisoformat(name.removeprefix("day=")).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
