"""`python -m agentd`: the daemon alone, without the command line's other verbs and their imports."""

import asyncio
import sys

from agentd import process
from bus import logs, settings
from bus.errors import GpupingError, SettingsError


def main() -> int:
    """Exit code 0 after a signal, 1 for a failure, 2 for a setting that cannot be used."""
    code = 0
    try:
        loaded = settings.load()
        logs.setup(loaded)
        asyncio.run(process.run(loaded))
    except* SettingsError as group:
        code = _told(group, 2)
    except* GpupingError as group:
        code = _told(group, 1)
    return code


def _told(group: BaseExceptionGroup[GpupingError], code: int) -> int:
    for error in group.exceptions:
        print(f"agentd: {error}", file=sys.stderr)  # noqa: T201  # the one line that a terminal shows
    return code


if __name__ == "__main__":
    sys.exit(main())
