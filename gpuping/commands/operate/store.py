"""`gpuping bus take-over` and `roll-back`: the streams of a server without identities, and back."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bus import runner
from bus.identity.local import LocalIdentities
from bus.identity.server import store_folder
from bus.transport import embedded_server
from gpuping.client.data_dir_lock import lock_data_dir
from gpuping.commands.command_settings import load_settings
from gpuping.commands.operate.backup import bus_app
from gpuping.commands.options import DataDir, examples
from gpuping.output import terminal

StoreDir = Annotated[
    Path | None,
    Parameter(help="`jetstream.store_dir` of a server of your own [that of `gpuping up`]"),
]


@bus_app.command(
    name="take-over",
    help_epilogue=examples("gpuping bus take-over --store-dir /data/jetstream"),
)
def take_over(*, store_dir: StoreDir = None, data_dir: DataDir = None) -> int:
    """Give the streams of a server without identities to the fleet's account.

    With everything stopped and backed up. The folder of the streams is renamed, and nothing else;
    where streams of two accounts are here it refuses. `gpuping up` does it by itself at its first
    start. `roll-back` undoes it. Servers in a cluster go by `gpuping backup` and `restore`.
    """
    data, accounts, identities = _open(data_dir, store_dir)
    with lock_data_dir(data):
        had_old_streams = store_folder.has_old_streams(accounts)
        names = store_folder.take_over(accounts, identities.authority.fleet.account)
        if had_old_streams:
            identities.authority.accept_unsigned()
    _say("taken over", names)
    return runner.DONE


@bus_app.command(
    name="roll-back",
    help_epilogue=examples("gpuping bus roll-back", "gpuping bus roll-back --to '$G'"),
)
def roll_back(
    *,
    to: Annotated[
        Literal["GPUPING", "$G"],
        Parameter(help="the account's earlier name: $G where no account was configured"),
    ] = "GPUPING",
    store_dir: StoreDir = None,
    data_dir: DataDir = None,
) -> int:
    """Give the streams back to a version without identities, with everything stopped.

    Then start that version. What was recorded meanwhile stays; it ignores what it does not know.
    """
    data, accounts, identities = _open(data_dir, store_dir)
    with lock_data_dir(data):
        names = store_folder.give_back(accounts, identities.authority.fleet.account, to)
    _say("given back", names)
    return runner.DONE


def _open(data_dir: Path | None, store_dir: Path | None) -> tuple[Path, Path, LocalIdentities]:
    """The data dir, the folder with a folder for each account, and the identities."""
    settings = load_settings(default_log_level="warning", GPUPING_DATA_DIR=data_dir)
    accounts = embedded_server.accounts_folder(settings.data_dir)
    if store_dir is not None:
        accounts = store_dir / "jetstream"
    return settings.data_dir, accounts, LocalIdentities.open(settings.data_dir)


def _say(done: str, names: tuple[str, ...]) -> None:
    terminal.console().print(f"{done}: {', '.join(names) or 'there are no streams'}")
