"""Whether a partition's files are what they should be: each is read whole, by itself.

A damaged Parquet file fails in many ways, and most of DuckDB's errors name no file (two of three, measured). So whoever
met an error asks here which file is to blame. The history file takes no part in it: it may be damaged itself.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb
import msgspec

from bus.contract.messages import AgentId
from storage.engine.database import Connection, in_memory, rows_of, schema, sql
from storage.engine.dictionary import GpuNames
from storage.engine.errors import CannotWriteError, FlawedError, explained
from storage.engine.literals import quoted_list
from storage.engine.partitions import DAY_US, TABLES, Partitions, label, rows_in

READING_ERRORS = (duckdb.Error, UnicodeDecodeError)  # what a damaged file can bring about
_IN_FULL = {
    "agent": ("agent_id", "VARCHAR"),
    "gpu_set": ("gpus", "VARCHAR"),
}  # in place of the file's own numbers
_TEXTS: dict[str, dict[str, Callable[[str], object]]] = {
    "pings": {
        "agent_id": lambda text: msgspec.convert(text, AgentId),
        "gpus": msgspec.json.Decoder(GpuNames).decode,
    },
    "gpus": {"reasons": msgspec.json.Decoder(tuple[str, ...]).decode},
}


def flaws(known: Partitions, days: Iterable[int], error: Exception | None = None) -> dict[int, str]:
    """What is wrong with which of these days' partitions. Those that an error names come first, and may be enough."""
    days = sorted(day for day in days if day in known.days)
    named = [day for day in days if f"day={label(day)}" in str(error)]
    with _reader(known.folder) as reader:
        return _flaws(reader, known, named) or _flaws(
            reader, known, [day for day in days if day not in named]
        )


def lacking(known: Partitions) -> dict[int, str]:
    """The days of which a file is not there; nothing is read for that."""
    absent = {
        day: [file for file in known.files(day).values() if not file.is_file()]
        for day in known.days
    }
    return {day: f"{files[0]}: it is missing" for day, files in absent.items() if files}


def counted(known: Partitions, day: int, generation: int, *, once: bool = True) -> dict[str, int]:
    """The rows of each file of a partition that nobody has counted yet. Raises FlawedError, in one line.

    `once`: an outcome that is there twice is a flaw, too.
    """
    files = {table: known.file(day, table, generation) for table in TABLES}
    there = {
        table: file
        for table, file in files.items()
        if table == "pings" or file.exists() or file.is_symlink()
    }
    folders = {
        known.folder,
        *(file.resolve().parent for file in there.values()),
    }  # a person may import what is linked
    with _reader(*folders) as reader, _blamed(files["pings"]):
        rows = {table: _inspect(reader, table, file, day) for table, file in there.items()}
        for table, expected in _beside(reader, files["pings"]).items():
            _check_count(files[table], rows.get(table, 0), expected)
        if once and _twice(reader, files["pings"]):
            raise FlawedError(f"{files['pings']}: it has outcomes twice")
    return dict.fromkeys(TABLES, 0) | rows


def _flaws(reader: Connection, known: Partitions, days: list[int]) -> dict[int, str]:
    found = {}
    for day in days:
        try:
            for table, file in known.files(day).items():
                _check_count(file, _inspect(reader, table, file, day), known.days[day].rows[table])
        except FlawedError as flaw:
            found[day] = str(flaw)
    return found


def _check_count(file: Path, rows: int, expected: int | None) -> None:
    if expected not in {rows, None}:
        raise FlawedError(
            f"{file}: it has {rows} rows, not {expected}" if rows else f"{file}: it is missing"
        )


def _beside(reader: Connection, pings: Path) -> dict[str, int]:
    """What a partition says of itself; nothing where it was written by somebody else, or long ago."""
    text = (
        "SELECT decode(value) FROM parquet_kv_metadata($file) WHERE decode(key) = 'gpuping_beside'"
    )
    for (value,) in rows_of(reader, text, {"file": str(pings)}):
        said = msgspec.json.decode(value, type=dict[str, int])
        return {table: rows for table, rows in said.items() if table in TABLES}
    return {}


