"""The program `gpuping`: its verbs are registered by being imported, and every end of it becomes an exit code."""

from cyclopts import CycloptsError

from bus import runner
from gpuping.commands import check, export, look, report, run, storage
from gpuping.commands.options import app

VERBS = (run, storage, look, report, export, check)


def main(arguments: list[str] | None = None) -> int:
    """Runs the verb. Returns the exit code."""
    try:
        code = app(arguments)
    except CycloptsError as error:
        runner.complain(f"{error} Try gpuping --help.")
        return runner.WRONG_USAGE
    except Exception as error:  # noqa: BLE001  # the last handler there is: says it and sets the exit code
        return runner.report(error)
    return code if isinstance(code, int) else runner.DONE
