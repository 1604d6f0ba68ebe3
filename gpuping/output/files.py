"""Writes an answer to the terminal, to a pipe, or to a file that appears whole or not at all."""

import contextlib
import io
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from bus.errors import BusError, GpupingError, SettingsError
from gpuping.client.download import Download
from gpuping.output import terminal
from gpuping.output.json_text import json_text
from gpuping.output.standard_output import ignore_closed_pipe

_FORMATS_BY_SUFFIX = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".bundle": "bundle",
}


class Target(NamedTuple):
    """The format of an answer, and the file it goes to. No file means standard output."""

    format: str
    output: Path | None


def choose_target(
    form: str | None,
    output: Path | None,
    *,
    json: bool = False,
    default: str = "table",
) -> Target:
    """Chooses the format: --format or --json, else the file's suffix, else `default`.

    Raises SettingsError when the options contradict each other or the file cannot be written. It is
    called before anything is asked, because storage may work for a minute on what is then written
    there.
    """
    if json and form not in {None, "json"}:
        raise SettingsError(f"--format={form}: expected json or nothing beside --json")
    if output is not None and not output.absolute().parent.is_dir():
        raise SettingsError(f"--output={str(output)!r}: expected a file in a folder that exists")
    chosen = form
    if json:
        chosen = "json"
    if chosen is None and output is not None:
        chosen = _FORMATS_BY_SUFFIX.get(output.suffix.lower())
    if chosen is None:
        chosen = default
    if chosen == "parquet" and output is None and sys.stdout.isatty():
        raise SettingsError(
            "--format=parquet: expected --output FILE or a pipe: a terminal cannot show it"
        )
    return Target(chosen, output)


def write_answer(
    answer: Any,
    table: RenderableType,
    to: Target,
) -> None:
    """Writes an answer as JSON, or as `table` for people."""
    if to.format != "json" and to.output is None:
        terminal.console().print(table)
        return
    if to.format == "json":
        text = json_text(answer) + "\n"
    else:
        text = _plain_text(table)
    data = text.encode()
    with _opened(to.output, "answer") as file:
        file.write(data)
    _print_size(to.output, len(data))


async def save_download(asked: Awaitable[Download], output: Path | None) -> None:
    """Waits for a file and fetches all of it, with a progress bar on a terminal.

    `output` may be a folder, which then gets a file of the download's name. Raises BusError when
    the file ends early; nothing is left of it then.
    """
    with waiting("storage writes the file"):
        download = await asked
    if output is not None and output.is_dir():
        output = output / download.name
    # A bar in the midst of the data would make both unreadable.
    data_is_shown = output is None and sys.stdout.isatty()
    arrived = 0
    with (
        _progress_bar(download, hidden=data_is_shown) as advance,
        _opened(output, download.name) as file,
    ):
        async for piece in download.pieces:
            file.write(piece)
            arrived += len(piece)
            advance(len(piece))
        if download.total_bytes not in {None, arrived}:
            raise BusError(f"{download.name} ended at byte {arrived} of {download.total_bytes}")
    _print_size(output, arrived)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows on a terminal what is waited for: a month of a large fleet takes storage a minute."""
    console = terminal.console(error=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def _plain_text(table: RenderableType) -> str:
    text = io.StringIO()
    console = Console(
        file=text,
        width=terminal.PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return text.getvalue()


@contextlib.contextmanager
def _opened(output: Path | None, name: str) -> Iterator[IO[bytes]]:
    """Standard output, a device, a named pipe, or a file.

    A file takes the name `output` when it is complete. Raises GpupingError when it cannot be
    written.
    """
    try:
        with ignore_closed_pipe():
            if output is None:
                yield sys.stdout.buffer
                sys.stdout.buffer.flush()
            elif output.exists() and not output.is_file():
                with output.open("wb") as device:  # /dev/null must not be replaced by a file
                    yield device
            else:
                with _replaced(output.resolve()) as file:
                    yield file
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
def _progress_bar(download: Download, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal. The function that it yields is told of each piece's bytes."""
    console = terminal.console(error=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
    )
    with progress:
        task = progress.add_task(download.name, total=download.total_bytes)

        def advance(count: int) -> None:
            progress.advance(task, count)

        yield advance


def _print_size(output: Path | None, count: int) -> None:
    if output is not None:
        print(f"{output}: {count:,} bytes", file=sys.stderr)
