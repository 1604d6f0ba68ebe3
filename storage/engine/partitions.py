"""Where the rows of a period are: in the history file, in the archive, or in both.

The archive has a Parquet partition for each of its days. Questions are written against `{pings}`,
`{gpus}`, `{incidents}` and `{evidence}`. `Partitions.fill` replaces each mark by the table, or by
the table and the partitions of the days that the period touches. So no question needs to know what
is archived.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from storage.engine.bounds import FIRST_US, LAST_US
from storage.engine.columns import partition_columns
from storage.engine.literals import quoted_list

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
TABLES = ("pings", "gpus", "incidents", "evidence")

# Columns, with their type, that schema 2 did not have. A partition of before lacks some of them.
ADDED_COLUMNS = {"pings": {"remarks": "VARCHAR", "enrolled_us": "BIGINT"}}

_PINGS = """(
        SELECT * FROM pings
        UNION ALL BY NAME
        SELECT a.agent, s.gpu_set, x.* EXCLUDE (agent_id, gpus)
        FROM ({partition}) AS x
        JOIN agents AS a USING (agent_id)
        LEFT JOIN gpu_sets AS s ON s.gpus = x.gpus)"""
_OTHER_TABLE = """(
        SELECT * FROM {table}
        UNION ALL BY NAME
        SELECT a.agent, x.* EXCLUDE (agent_id)
        FROM ({partition}) AS x
        JOIN agents AS a USING (agent_id))"""
# `{accountable_pings}` is `{pings}` in which a window that cannot be, because it would have begun
# before 1970, has no durations. Versions before admission kept what a host said of its length.
_ACCOUNTABLE = """(
        SELECT * REPLACE (
            CASE WHEN possible THEN up_ms END AS up_ms,
            CASE WHEN possible THEN degraded_ms END AS degraded_ms,
            CASE WHEN possible THEN down_ms END AS down_ms,
            CASE WHEN possible THEN unknown_ms END AS unknown_ms,
            CASE WHEN possible THEN excused_ms END AS excused_ms
        ) FROM (
            SELECT *,
                up_ms + degraded_ms + down_ms + unknown_ms + excused_ms <= pinged_us // 1000
                    AS possible
            FROM {source}
        ))"""
# `{possible_pings}` leaves such rows out. For sums of durations alone, without a count of pings,
# that is the same, and in half the time.
_POSSIBLE = """(
        SELECT * FROM {source}
        WHERE up_ms + degraded_ms + down_ms + unknown_ms + excused_ms <= pinged_us // 1000)"""
_MARK = re.compile(rf"{{(accountable_pings|possible_pings|{'|'.join(TABLES)})}}")
_EPOCH = date(1970, 1, 1)
_FILE_NAME = re.compile(rf"({'|'.join(TABLES)})-([1-9][0-9]{{0,8}})\.")


class Partition(Struct, frozen=True):
    """An archived day: which generation of its files counts, and how many rows each of them has.

    A table without rows has no file. The rows of a table are None where a program of schema 1 did
    not count them; such a table has the file that is found.
    """

    generation: int
    rows: Mapping[str, int | None]


class PartitionFile(NamedTuple):
    """A file of the archive and what its name says."""

    day: int
    table: str
    generation: int
    path: Path


class Partitions:
    """The archived days, and how their files are read together with the tables.

    `touched` collects the days that questions were given to read. `stale` has the files that did
    not count when the archive was last swept.
    """

    def __init__(self, folder: Path, days: dict[int, Partition]) -> None:
        self.folder = folder
        self.days = days
        self.touched: set[int] = set()
        self.stale: set[Path] = set()

    def file(
        self,
        day: int,
        table: str,
        generation: int | None = None,
    ) -> Path:
        """Returns the path of a partition's file; without `generation`, of the one that counts."""
        if generation is None:
            generation = self.days[day].generation
        return self.folder / f"day={label(day)}" / f"{table}-{generation}.parquet"

    def files(self, day: int) -> dict[str, Path]:
        """Returns the files that the day must have, by table."""
        files = {}
        for table in TABLES:
            if self._has_rows(day, table):
                files[table] = self.file(day, table)
        return files

    def fill(
        self,
        text: str,
        since_us: int = FIRST_US,
        until_us: int = LAST_US,
    ) -> str:
        """Returns a question with its marks replaced, for outcomes of a period.

        The period is from `since_us` to `until_us`, both included. All marks are replaced in one
        pass, for the path of a file may contain "{gpus}".
        """
        return _MARK.sub(lambda mark: self._source(mark[1], since_us, until_us), text)

    def _has_rows(self, day: int, table: str) -> bool:
        rows = self.days[day].rows[table]
        if rows is None:
            return self.file(day, table).exists()
        return rows > 0

    def _source(
        self,
        table: str,
        since_us: int,
        until_us: int,
    ) -> str:
        if table == "accountable_pings":
            source = self._source("pings", since_us, until_us)
            return _ACCOUNTABLE.replace("{source}", source)
        if table == "possible_pings":
            source = self._source("pings", since_us, until_us)
            return _POSSIBLE.replace("{source}", source)
        first, last = since_us // DAY_US, until_us // DAY_US
        days = []
        for day in sorted(self.days):
            if first <= day <= last and self._has_rows(day, table):
                days.append(day)
        if not days:
            return table
        self.touched.update(days)
        # A file that is missing is named all the same, so that DuckDB reports it.
        partition = rows_in(table, [self.file(day, table) for day in days])
        source = _PINGS if table == "pings" else _OTHER_TABLE
        return source.replace("{table}", table).replace("{partition}", partition)


def rows_in(table: str, files: Iterable[Path]) -> str:
    """Returns a SELECT of a table's rows in these files.

    It names each column of a partition, so that other columns of a file are left out. Columns that
    a file of an earlier schema does not have are null.
    """
    names = ", ".join(column.name for column in partition_columns(table))
    read = f"FROM read_parquet({quoted_list(files)}, hive_partitioning = false"
    added = ADDED_COLUMNS.get(table)
    if added is None:
        return f"SELECT {names} {read})"
    nulls = ", ".join(f"NULL::{kind} AS {name}" for name, kind in added.items())
    every_column = f"{read}, union_by_name = true) UNION ALL BY NAME SELECT {nulls} WHERE false"
    return f"SELECT {names} FROM ({every_column})"  # noqa: S608  # names of ours, paths quoted


def parse_path(path: Path) -> PartitionFile | None:
    """Returns what a path in the archive names.

    None where it is not written exactly as `Partitions.file` does.
    """
    day = _day_of(path.parent.name)
    name = _FILE_NAME.match(path.name)
    if day is None or name is None:
        return None
    return PartitionFile(day, name[1], int(name[2]), path)


def partition_files(folder: Path) -> Iterator[PartitionFile]:
    """Yields every file that has a partition's name, those half written and those set aside too."""
    for path in folder.glob("day=*/*"):
        parsed = parse_path(path)
        if parsed is not None:
            yield parsed


def label(day: int) -> str:
    """Returns a day number (days since 1970) as an ISO date."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def day_bounds(day: int) -> dict[str, int]:
    """Returns the half-open period of a day as the parameters `since_us` and `until_us`."""
    return {"since_us": day * DAY_US, "until_us": (day + 1) * DAY_US}


def _day_of(name: str) -> int | None:
    """The day of a folder's name. None where it is not written exactly as `label` does."""
    try:
        day = (date.fromisoformat(name.removeprefix("day=")) - _EPOCH).days
    except ValueError:
        return None
    if name != f"day={label(day)}":
        return None
    return day
