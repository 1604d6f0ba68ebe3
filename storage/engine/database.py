"""Opens the history file, limits what DuckDB may do, and runs statements in it.

One process owns the file. One thread owns the connection that writes, and readers have cursors of
their own. Every statement of more than a line lies in a `.sql` file beside its user. This module
does not know the bus.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import msgspec
import structlog

from bus.settings import Settings
from storage.engine.errors import CannotWriteError, DamagedError, explained
from storage.engine.literals import quoted

log = structlog.get_logger("storage")

FORMAT = "v1.5.0"  # DuckDB 1.5 and 2.0 read this file format
SCHEMA_VERSION = 3

# Memory of the process that DuckDB does not count: Python, messages on their way, fragmentation.
# 280 MB were measured.
OUTSIDE_DUCKDB_MB = 384
LEAST_MB = 64

# A day's partition of 10,000 agents is read with less than this.
IN_MEMORY_MB = 256

_HERE = Path(__file__).parent
_INCLUDED = re.compile(r"\{> (\w+)\}")

Connection = duckdb.DuckDBPyConnection
Row = TypeVar("Row")


@cache
def sql(name: str) -> str:
    """Returns the text of `<name>.sql`, which lies in the sub-package that uses it.

    A mark such as `{> other}` stands for the text of another file. File names are unique within
    `storage`. Raises KeyError when there is no such file.
    """
    text = _statement_files()[name].read_text()
    return _INCLUDED.sub(lambda mark: sql(mark[1]), text)


@cache
def _statement_files() -> dict[str, Path]:
    return {path.stem: path for path in _HERE.parent.rglob("*.sql")}


@cache
def schema() -> str:
    """Returns the statements that create the tables of a history file."""
    return (_HERE / "schema.sql").read_text()


class HistoryPaths:
    """The files and folders of one storage. STORAGE_NAME keeps replicas on one machine apart."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir / "storage"
        self.file = self.folder / f"{settings.STORAGE_NAME}.duckdb"
        self.archive = self.folder / f"{settings.STORAGE_NAME}.archive"
        self.scratch = self.folder / f"{settings.STORAGE_NAME}.tmp"

    def make(self) -> None:
        """Creates the folders that do not exist yet. Raises CannotWriteError."""
        try:
            for folder in (self.folder, self.archive, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, self.folder) from None


def open_file(
    settings: Settings,
    paths: HistoryPaths,
    file: Path | None = None,
) -> Connection:
    """Opens the history file, and creates it with its schema when it does not exist.

    Raises CannotWriteError when the file cannot be used now, DamagedError when its content is not
    ours.
    """
    paths.make()
    if file is None:
        file = paths.file
    connection = duckdb.connect(":memory:")
    try:
        _lock_down(connection, settings, paths, file)
        _ensure_schema(connection)
        connection.execute(sql("macros"))
    except (duckdb.Error, OSError) as error:
        connection.close()
        raise explained(error, file) from None
    except BaseException:
        connection.close()
        raise
    return connection


def reading_cursor(connection: Connection) -> Connection:
    """Returns a cursor for questions.

    Schema path and macros belong to a cursor, so each one gets its own.
    """
    cursor = connection.cursor()
    cursor.execute("USE history")
    cursor.execute(sql("macros"))
    return cursor


@contextmanager
def in_memory() -> Iterator[Connection]:
    """Opens a small database in memory, for work that must not depend on the history file."""
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"SET memory_limit = '{IN_MEMORY_MB}MB'")
        connection.execute("SET temp_directory = ''")
        connection.execute("SET threads = 2")
        yield connection
    finally:
        connection.close()


