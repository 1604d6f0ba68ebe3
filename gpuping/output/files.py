"""Where an answer goes: the terminal, a pipe, or a file that appears whole or not at all."""

import contextlib
import io
import os
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from bus.errors import BusError, GpupingError, SettingsError
from gpuping.client.download import Download
from gpuping.output import terminal
from gpuping.output.json_text import json_text

WIDTH = 160  # of a table in a file
_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".html": "html", ".htm": "html", ".json": "json"}


class Target(NamedTuple):
    """What was asked for: a format, and a file (None: standard output)."""

    form: str
    output: Path | None


def target(
    form: str | None, output: Path | None, *, json: bool = False, default: str = "table"
) -> Target:
    """The format of --format, of --json, of the file's suffix, or else the default. Raises SettingsError."""
    if json and form not in {None, "json"}:
        raise SettingsError(f"--format={form}: expected json or nothing beside --json")
    if output is not None:
        _check(output)
    suffix = _SUFFIXES.get(output.suffix.lower()) if output else None
    chosen = "json" if json else form or suffix or default
    if chosen == "parquet" and output is None and sys.stdout.isatty():
        raise SettingsError(
            "--format=parquet: expected --output FILE or a pipe: a terminal cannot show it"
        )
    return Target(chosen, output)


def show(answer: Any, shown: RenderableType, to: Target) -> None:
    """An answer that is no file of storage's: JSON, or a table for people."""
    if to.form == "json":
        text = json_text(answer) + "\n"
    elif to.output is None:
        terminal.console().print(shown)
        return
    else:
        console = Console(
            file=io.StringIO(), width=WIDTH, highlight=False, markup=False, emoji=False
        )
        console.print(shown)
        text = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above
    with _opened(to.output, "answer") as file:
        file.write(text.encode())
    _tell(to.output, len(text.encode()))


async def save(asked: Awaitable[Download], output: Path | None) -> None:
    """Waits for the file, fetches all of it, with a bar where somebody watches. Raises BusError when it ends early."""
    with waiting("storage writes the file"):
        download = await asked
    if output is not None and output.is_dir():
        output /= download.name
    arrived = 0
    with (
        _bar(download, hidden=output is None and sys.stdout.isatty()) as advance,
        _opened(output, download.name) as file,
    ):
        async for piece in download.pieces:
            file.write(piece)
            arrived += len(piece)
            advance(len(piece))
        if download.total_bytes not in {None, arrived}:
            raise BusError(f"{download.name} ended at byte {arrived} of {download.total_bytes}")
    _tell(output, arrived)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says so where somebody watches: a month of a large fleet takes storage a while."""
    console = terminal.console(error=True)
    with console.status(what) if console.is_terminal else contextlib.nullcontext():
        yield


def _check(output: Path) -> None:
    """Before anything is asked: a minute's work shall not end with a folder that is not there."""
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"--output={str(output)!r}: expected a file in a folder that exists")


@contextlib.contextmanager
def _opened(output: Path | None, name: str) -> Iterator[IO[bytes]]:
    """Standard output, a device or pipe as it is, or a new file that takes its name when it is complete."""
    try:
        if output is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif output.exists() and not output.is_file():
            with output.open("wb") as device:  # /dev/null must stay what it is
                yield device
        else:
            with _replaced(output.resolve()) as file:
                yield file
    except BrokenPipeError:  # whoever read has had enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise GpupingError(f"{output or name} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _bar(download: Download, *, hidden: bool) -> Iterator[Any]:
    console = terminal.console(error=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, console=console, disable=hidden or not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(download.name, total=download.total_bytes)
        yield lambda count: bar.advance(task, count)


def _tell(output: Path | None, count: int) -> None:
    if output is not None:
        print(f"{output}: {count:,} bytes", file=sys.stderr)
