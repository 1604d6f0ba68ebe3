"""The program `gpuping`: its verbs are registered by being imported, and every end of it becomes an exit code."""

from cyclopts import CycloptsError

from gpuping import check_verbs, export_verb, lifecycle, look_verbs, report_verbs, run_verbs, storage_verbs
from gpuping.options import app

VERBS = (run_verbs, storage_verbs, look_verbs, report_verbs, export_verb, check_verbs)


def main(arguments: list[str] | None = None) -> int:
    """Runs the verb. Returns the exit code."""
    try:
        code = app(arguments)
    except CycloptsError as error:
        lifecycle.complain(f"{error} Try gpuping --help.")
        return lifecycle.WRONG_USAGE
    except Exception as error:  # noqa: BLE001  # the last handler there is: says it and sets the exit code
        return lifecycle.report(error)
    return code if isinstance(code, int) else lifecycle.DONE
