"""Finds out whether the files of a partition are what they should be.

Each file is read whole, by itself.

A damaged Parquet file fails in many ways, and two of three of DuckDB's errors name no file
(measured). So whoever meets an error asks here which file is to blame. The history file takes no
part in it, for it may be damaged itself.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec

from bus.contract.messages import AgentId
from storage.engine.columns import partition_columns
from storage.engine.database import Connection, in_memory, rows_as, rows_of, sql
from storage.engine.dictionary import GpuNames
from storage.engine.errors import CannotWriteError, FlawedError, explained
from storage.engine.literals import quoted_list
from storage.engine.partitions import (
    ADDED_COLUMNS,
    TABLES,
    Partitions,
    day_bounds,
    label,
    rows_in,
)

# What DuckDB's Python interface raises when it reads a damaged file.
READING_ERRORS = (duckdb.Error, UnicodeDecodeError)


def _check_agent_id(text: str) -> object:
    return msgspec.convert(text, AgentId)


# Columns of text that must be readable, and what reads them. Each raises msgspec.DecodeError.
_TEXT_COLUMNS: dict[str, dict[str, Callable[[str], object]]] = {
    "pings": {
        "agent_id": _check_agent_id,
        "gpus": msgspec.json.Decoder(GpuNames).decode,
    },
    "gpus": {"reasons": msgspec.json.Decoder(tuple[str, ...]).decode},
}


class _InspectedRows(NamedTuple):
    """The row of `inspect_rows.sql`."""

    rows: int
    outside_of_day: int
    empty_columns: int
    numbered_below_1: int
    checksum: int | None


class _Described(NamedTuple):
    """A row of DESCRIBE."""

    name: str
    type: str
    null: str
    key: str | None
    default: str | None
    extra: str | None


def find_flaws(
    known: Partitions,
    days: Iterable[int],
    error: Exception | None = None,
) -> dict[int, str]:
    """Returns which of these days have a damaged partition, and what is wrong with it.

    Days that `error` names are inspected first. When they have flaws, the others are not read.
    """
    candidates = sorted(day for day in days if day in known.days)
    named = [day for day in candidates if f"day={label(day)}" in str(error)]
    with _reader(known.folder) as reader:
        flaws = _inspect_days(reader, known, named)
        if flaws:
            return flaws
        unnamed = [day for day in candidates if day not in named]
        return _inspect_days(reader, known, unnamed)


def missing_files(known: Partitions) -> dict[int, str]:
    """Returns the days of which a file does not exist. No file is read."""
    missing = {}
    for day in known.days:
        for file in known.files(day).values():
            if not file.is_file():
                missing[day] = f"{file}: it is missing"
                break
    return missing


def count_rows(
    known: Partitions,
    day: int,
    generation: int,
    *,
    once: bool = True,
) -> dict[str, int]:
    """Inspects a partition whose rows are not recorded, and returns the rows of each table.

    With `once`, an outcome that it has twice is a flaw too. Raises FlawedError with a message of
    one line.
    """
    pings = known.file(day, "pings", generation)
    files = {}
    folders = {known.folder}
    for table in TABLES:
        file = known.file(day, table, generation)
        if table == "pings" or file.exists() or file.is_symlink():
            files[table] = file
            # A person may import files that are symbolic links.
            folders.add(file.resolve().parent)
    rows = dict.fromkeys(TABLES, 0)
    with _reader(*folders) as reader, _blamed_on(pings):
        for table, file in files.items():
            rows[table] = _inspect_file(reader, table, file, day)
        for table, expected in _declared_rows(reader, pings).items():
            _check_count(known.file(day, table, generation), rows[table], expected)
        if once and _has_duplicates(reader, pings):
            raise FlawedError(f"{pings}: it has outcomes twice")
    return rows


def _inspect_days(
    reader: Connection,
    known: Partitions,
    days: list[int],
) -> dict[int, str]:
    flaws = {}
    for day in days:
        recorded = known.days[day].rows
        try:
            for table, file in known.files(day).items():
                rows = _inspect_file(reader, table, file, day)
                _check_count(file, rows, recorded[table])
        except FlawedError as flaw:
            flaws[day] = str(flaw)
    return flaws


def _check_count(
    file: Path,
    rows: int,
    expected: int | None,
) -> None:
    """Raises FlawedError when a file has other than the expected rows. None expects nothing."""
    if expected is None or rows == expected:
        return
    if rows == 0:
        raise FlawedError(f"{file}: it is missing")
    raise FlawedError(f"{file}: it has {rows} rows, not {expected}")


def _declared_rows(reader: Connection, pings: Path) -> dict[str, int]:
    """The rows of the other tables, which the file of `pings` declares in its metadata.

    Empty where another program wrote the file, or a version that did not declare them.
    """
    text = (
        "SELECT decode(value) FROM parquet_kv_metadata($file) WHERE decode(key) = 'gpuping_beside'"
    )
    declared: dict[str, int] = {}
    for (value,) in rows_of(reader, text, {"file": str(pings)}):
        declared |= msgspec.json.decode(value, type=dict[str, int])
    return {table: rows for table, rows in declared.items() if table in TABLES}


def _inspect_file(
    reader: Connection,
    table: str,
    file: Path,
    day: int,
) -> int:
    """Inspects one file and returns its rows.

    Raises FlawedError, or CannotWriteError where room or rights are the cause and not the file.
    """
    if not file.is_file():
        raise FlawedError(f"{file}: it is missing")
    with _blamed_on(file):
        _check_columns(reader, table, file)
        rows = _check_rows(reader, table, file, day)
        _check_texts(reader, table, file)
    return rows


@contextmanager
def _blamed_on(file: Path) -> Iterator[None]:
    """Turns errors of the block into FlawedError, unless room or rights are the cause."""
    try:
        yield
    except (*READING_ERRORS, msgspec.DecodeError) as error:
        failure = explained(error, file)
        if isinstance(failure, CannotWriteError):
            raise failure from None
        first_line = str(error).splitlines()[0]
        raise FlawedError(f"{file}: {first_line[:300]}") from None


def _check_columns(
    reader: Connection,
    table: str,
    file: Path,
) -> None:
    """Checks that the required columns exist with their types. The file may have others."""
    text = "DESCRIBE FROM read_parquet($file, hive_partitioning = false)"
    described = rows_as(_Described, reader, text, {"file": str(file)})
    types = {column.name: column.type for column in described}
    for column in partition_columns(table):
        found = types.get(column.name)
        if found is None and column.name in ADDED_COLUMNS.get(table, ()):
            continue
        if found is None:
            raise FlawedError(f"{file}: it has no column {column.name}")
        if found != column.plain_type:
            raise FlawedError(
                f"{file}: its column {column.name} is {found}, not {column.plain_type}"
            )


def _check_rows(
    reader: Connection,
    table: str,
    file: Path,
    day: int,
) -> int:
    """Reads every value of a file, with the types of the history file. Returns its rows."""
    columns = partition_columns(table)
    casts = ", ".join(f"{column.name}::{column.type} AS {column.name}" for column in columns)
    empty = " OR ".join(f"{column.name} IS NULL" for column in columns if column.required)
    text = sql("inspect_rows").replace("{columns}", casts).replace("{empty}", empty)
    text = text.replace("{rows}", rows_in(table, [file]))
    (found,) = rows_as(_InspectedRows, reader, text, day_bounds(day))
    if found.outside_of_day:
        raise FlawedError(f"{file}: it has {found.outside_of_day} rows outside of {label(day)}")
    if found.empty_columns:
        raise FlawedError(f"{file}: it has {found.empty_columns} rows with empty columns")
    if found.numbered_below_1:
        raise FlawedError(f"{file}: it has {found.numbered_below_1} rows numbered below 1")
    return found.rows


def _check_texts(
    reader: Connection,
    table: str,
    file: Path,
) -> None:
    """Checks that names and JSON in text columns can be read."""
    for name, read in _TEXT_COLUMNS.get(table, {}).items():
        text = f"SELECT DISTINCT {name} FROM ({rows_in(table, [file])}) WHERE {name} IS NOT NULL"  # noqa: S608  # ours
        for (value,) in rows_of(reader, text):
            try:
                read(value)
            except msgspec.DecodeError:
                raise FlawedError(f"{file}: {value[:60]!r} cannot be its {name}") from None


def _has_duplicates(reader: Connection, pings: Path) -> bool:
    text = f"SELECT 1 FROM ({rows_in('pings', [pings])}) GROUP BY agent_id, ping_seq, pinged_us"  # noqa: S608  # ours
    return bool(rows_of(reader, f"{text} HAVING count(*) > 1 LIMIT 1"))


@contextmanager
def _reader(*folders: Path) -> Iterator[Connection]:
    """Opens a database in memory that may read these folders and nothing else."""
    with in_memory() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_directories = {quoted_list(folders)}")
        connection.execute("SET enable_external_access = false")
        yield connection
