"""Writes the rows of any question as a CSV or Parquet file.

The file is written into the scratch folder and fetched from there.

A question is a SELECT with times as TIMESTAMPTZ; each format has its own way to show them. DuckDB
writes while it reads, so a file of any length takes no more memory than a question may.

A spreadsheet may open the CSV, and some text comes from hosts that are not ours: the names of their
GPUs and the reasons that they give. Text that a spreadsheet would take for a formula gets an
apostrophe in front, as OWASP advises against CSV injection. A terminal may show the CSV, too, so
that control characters and those that turn the direction of text are replaced by U+FFFD. Numbers
stay numbers, and Parquet has everything as it is.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from bus.contract.exports import FileFormat
from bus.errors import RefusedError
from storage.engine.database import Connection, rows_as
from storage.engine.errors import CannotWriteError, explained
from storage.engine.literals import quoted

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "bundle": "application/vnd.gpuping.bundle+json",
}
_PREFIX = "export-"
_OPTIONS: dict[FileFormat, str] = {
    "csv": "FORMAT csv, HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%fZ'",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
# The first characters by which a spreadsheet knows a formula, and their full-width forms.
_FORMULA = r"'^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]'"

# Control characters, separators of lines and paragraphs, and marks of direction.
_CONTROL = r"'[\x00-\x1F\x7F-\x9F\x{061C}\x{200E}\x{200F}\x{2028}-\x{202E}\x{2066}-\x{2069}]'"


class ExportFile(NamedTuple):
    """A finished file, the name to save it under, and its media type."""

    path: Path
    name: str
    media_type: str


class TableQuery(NamedTuple):
    """A SELECT and its parameters. There may be more parameters than the text names."""

    text: str
    parameters: dict[str, Any]


class _Described(NamedTuple):
    """A row of DESCRIBE."""

    name: str
    type: str
    null: str
    key: str | None
    default: str | None
    extra: str | None


def write(
    cursor: Connection,
    scratch: Path,
    question: TableQuery,
    name: str,
    form: FileFormat,
) -> ExportFile:
    """Writes the rows of a question as a file. `name` has no suffix.

    Raises RefusedError (507) when the disk is full or cannot be written.
    """
    path = new_file(scratch, form)
    (statement,) = cursor.extract_statements(question.text)
    parameters = {key: question.parameters[key] for key in statement.named_parameters}
    shown = "*"
    if form == "csv":
        described = f"DESCRIBE {question.text}"
        columns = rows_as(_Described, cursor, described, parameters)
        shown = _safe_to_look_at(columns)
    rows = f"SELECT {shown} FROM ({question.text})"  # noqa: S608  # our own texts; values are parameters
    with _removed_on_error(path):
        # COPY takes its target as a literal only.
        cursor.execute(f"COPY ({rows}) TO {quoted(path)} ({_OPTIONS[form]})", parameters)
    return ExportFile(path, f"{name}.{form}", MEDIA_TYPES[form])


def write_text(
    scratch: Path,
    text: str,
    name: str,
    form: str,
) -> ExportFile:
    """Writes a text as a file, such as the page to print.

    Raises RefusedError (507) like `write`.
    """
    path = new_file(scratch, form)
    with _removed_on_error(path):
        path.write_text(text, encoding="utf-8")
    return ExportFile(path, f"{name}.{form}", MEDIA_TYPES[form])


def sweep(scratch: Path) -> None:
    """Removes the files that a killed process left behind."""
    for leftover in scratch.glob(f"*{_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def new_file(scratch: Path, suffix: str) -> Path:
    """Returns a path in the scratch folder that no other file has."""
    return scratch / f"{_PREFIX}{secrets.token_hex(8)}.{suffix}"


def _safe_to_look_at(columns: list[_Described]) -> str:
    """The columns to select, whose text neither a spreadsheet nor a terminal obeys."""
    replaced = []
    for column in columns:
        if column.type == "VARCHAR":
            name = f'"{column.name}"'
            text = f"regexp_replace({name}, {_CONTROL}, chr(65533), 'g')"
            is_formula = f"regexp_matches({name}, {_FORMULA})"
            replaced.append(f"CASE WHEN {is_formula} THEN '''' || {text} ELSE {text} END AS {name}")
    if not replaced:
        return "*"
    return f"* REPLACE ({', '.join(replaced)})"


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    """Removes the file when writing it fails. Raises RefusedError where it found no room.

    A full disk is not a fault of the history, so the history stays open then. An error that does
    not name the file is about a file that was read, and is passed on.
    """
    try:
        yield
    except (duckdb.Error, OSError) as error:
        path.unlink(missing_ok=True)
        path.with_name(f"tmp_{path.name}").unlink(missing_ok=True)
        about_this_file = isinstance(error, OSError) or path.name in str(error)
        if about_this_file and isinstance(explained(error, path), CannotWriteError):
            detail = "storage has no room for the file, or may not write it: see its disk"
            raise RefusedError(507, detail) from error
        raise
