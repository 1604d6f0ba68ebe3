"""The history file: opened, locked down, set aside when it is damaged. Every statement lives in a `.sql` file.

One process owns the file and one thread the connection that writes; readers have cursors of their own.
Nothing here knows of the bus.
"""

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

FORMAT = "v1.5.0"  # readable by DuckDB 1.5 and 2.0
SCHEMA_VERSION = 2
APART_MB = 384  # of the process, and no part of what DuckDB counts: Python, messages on their way, gaps (280 measured)
LEAST_MB = 64
BESIDE_MB = 256  # of a database beside it: a day's partition of 10,000 agents is read with less
_HERE = Path(__file__).parent

Connection = duckdb.DuckDBPyConnection
T = TypeVar("T")


@cache
def sql(name: str) -> str:
    """Returns the text of `<name>.sql`, which lies in the sub-package that uses it. File names are unique."""
    return _statement_files()[name].read_text()


@cache
def _statement_files() -> dict[str, Path]:
    return {path.stem: path for path in _HERE.parent.rglob("*.sql")}


@cache
def schema() -> str:
    """The tables of a history file."""
    return (_HERE / "schema.sql").read_text()


class HistoryPaths:
    """Where one storage keeps what: the name tells replicas on one machine apart."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir / "storage"
        self.file = self.folder / f"{settings.STORAGE_NAME}.duckdb"
        self.archive = self.folder / f"{settings.STORAGE_NAME}.archive"
        self.scratch = self.folder / f"{settings.STORAGE_NAME}.tmp"

    def make(self) -> None:
        """The folders stand when this returns. Raises CannotWriteError."""
        try:
            for folder in (self.folder, self.archive, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, self.folder) from None


def open_file(settings: Settings, paths: HistoryPaths, file: Path | None = None) -> Connection:
    """The file, made with its schema when it is new. Raises CannotWriteError or DamagedError."""
    paths.make()
    file = file or paths.file
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
    """Returns a cursor for questions. Schema path and macros belong to a cursor, so each one gets its own."""
    cursor = connection.cursor()
    cursor.execute("USE history")
    cursor.execute(sql("macros"))
    return cursor


@contextmanager
def in_memory() -> Iterator[Connection]:
    """A small database beside the history file, for what must not depend on it."""
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"SET memory_limit = '{BESIDE_MB}MB'")
        connection.execute("SET temp_directory = ''")
        connection.execute("SET threads = 2")
        yield connection
    finally:
        connection.close()


def engine_memory_mb(settings: Settings) -> int:
    """What DuckDB may take, so that the whole process stays below the limit that is set, if that is 600 MB or more.

    Never less than half: with too little, questions are refused and old days cannot be moved.
    """
    limit = settings.STORAGE_MEMORY_LIMIT_MB
    return max(LEAST_MB, limit // 2, limit - APART_MB)


def set_aside(file: Path, now: datetime) -> list[Path]:
    """Renames a damaged file and its log, so that nobody loses what may be saved by hand."""
    stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
    parts = [part for part in (file, file.with_name(file.name + ".wal")) if part.exists()]
    return [part.rename(part.with_name(f"{part.name}.damaged-{stamp}")) for part in parts]


def _lock_down(connection: Connection, settings: Settings, paths: HistoryPaths, file: Path) -> None:
    """Memory and files are limited to what is ours, and nothing can lift the limits again."""
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
    tables = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'history'"
    ).fetchone()
    if tables == (0,):
        with transaction(connection):
            connection.execute(schema())
        return
    try:
        found = connection.execute("SELECT schema_version FROM about").fetchone()
    except duckdb.CatalogException:
        raise DamagedError("the history file is not ours: it has no table `about`") from None
    if found == (1,):
        with transaction(connection):
            execute_all(connection, sql("upgrade_1"), {})
        found = (2,)
    if found != (SCHEMA_VERSION,):
        raise CannotWriteError(
            f"the history file has schema {found}, and this program needs ({SCHEMA_VERSION},)"
        )


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """All of a block or nothing of it."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        try:
            connection.execute("ROLLBACK")
        except duckdb.Error as error:  # the transaction is gone already: the first error tells more
            log.debug("rollback_refused", detail=str(error))
        raise


def execute_all(connection: Connection, text: str, parameters: dict[str, Any]) -> None:
    """Every statement of a file, each with those parameters that it names (DuckDB gives them to the last only)."""
    for statement in connection.extract_statements(text):
        connection.execute(
            statement, {name: parameters[name] for name in statement.named_parameters}
        )


def rows_of(
    cursor: Connection, text: str, parameters: dict[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """One question, its rows."""
    return cursor.execute(text, parameters or {}).fetchall()


def rows_as(
    kind: Callable[..., T], cursor: Connection, text: str, parameters: dict[str, Any]
) -> list[T]:
    """Returns the rows of a query as `kind`, a NamedTuple whose fields are the query's columns in their order."""
    return [kind(*row) for row in rows_of(cursor, text, parameters)]


def listed(values: Iterable[object]) -> str:
    """A list as a parameter for `from_json`: bound as a list, a thousand ids cost 100 ms, as JSON 0.1 ms (measured)."""
    return msgspec.json.encode(list(values)).decode()
