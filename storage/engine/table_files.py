"""The one place where CSV and Parquet are written: any question's rows, into a file of the scratch folder.

A question says what (a SELECT with times as TIMESTAMPTZ); this says how each format shows it. DuckDB writes as
it reads, so a file of any length takes no more memory than a question may. The file is then offered for fetching.

CSV may be opened by a spreadsheet, and some text comes from hosts that are not ours: the names of their GPUs, the
reasons that they give. Text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP's
advice); numbers are numbers, and Parquet holds everything as it is.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from bus.contract.exports import FileFormat
from bus.errors import RefusedError
from storage.engine.database import Connection
from storage.engine.errors import CannotWriteError, explained
from storage.engine.literals import quoted

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
}
_PREFIX = "export-"
_OPTIONS: dict[FileFormat, str] = {
    "csv": "FORMAT csv, HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%fZ'",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
# first characters by which a spreadsheet knows a formula, their full-width twins among them
_FORMULA = r"'^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]'"


class ExportFile(NamedTuple):
    """A file that is ready, the name to save it under, and what it is."""

    path: Path
    name: str
    media_type: str


class TableQuery(NamedTuple):
    """A SELECT and its parameters; more of them may be given than it names."""

    text: str
    parameters: dict[str, Any]


def write(
    cursor: Connection, scratch: Path, question: TableQuery, name: str, form: FileFormat
) -> ExportFile:
    """The question's rows as a file, `name` without its suffix; RefusedError (507) where it cannot be written."""
    path = new_file(scratch, form)
    asked = {
        key: question.parameters[key]
        for key in cursor.extract_statements(question.text)[0].named_parameters
    }
    columns = cursor.execute(f"DESCRIBE {question.text}", asked).fetchall()
    shown = _defused(columns) if form == "csv" else "*"
    rows = f"SELECT {shown} FROM ({question.text})"  # noqa: S608  # our own texts; values are parameters
    with _room(path):
        cursor.execute(f"COPY ({rows}) TO {quoted(path)} ({_OPTIONS[form]})", asked)
    return ExportFile(path, f"{name}.{form}", MEDIA_TYPES[form])


def write_text(scratch: Path, text: str, name: str, form: str) -> ExportFile:
    """A file that is text already: the page to print, an answer in JSON."""
    path = new_file(scratch, form)
    with _room(path):
        path.write_text(text, encoding="utf-8")
    return ExportFile(path, f"{name}.{form}", MEDIA_TYPES[form])


def sweep(scratch: Path) -> None:
    """Removes what a killed process left behind."""
    for leftover in scratch.glob(f"*{_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def new_file(scratch: Path, suffix: str) -> Path:
    """A name that nobody else has."""
    return scratch / f"{_PREFIX}{secrets.token_hex(8)}.{suffix}"


def _defused(columns: list[tuple[Any, ...]]) -> str:
    """Every column; those of text with what would be a formula defused."""
    texts = [f'"{name}"' for name, kind, *_ in columns if kind == "VARCHAR"]
    if not texts:
        return "*"
    guarded = (
        f"CASE WHEN regexp_matches({c}, {_FORMULA}) THEN '''' || {c} ELSE {c} END AS {c}"
        for c in texts
    )
    return f"* REPLACE ({', '.join(guarded)})"


@contextlib.contextmanager
def _room(path: Path) -> Iterator[None]:
    """A file that fails is taken away. That it found no room is not a fault of the history, and refused as such."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        for part in (path, path.with_name(f"tmp_{path.name}")):
            part.unlink(missing_ok=True)
        written = isinstance(error, OSError) or path.name in str(
            error
        )  # else it is about a file that was read
        if written and isinstance(explained(error, path), CannotWriteError):
            raise RefusedError(
                507, "storage has no room for the file, or may not write it: see its disk"
            ) from error
        raise
