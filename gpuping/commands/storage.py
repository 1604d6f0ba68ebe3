"""The verbs of storage: the service, and what is done to the history while the service is stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.progress import Progress

from bus import runner
from bus.errors import GpupingError
from bus.runner import Lifecycle
from bus.settings import Settings
from bus.transport import embedded_server
from gpuping import extras
from gpuping.client import discovery
from gpuping.commands.options import RUN, DataDir, app, examples
from gpuping.commands.run import load
from gpuping.output import terminal

storage_app = App(
    name="storage",
    group=RUN,
    help_format="markdown",
    help="Run storage: it keeps the history in DuckDB and answers questions about it.",
    help_epilogue=examples(
        "gpuping storage", "gpuping storage rebuild", "gpuping storage import /mnt/old/archive"
    ),
)
app.command(storage_app)


@storage_app.default
def storage(*, data_dir: DataDir = None) -> int:
    """Run storage: it keeps the history in DuckDB and answers questions about it."""
    with extras.needed("server"):
        from storage import service
    loaded = discovery.located(load(GPUPING_DATA_DIR=data_dir))
    return runner.run(lambda life: runner.serve("storage", service.running(loaded), life))


@storage_app.command
def rebuild(
    *,
    data_dir: DataDir = None,
    force: Annotated[
        bool, Parameter(negative="", help="use the new file even where it differs from the old one")
    ] = False,
) -> int:
    """Make the history file again from the bus and the Parquet archive, and compare it with the old one.

    Storage must be stopped meanwhile. Where `gpuping up` keeps the data dir, stop it: its bus is started for the
    time being.
    """
    loaded = load(GPUPING_DATA_DIR=data_dir)
    replaced = False

    async def main(_: Lifecycle) -> None:
        nonlocal replaced
        replaced = await _rebuilt(loaded, force=force)

    return runner.run(main) or (runner.DONE if replaced else runner.FAILED)


async def _rebuilt(loaded: Settings, *, force: bool) -> bool:
    """Whether the new file is in use."""
    with extras.needed("server"):
        from storage.stream.rebuild import rebuild as make_again
    console = terminal.console()

    def progress(read: int, there: int) -> None:
        if console.is_terminal:
            console.print(f"\r{read} of {there} messages", end="")

    async with _bus(loaded) as found:
        result = await make_again(found, force=force, progress=progress)
    rows = result.after["pings"][0]
    if result.replaced:
        comparison = "the same as before" if result.equal else "not what the old file held"
        console.print(f"rebuilt: {rows} pings, {comparison}; the old file is kept as {result.kept}")
    else:
        console.print(
            f"not replaced: the rebuilt file ({result.kept}) differs; --force uses it all the same"
        )
    return result.replaced


@storage_app.command(name="import")
def import_folder(folder: Path, *, data_dir: DataDir = None) -> int:
    """Take a Parquet archive (folders `day=YYYY-MM-DD`) into the history; what is held already stays as it is.

    Storage must be stopped meanwhile. It may be done twice without harm.

    Parameters
    ----------
    folder
        Where the archive is.
    """
    with extras.needed("server"):
        from storage.archive.imports import import_archive
    loaded = load(GPUPING_DATA_DIR=data_dir)
    console = terminal.console()
    taken = 0

    async def main(_: Lifecycle) -> None:
        nonlocal taken
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("days", total=None)
            result = await asyncio.to_thread(
                import_archive,
                loaded,
                folder,
                progress=lambda done, all_: bar.update(task, completed=done, total=all_),
            )
        taken = result.days
        console.print(
            f"imported {result.days} days: {result.added} outcomes are new, {result.held} were held already"
        )

    return runner.run(main) or (runner.DONE if taken else runner.FAILED)


@asynccontextmanager
async def _bus(loaded: Settings) -> AsyncIterator[Settings]:
    """The bus that the settings name, or else that of the data dir, started for the length of the block."""
    if loaded.NATS_URL or loaded.NATS_CONTEXT:
        yield loaded
        return
    if running := discovery.find(loaded.data_dir):
        raise GpupingError(
            f"`gpuping up` runs on {loaded.data_dir} (pid {running.pid}) and holds the file: stop it first"
        )
    if not (loaded.data_dir / "nats").is_dir():
        raise GpupingError(
            f"{loaded.data_dir} has no bus of its own: set NATS_URL to the bus that has the history"
        )
    with discovery.locked(loaded.data_dir):
        async with embedded_server.running(loaded.data_dir, 0) as server:
            yield msgspec.structs.replace(loaded, NATS_URL=server.url)
