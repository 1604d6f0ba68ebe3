"""The program `gpuping`. Importing the modules of COMMANDS registers their commands."""

from cyclopts import CycloptsError

from bus import runner
from gpuping.commands import doctor, export, look, report, serve, storage, token
from gpuping.commands.options import app

COMMANDS = (serve, storage, look, report, export, doctor, token)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code. Every error becomes an exit code."""
    try:
        code = app(arguments)
    except CycloptsError as error:
        runner.complain(f"{error} Try gpuping --help.")
        return runner.WRONG_USAGE
    except Exception as error:  # noqa: BLE001  # the last handler: it sets the exit code
        return runner.report(error)
    if isinstance(code, int):
        return code
    return runner.DONE
