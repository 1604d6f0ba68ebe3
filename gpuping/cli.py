"""The program `gpuping`. Importing the modules of COMMANDS registers their commands."""

import sys

from cyclopts import CycloptsError

from bus import runner, standard_streams
from gpuping.commands import completion, doctor, export, look, report, serve, storage, verify
from gpuping.commands.operate import (
    alerts,
    audit,
    backup,
    creds,
    enroll,
    gpus,
    hosts,
    labels,
    leaf,
    maintenance,
    publish,
    store,
    token,
    unsigned,
)
from gpuping.commands.options import app
from gpuping.output.standard_output import ignore_closed_pipe

COMMANDS = (
    serve,
    storage,
    look,
    report,
    export,
    doctor,
    gpus,
    hosts,
    unsigned,
    labels,
    token,
    audit,
    alerts,
    maintenance,
    publish,
    creds,
    leaf,
    backup,
    store,
    enroll,
    verify,
    completion,
)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code. Every error becomes an exit code."""
    standard_streams.prepare()
    code = None
    try:
        with ignore_closed_pipe():
            code = app(arguments)
            sys.stdout.flush()
    except CycloptsError as error:
        command = " ".join(["gpuping", *(error.command_chain or ())])
        runner.complain(f"{error} Try {command} --help.")
        return runner.WRONG_USAGE
    except Exception as error:  # noqa: BLE001  # the last handler: it sets the exit code
        return runner.report(error)
    if isinstance(code, int):
        return code
    return runner.DONE