def _inspect(reader: Connection, table: str, file: Path, day: int) -> int:
    """How many rows the file has. Raises FlawedError; CannotWriteError where that is not the file's fault."""
    if not file.is_file():
        raise FlawedError(f"{file}: it is missing")
    with _blamed(file):
        _check_columns(reader, table, file)
        rows = _check_rows(reader, table, file, day)
        _check_texts(reader, table, file)
    return rows


@contextmanager
def _blamed(file: Path) -> Iterator[None]:
    """What fails here is this file's fault, unless it is about room or rights."""
    try:
        yield
    except (*READING_ERRORS, msgspec.DecodeError) as error:
        failure = explained(error, file)
        if isinstance(failure, CannotWriteError):
            raise failure from None
        raise FlawedError(f"{file}: {str(error).splitlines()[0][:300]}") from None


def _check_columns(reader: Connection, table: str, file: Path) -> None:
    """Those that it must have, of the types that it must have; others may be there."""
    described = rows_of(
        reader, "DESCRIBE FROM read_parquet($file, hive_partitioning = false)", {"file": str(file)}
    )
    there = {name: kind for name, kind, *_ in described}
    for name, kind, _ in _columns(table):
        expected = "VARCHAR" if kind.startswith("ENUM") else kind
        if name not in there:
            raise FlawedError(f"{file}: it has no column {name}")
        if there[name] != expected:
            raise FlawedError(f"{file}: its column {name} is {there[name]}, not {expected}")


def _check_rows(reader: Connection, table: str, file: Path, day: int) -> int:
    columns = _columns(table)
    text = sql("inspect_rows").replace(
        "{columns}", ", ".join(f"{name}::{kind} AS {name}" for name, kind, _ in columns)
    )
    text = text.replace(
        "{empty}", " OR ".join(f"{name} IS NULL" for name, _, needed in columns if needed)
    )
    text = text.replace("{rows}", rows_in(table, [file]))
    asked = {"since_us": day * DAY_US, "until_us": (day + 1) * DAY_US}
    rows, elsewhere, empty, unnumbered, _ = rows_of(reader, text, asked)[0]
    counts = {
        f"outside of {label(day)}": elsewhere,
        "with empty columns": empty,
        "numbered below 1": unnumbered,
    }
    for what, count in counts.items():
        if count:
            raise FlawedError(f"{file}: it has {count} rows {what}")
    return int(rows)


def _check_texts(reader: Connection, table: str, file: Path) -> None:
    """Names that are no names, JSON that is none."""
    for name, read in _TEXTS.get(table, {}).items():
        text = f"SELECT DISTINCT {name} FROM ({rows_in(table, [file])}) WHERE {name} IS NOT NULL"  # noqa: S608  # ours
        for (value,) in rows_of(reader, text):
            try:
                read(value)
            except msgspec.DecodeError:
                raise FlawedError(f"{file}: {value[:60]!r} cannot be its {name}") from None


def _twice(reader: Connection, file: Path) -> bool:
    text = f"FROM ({rows_in('pings', [file])}) GROUP BY agent_id, ping_seq, pinged_us HAVING count(*) > 1 LIMIT 1"
    return bool(rows_of(reader, f"SELECT 1 {text}"))


@cache
def _columns(table: str) -> list[tuple[str, str, bool]]:
    """Name, type and whether it must be filled, of a partition's columns: those of the table, names in full."""
    with in_memory() as connection:
        connection.execute(schema())
        found = rows_of(
            connection,
            'SELECT name, type, "notnull" FROM pragma_table_info($table)',
            {"table": table},
        )
    return [(*_IN_FULL.get(name, (name, kind)), needed) for name, kind, needed in found]


@contextmanager
def _reader(*folders: Path) -> Iterator[Connection]:
    """A database of its own that may read these folders, and do nothing else."""
    with in_memory() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_directories = {quoted_list(folders)}")
        connection.execute("SET enable_external_access = false")
        yield connection
