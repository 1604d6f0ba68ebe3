"""`gpuping backup`, `gpuping restore`, and `gpuping bus` with `layout` and `migrate`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bus import runner
from bus.contract import subjects
from bus.private_files import hide_new_files
from bus.runner import Lifecycle
from bus.settings import Settings
from bus.transport import connection, layout
from bus.transport.connection import Client
from gpuping.backup import making, migrating, restoring
from gpuping.backup.manifest import BackupError
from gpuping.client import bus_file, own_server
from gpuping.client.bus_connection import connected_in_time
from gpuping.client.data_dir_lock import lock_data_dir
from gpuping.commands.command_settings import load_settings
from gpuping.commands.options import CHECK, DataDir, app, examples
from gpuping.output import terminal

KeysTo = Annotated[
    Path | None,
    Parameter(name="--keys-to", help="copy the identities here; keep them apart from the backup"),
]
Replicas = Annotated[Literal[1, 3, 5], Parameter(help="servers that keep each stream")]
MigrationFolder = Annotated[
    Path, Parameter(name="--copy-to", help="an empty folder for the copy of the history")
]

CONNECT_SECONDS = 10.0  # for a bus that is there

bus_app = App(
    name="bus",
    group=CHECK,
    help_format="markdown",
    help="Make the streams of the bus, and change how it keeps them.",
    help_epilogue=examples(
        "gpuping bus layout", "gpuping bus migrate --replicas 3 --copy-to /var/backups/migration"
    ),
)
app.command(bus_app)


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping backup /var/backups/gpuping-2026-11-26",
        "gpuping backup /mnt/backup/today --keys-to /mnt/safe/today",
    ),
)
def backup(
    folder: Path,
    *,
    keys_to: KeysTo = None,
    data_dir: DataDir = None,
) -> int:
    """Copy the bus and the archive into a new folder, while everything runs.

    The folder gets the bucket, the history and the audit log as snapshots, the Parquet archive of
    this data dir, and `manifest.json` with a hash of each file. That is written last: a folder
    without it is no backup. Pings go on meanwhile. The history file of storage is not copied,
    because storage makes it again from these.

    The keys of the fleet are not in the folder: whoever has them can be every agent. Copy them with
    --keys-to to a safer place; without them a restored fleet needs new identities.

    Parameters
    ----------
    folder
        A new or empty folder.
    """
    settings = bus_file.with_demo_alone(load_settings(GPUPING_DATA_DIR=data_dir))
    names_a_bus = settings.NATS_URL or settings.NATS_CONTEXT
    if not names_a_bus and not bus_file.is_in_use(settings.data_dir):
        raise BackupError(
            f"nothing was ever started on {settings.data_dir}: name the data dir with --data-dir, "
            "or the bus with NATS_URL"
        )
    console = terminal.console()

    async def work(
        client: Client,
        settings: Settings,
        progress: making.Progress,
    ) -> None:
        if keys_to is not None:
            making.check_keys(settings, folder, keys_to)
        try:
            made = await making.back_up(client, settings, folder, progress)
        except OSError as error:
            if error.filename is not None:
                raise  # it names what is wrong
            raise BackupError(
                f"{folder}: {error.strerror}: what is there now is no backup; delete it, and make "
                "room or name another folder"
            ) from None
        sizes = [stream.file.bytes for stream in made.streams]
        sizes += [entry.bytes for entry in made.archive]
        outcomes = made.stream(subjects.HISTORY_STREAM).state["messages"]
        console.print(
            f"backed up to {folder}: {outcomes} outcomes on the bus, {len(made.archive)} files of "
            f"the archive, {sum(sizes) / 2**20:.1f} MiB"
        )
        if keys_to is not None:
            making.copy_keys(settings, keys_to)
            console.print(
                f"the keys of the fleet are in {keys_to}: keep them apart from the backup"
            )

    return _run(settings, work)


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping restore /var/backups/gpuping-2026-11-26 --data-dir /srv/gpuping",
        "NATS_URL=nats://127.0.0.1:4222 GPUPING_REPLICAS=3 gpuping restore /mnt/backup/today",
    ),
)
def restore(folder: Path, *, data_dir: DataDir = None) -> int:
    """Put a backup onto an empty bus, and compare what is there then.

    Every hash is checked first. A bus that is not empty is refused, and so is one on which a
    scheduler runs: stop all services, and use a new data dir or new servers. After an interruption
    give the same command again; until it has finished no service works on that bus.
    GPUPING_REPLICAS decides how many servers keep each stream: a backup of one server can move to a
    cluster.

    With keys of your own, put their folder back as `identity` in the data dir before this. Start
    the services afterwards: storage makes its history file from the bus and the archive.

    Parameters
    ----------
    folder
        The folder that `gpuping backup` wrote.
    """
    settings = load_settings(GPUPING_DATA_DIR=data_dir)
    console = terminal.console()

    async def work(
        client: Client,
        settings: Settings,
        progress: making.Progress,
    ) -> None:
        restored = await restoring.restore(client, settings, folder, progress)
        console.print(
            f"restored {restored.outcomes} outcomes of {restored.agents} agents and "
            f"{restored.days} days of the archive; the last outcome of every agent was compared"
        )
        if restored.cut:
            console.print(
                f"{restored.cut} outcomes were recorded after the bucket was copied: they were "
                "left out, and those pings are made again"
            )

    return _run(settings, work, refuse_running=True)


@bus_app.command(name="layout")
def make_layout(*, data_dir: DataDir = None) -> int:
    """Make the streams of the bus, or bring them into line. Nothing is ever lowered.

    Services with identities may not make streams. On servers of your own this does it, once and
    after each upgrade, with the credentials of the role `layout`.
    """
    settings = load_settings(GPUPING_DATA_DIR=data_dir)

    async def work(
        client: Client,
        settings: Settings,
        _progress: making.Progress,
    ) -> None:
        await layout.ensure(client, settings)
        console = terminal.console()
        for problem in await layout.inspect(client, settings):
            console.print(f"left as it is: {problem.text}")
        console.print("the streams stand")

    return _run(settings, work, waits=True)


@bus_app.command
def migrate(
    *,
    replicas: Replicas,
    copy_to: MigrationFolder,
    data_dir: DataDir = None,
) -> int:
    """Change how many servers of a cluster keep each stream, without a lost outcome.

    Schedulers may run: pings are held while the history is made again, late and not lost. After an
    interruption give the same command again, with the same folder. Then set GPUPING_REPLICAS for
    every service. From a single server to a cluster it is `gpuping backup` and `gpuping restore`.
    """
    settings = load_settings(GPUPING_DATA_DIR=data_dir)
    console = terminal.console()

    async def work(
        client: Client,
        settings: Settings,
        progress: making.Progress,
    ) -> None:
        await migrating.migrate(client, settings, replicas, copy_to, progress)
        console.print(f"every stream has {replicas} replicas; set GPUPING_REPLICAS={replicas}")

    return _run(settings, work)


Work = Callable[[Client, Settings, making.Progress], Awaitable[None]]


def _run(
    settings: Settings,
    work: Work,
    *,
    refuse_running: bool = False,
    waits: bool = False,
) -> int:
    """Runs `work` on the bus, with progress bars. Returns the exit code.

    With `waits` it waits for a bus that does not run yet.
    """
    console = terminal.console()

    async def main(_: Lifecycle) -> None:
        hide_new_files()
        async with _bus(settings, refuse_running=refuse_running) as found:
            inbox_prefix = subjects.service_inbox("layout")
            if waits:
                connecting = connection.connected(found, "gpuping", inbox_prefix=inbox_prefix)
            else:
                connecting = connected_in_time(found, inbox_prefix, CONNECT_SECONDS)
            async with connecting as client:
                bars = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TextColumn("{task.percentage:>3.0f} %"),
                    TimeElapsedColumn(),
                    console=console,
                    disable=not console.is_terminal,
                )
                with bars:
                    await work(client, found, _progress_on(bars))

    return runner.run_command(main)


def _progress_on(bars: Progress) -> making.Progress:
    tasks: dict[str, TaskID] = {}

    def show(
        name: str,
        done: int,
        total: int,
    ) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name)
        bars.update(tasks[name], completed=done, total=total)

    return show


@asynccontextmanager
async def _bus(settings: Settings, *, refuse_running: bool) -> AsyncIterator[Settings]:
    """The settings with the bus that they name, or with that of the data dir.

    The data dir's own server is started where it does not run.
    """
    if settings.NATS_URL or settings.NATS_CONTEXT:
        yield bus_file.with_role_credentials(settings, "layout")
        return
    running = bus_file.find(settings.data_dir)
    if running and refuse_running:
        raise BackupError(
            f"`gpuping up` runs on {settings.data_dir} (pid {running.pid}): stop it first"
        )
    if running:
        yield bus_file.with_running_bus(settings, "layout")
        return
    with lock_data_dir(settings.data_dir):
        async with own_server.running(settings, 0) as server:
            yield server.settings_of("layout")
