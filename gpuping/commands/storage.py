"""`gpuping storage`: the service, and the commands for its history while it is stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import App, Parameter
from rich.progress import Progress

from bus import runner
from bus.errors import GpupingError
from bus.runner import Lifecycle
from bus.settings import Settings
from gpuping import extras
from gpuping.client import bus_file, own_server
from gpuping.client.data_dir_lock import lock_data_dir
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import RUN, DataDir, app, examples
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

Force = Annotated[
    bool,
    Parameter(negative="", help="use the new file even where it differs from the old one"),
]


@storage_app.default
def storage(*, data_dir: DataDir = None) -> int:
    """Run storage: it keeps the history in DuckDB and answers questions about it."""
    with extras.needed("server"):
        from bus.monitoring import service_metrics
        from storage import service
    settings = bus_file.with_running_bus(load_settings(GPUPING_DATA_DIR=data_dir), "storage")

    async def main(lifecycle: Lifecycle) -> None:
        await runner.serve(
            "storage",
            service.running(settings),
            lifecycle,
            lambda running: service_metrics.serving(
                settings, "STORAGE_METRICS_PORT", running.metric_families
            ),
        )

    return runner.run(main)


@storage_app.command(
    help_epilogue=examples("gpuping storage rebuild", "gpuping storage rebuild --force")
)
def rebuild(
    *,
    data_dir: DataDir = None,
    force: Force = False,
) -> int:
    """Make the history file again from the bus and the Parquet archive.

    The new file is compared with the old one. Storage must be stopped meanwhile. Where `gpuping up`
    keeps the data dir, stop it: its bus is started for the time being.
    """
    settings = load_settings(GPUPING_DATA_DIR=data_dir)
    is_replaced = False

    async def main(_: Lifecycle) -> None:
        nonlocal is_replaced
        is_replaced = await _rebuild(settings, force=force)

    code = runner.run_command(main)
    if code == runner.DONE and not is_replaced:
        return runner.FAILED
    return code


async def _rebuild(settings: Settings, *, force: bool) -> bool:
    """Returns whether the new file is in use now."""
    with extras.needed("server"):
        from storage.stream.rebuild import rebuild as rebuild_history
    console = terminal.console()

    def show_progress(read: int, total: int) -> None:
        if console.is_terminal:
            console.print(f"\r{read} of {total} messages", end="")

    async with _bus_of_history(settings) as found:
        result = await rebuild_history(
            found.settings, force=force, progress=show_progress, role=found.role
        )
    if not result.replaced:
        console.print(
            f"not replaced: the rebuilt file ({result.kept}) differs; --force uses it all the same"
        )
        return False
    comparison = "not what the old file held"
    if result.equal:
        comparison = "the same as before"
    pings = result.after["pings"][0]
    console.print(f"rebuilt: {pings} pings, {comparison}; the old file is kept as {result.kept}")
    return True


@storage_app.command(
    name="import", help_epilogue=examples("gpuping storage import /mnt/old/archive")
)
def import_folder(folder: Path, *, data_dir: DataDir = None) -> int:
    """Take a Parquet archive (folders `day=YYYY-MM-DD`) into the history.

    What is held already stays as it is. Storage must be stopped meanwhile. It may be done twice
    without harm.

    Parameters
    ----------
    folder
        Where the archive is.
    """
    with extras.needed("server"):
        from storage.archive.imports import import_archive
    settings = load_settings(GPUPING_DATA_DIR=data_dir)
    console = terminal.console()
    imported_days = 0

    async def main(_: Lifecycle) -> None:
        nonlocal imported_days
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("days", total=None)

            def show_progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            result = await asyncio.to_thread(
                import_archive, settings, folder, progress=show_progress
            )
        imported_days = result.days
        console.print(
            f"imported {result.days} days: {result.added} outcomes are new, "
            f"{result.held} were held already"
        )

    code = runner.run_command(main)
    if code == runner.DONE and imported_days == 0:
        return runner.FAILED
    return code


class _HistoryBus(NamedTuple):
    """Settings of a bus, with the credentials of this role."""

    settings: Settings
    role: str


@asynccontextmanager
async def _bus_of_history(settings: Settings) -> AsyncIterator[_HistoryBus]:
    """A bus that has the history's messages, for the length of the block.

    That is the bus which the settings name, or else the data dir's own nats-server, which is
    started here. Raises GpupingError while `gpuping up` runs on the data dir, and when the data dir
    has no bus of its own.
    """
    if settings.NATS_URL or settings.NATS_CONTEXT:
        yield _HistoryBus(settings, "storage")
        return
    running = bus_file.find(settings.data_dir)
    if running:
        raise GpupingError(
            f"`gpuping up` runs on {settings.data_dir} (pid {running.pid}) and holds the file: "
            "stop it first"
        )
    if not (settings.data_dir / "nats").is_dir():
        raise GpupingError(
            f"{settings.data_dir} has no bus of its own: "
            "set NATS_URL to the bus that has the history"
        )
    with lock_data_dir(settings.data_dir):
        async with own_server.running(settings, 0) as server:
            # storage may make no consumers, and no scheduler runs that would make one for it
            yield _HistoryBus(server.settings_of("scheduler"), "scheduler")
