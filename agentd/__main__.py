"""`python -m agentd`: the daemon without the command line's other verbs and their imports."""

import sys

from agentd import process
from agentd.messaging import enrolment
from bus import logs, runner, settings
from bus.errors import SettingsError


def main() -> int:
    """Exit code 0 after a signal, 1 for a failure, 2 for a setting that cannot be used."""
    try:
        loaded = settings.load()
    except SettingsError as error:
        return runner.report(error, "agentd")
    logs.setup(loaded)
    return process.run(enrolment.with_enrolment(loaded))


if __name__ == "__main__":
    sys.exit(main())