def engine_memory_mb(settings: Settings) -> int:
    """Returns the memory that DuckDB may use, in megabytes.

    With it the whole process stays below STORAGE_MEMORY_LIMIT_MB, where that is 600 or more. DuckDB
    always gets at least half of the limit: with too little, questions are refused and old days
    cannot be archived.
    """
    limit = settings.STORAGE_MEMORY_LIMIT_MB
    return max(LEAST_MB, limit // 2, limit - OUTSIDE_DUCKDB_MB)


def set_aside(file: Path, now: datetime) -> list[Path]:
    """Renames a damaged file and its write-ahead log.

    So people can still save what is in them. Returns the new names.
    """
    stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
    renamed = []
    for path in (file, file.with_name(file.name + ".wal")):
        if path.exists():
            renamed.append(path.rename(path.with_name(f"{path.name}.damaged-{stamp}")))
    return renamed


def _lock_down(
    connection: Connection,
    settings: Settings,
    paths: HistoryPaths,
    file: Path,
) -> None:
    """Limits memory and files to what belongs to this storage.

    No later statement can lift the limits.
    """
    run = connection.execute
    run(f"SET memory_limit = '{engine_memory_mb(settings)}MB'")
    run("SET threads = 2")
    run(f"SET temp_directory = {quoted(paths.scratch)}")
    run("SET autoinstall_known_extensions = false")
    run("SET autoload_known_extensions = false")
    run("SET preserve_insertion_order = false")
    run("SET TimeZone = 'UTC'")
    run("SET wal_autocheckpoint = '64MB'")
    run(f"ATTACH {quoted(file)} AS history (STORAGE_VERSION '{FORMAT}')")
    run("USE history")
    run(f"SET allowed_directories = [{quoted(paths.folder)}]")
    run("SET enable_external_access = false")
    run("SET lock_configuration = true")


def _ensure_schema(connection: Connection) -> None:
    text = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'history'"
    if value_of(connection, text) == 0:
        with transaction(connection):
            connection.execute(schema())
        return
    try:
        found = connection.execute("SELECT schema_version FROM about").fetchone()
    except duckdb.CatalogException:
        raise DamagedError("the history file is not ours: it has no table `about`") from None
    for version in range(1, SCHEMA_VERSION):
        if found == (version,):
            with transaction(connection):
                execute_all(connection, sql(f"upgrade_{version}"), {})
            found = (version + 1,)
    if found != (SCHEMA_VERSION,):
        raise CannotWriteError(
            f"the history file has schema {found}, and this program needs ({SCHEMA_VERSION},)"
        )
    connection.execute(sql("added_columns"))


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commits what the block does, or nothing of it when the block raises."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        try:
            connection.execute("ROLLBACK")
        except duckdb.Error as error:
            # DuckDB has ended the transaction already. The error that is on its way says more.
            log.debug("rollback_failed", detail=str(error))
        raise


def execute_all(
    connection: Connection,
    text: str,
    parameters: dict[str, Any],
) -> None:
    """Runs every statement of a text, each with the parameters that it names.

    DuckDB's own `execute` passes parameters to the last statement only.
    """
    for statement in connection.extract_statements(text):
        named = {name: parameters[name] for name in statement.named_parameters}
        connection.execute(statement, named)


def rows_of(
    cursor: Connection,
    text: str,
    parameters: dict[str, Any] | None = None,
) -> list[tuple[Any, ...]]:
    """Runs one question and returns its rows."""
    return cursor.execute(text, parameters or {}).fetchall()


def rows_as(
    kind: Callable[..., Row],
    cursor: Connection,
    text: str,
    parameters: dict[str, Any] | None = None,
) -> list[Row]:
    """Runs one question and returns its rows as `kind`, a NamedTuple or Struct.

    The fields of `kind` stand in the order of the question's columns.
    """
    found = rows_of(cursor, text, parameters)
    return [kind(*values) for values in found]


def value_of(
    cursor: Connection,
    text: str,
    parameters: dict[str, Any] | None = None,
) -> Any:
    """Runs a question that has one row of one column, and returns that value."""
    ((value,),) = rows_of(cursor, text, parameters)
    return value


def listed(values: Iterable[object]) -> str:
    """Returns a list as JSON, to be passed to `from_json` as a parameter.

    A thousand ids cost 100 ms when they are bound as a list, and 0.1 ms as JSON (measured).
    """
    return msgspec.json.encode(list(values)).decode()
