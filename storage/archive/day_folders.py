"""Old days as Parquet: one folder a day, readable by any engine, and read together with the file as one history.

A day moves in three steps that a crash may interrupt anywhere: write and fsync the files beside the outcomes, then the
outcomes, whose file makes it a partition and says what lies beside it; then one transaction that deletes the rows and
names the partition's generation. Files of another generation do not count; a late outcome for an archived day makes a
new generation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import structlog
from msgspec.json import encode

from bus.settings import Settings
from storage.engine.bounds import FIRST_US
from storage.engine.database import Connection, execute_all, rows_of, sql, transaction
from storage.engine.literals import quoted
from storage.engine.partitions import DAY_US, TABLES, Partition, Partitions, label, parts

log = structlog.get_logger("storage")

Content = dict[str, tuple[int, int]]  # rows and hash by table


def days(connection: Connection) -> dict[int, Partition]:
    """The archived days, as this connection's snapshot sees them."""
    rows = rows_of(connection, f"SELECT day, generation, {', '.join(TABLES)} FROM archived")  # noqa: S608  # ours
    return {
        day: Partition(generation, dict(zip(TABLES, counts, strict=True)))
        for day, generation, *counts in rows
    }


def partitions(connection: Connection, folder: Path) -> Partitions:
    """The same, and where they lie."""
    return Partitions(folder, days(connection))


def content(connection: Connection, folder: Path) -> Content:
    """Counts and hashes of all that history holds, archive included."""
    return content_of(connection, partitions(connection, folder))


def content_of(connection: Connection, known: Partitions) -> Content:
    """Counts and hashes of what the file and these partitions hold."""
    return {
        table: (count, value)
        for table, count, value in rows_of(connection, known.fill(sql("fingerprint")))
    }


def record(connection: Connection, day: int, kept: Partition) -> None:
    """Within the caller's transaction: from its end on, this partition is the day's."""
    execute_all(
        connection, sql("record_day"), {"day": day, "generation": kept.generation, **kept.rows}
    )


def retention_cutoff_us(connection: Connection) -> int:
    """Retention has let go of what is before this."""
    until_us: int | None = rows_of(connection, "SELECT max(until_us) FROM forgotten")[0][0]
    return FIRST_US if until_us is None else until_us


def tend(connection: Connection, known: Partitions, settings: Settings, now_us: int) -> bool:
    """Moves one day that is old enough, and lets go what retention does not keep; true while there is more."""
    today = now_us // DAY_US
    _forget_old(connection, known, today - settings.STORAGE_RETENTION_DAYS)
    oldest_us = rows_of(connection, "SELECT min(pinged_us) FROM pings")[0][0]
    if oldest_us is None or oldest_us // DAY_US >= today - settings.STORAGE_ARCHIVE_AFTER_DAYS:
        _sweep(connection, known)
        return False
    move_day(connection, known, oldest_us // DAY_US)
    return True


def move_day(connection: Connection, known: Partitions, day: int) -> None:
    """A day's rows, late ones included, become a partition of a new generation."""
    taken = [generation for one, _, generation, _ in parts(known.folder) if one == day]
    generation = max(taken, default=0) + 1
    kept = Partition(generation, write_day(connection, known, day, generation))
    with transaction(connection):
        execute_all(
            connection,
            sql("delete_live"),
            {"since_us": day * DAY_US, "until_us": (day + 1) * DAY_US},
        )
        record(connection, day, kept)
    known.days[day] = kept
    log.info("day_archived", day=label(day), pings=kept.rows["pings"], generation=generation)


def write_day(
    connection: Connection, known: Partitions, day: int, generation: int
) -> dict[str, int]:
    """Writes the partition and makes it last; it counts only when the transaction names it. Returns rows by table."""
    rows: dict[str, int] = {}
    for table in reversed(
        TABLES
    ):  # outcomes last: what a crash leaves without them is no partition
        file = known.file(day, table, generation)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        text = sql(f"archive_{table}").replace("{beside}", encode(rows).decode())
        rows[table] = _copy(connection, known, text, day, partial)
        if rows[table] or table == "pings":
            _settle(partial, file)
        else:
            partial.unlink()
    return rows


def _copy(connection: Connection, known: Partitions, text: str, day: int, partial: Path) -> int:
    """COPY has no parameters."""
    since_us, until_us = day * DAY_US, (day + 1) * DAY_US
    text = text.replace("{since_us}", str(since_us)).replace("{until_us}", str(until_us))
    text = known.fill(text, since_us, until_us - 1).replace("{file}", quoted(partial))
    count: int = rows_of(connection, text)[0][0]
    return count


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


def _forget_old(connection: Connection, known: Partitions, before_day: int) -> None:
    oldest_us = rows_of(connection, known.fill("SELECT min(pinged_us) FROM {pings}"))[0][0]
    if oldest_us is not None and oldest_us < before_day * DAY_US:
        forget(connection, known, before_day)


def forget(connection: Connection, known: Partitions, before_day: int) -> None:
    """Lets go of all before that day; their files are swept later."""
    with transaction(connection):
        execute_all(connection, sql("forget"), {"until_us": before_day * DAY_US})
    for day in [day for day in known.days if day < before_day]:
        del known.days[day]
    log.info("history_forgotten", before=label(before_day))


def _sweep(connection: Connection, known: Partitions) -> None:
    """Removes files that did not count at the last sweep either: until then a question might have been reading them."""
    stale = set(_stale(known, retention_cutoff_us(connection)))
    for path in stale & known.stale:
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    known.stale = stale


def _stale(known: Partitions, kept_from_us: int) -> Iterator[Path]:
    """Other generations of archived days, half written files, and what was forgotten; never what was set aside."""
    for day, _, generation, path in parts(known.folder):
        counts = (
            day in known.days
            and generation == known.days[day].generation
            and path.suffix == ".parquet"
        )
        superseded = day in known.days or day * DAY_US < kept_from_us
        if (
            superseded
            and not counts
            and path.suffix in {".parquet", ".partial"}
            and not path.is_dir()
        ):
            yield path
