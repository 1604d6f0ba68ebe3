"""Where the rows of a stretch of time are: in the file, in Parquet partitions by day, or in both.

Questions are written against `{pings}`, `{gpus}`, `{incidents}` and `{evidence}`; this puts in the table, or the
table and just those partitions that the stretch touches. Nobody else need know what is archived.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

from msgspec import Struct

from storage.engine.bounds import FIRST_US, LAST_US
from storage.engine.database import sql
from storage.engine.literals import quoted_list

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

# a partition names agents and GPUs in full, so that any engine reads it and a rebuild can number them anew
_ARCHIVED = {
    "pings": """(
        SELECT * FROM pings
        UNION ALL BY NAME
        SELECT a.agent, s.gpu_set, x.* EXCLUDE (agent_id, gpus)
        FROM ({partition}) AS x
        JOIN agents AS a USING (agent_id)
        LEFT JOIN gpu_sets AS s ON s.gpus = x.gpus)""",
}
_BESIDE = """(
        SELECT * FROM {table}
        UNION ALL BY NAME
        SELECT a.agent, x.* EXCLUDE (agent_id)
        FROM ({partition}) AS x
        JOIN agents AS a USING (agent_id))"""
TABLES = ("pings", "gpus", "incidents", "evidence")
_MARK = re.compile(rf"{{({'|'.join(TABLES)})}}")
_EPOCH = date(1970, 1, 1)
_PART = re.compile(rf"({'|'.join(TABLES)})-([1-9][0-9]{{0,8}})\.")


class Partition(Struct, frozen=True):
    """A day's partition: the generation of files that counts, and the rows of each. Without rows there is no file.

    None: from before rows were counted; then what is there counts.
    """

    generation: int
    rows: Mapping[str, int | None]


class Partitions:
    """The days that are archived, and how to read them together with the tables."""

    def __init__(self, folder: Path, days: dict[int, Partition]) -> None:
        self.folder = folder
        self.days = days
        self.touched: set[int] = set()  # the days that questions were given so far
        self.stale: set[Path] = set()  # files that did not count when they were last looked at

    def file(self, day: int, table: str, generation: int | None = None) -> Path:
        """A partition's file, of the generation that counts unless it is said."""
        generation = self.days[day].generation if generation is None else generation
        return self.folder / f"day={label(day)}" / f"{table}-{generation}.parquet"

    def files(self, day: int) -> dict[str, Path]:
        """The files that the day must have, by table."""
        return {table: self.file(day, table) for table in TABLES if self._has(day, table)}

    def fill(self, text: str, since_us: int = FIRST_US, until_us: int = LAST_US) -> str:
        """A question's text with its tables put in, for outcomes pinged in `[since, until]`."""
        return _MARK.sub(
            lambda mark: self._source(mark[1], since_us, until_us), text
        )  # at once: a path may say "{gpus}"

    def _has(self, day: int, table: str) -> bool:
        rows = self.days[day].rows[table]
        return self.file(day, table).exists() if rows is None else rows > 0

    def _source(self, table: str, since_us: int, until_us: int) -> str:
        within = [day for day in self.days if since_us // DAY_US <= day <= until_us // DAY_US]
        touched = sorted(day for day in within if self._has(day, table))
        self.touched.update(touched)
        if not touched:
            return table
        read = rows_in(
            table, [self.file(day, table) for day in touched]
        )  # one that is missing must be seen to be
        return _ARCHIVED.get(table, _BESIDE).replace("{table}", table).replace("{partition}", read)


def rows_in(table: str, files: Iterable[Path]) -> str:
    """A SELECT of a table's rows in these files, with the columns that a partition has and no others."""
    return sql(f"partition_{table}").replace("{files}", quoted_list(files))


def named(path: Path) -> tuple[int, str, int] | None:
    """The day, table and generation that a path names, in the one way that we write it; None for any other name."""
    day, name = day_of(path.parent.name), _PART.match(path.name)
    return None if day is None or name is None else (day, name[1], int(name[2]))


def parts(folder: Path) -> Iterator[tuple[int, str, int, Path]]:
    """Whatever has a partition's name, half written and set aside ones included."""
    for path in folder.glob("day=*/*"):
        if name := named(path):
            yield *name, path


def label(day: int) -> str:
    """A day number as a date."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def day_of(name: str) -> int | None:
    """The day of a folder's name, in the one way that we write it."""
    try:
        day = (date.fromisoformat(name.removeprefix("day=")) - _EPOCH).days
    except ValueError:
        return None
    return day if name == f"day={label(day)}" else None
