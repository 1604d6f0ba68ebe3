"""`python -m scheduler`: one scheduler in a process of its own, for benches and tests that kill it.

Users start one by `gpuping scheduler`.
"""

import asyncio
import contextlib
import signal
import sys

from bus import logs, settings
from bus.errors import SettingsError
from bus.settings import Settings
from scheduler.service import running


async def _main(loaded: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    async with running(loaded):
        print("ready", flush=True)  # noqa: T201  # the parent process waits for this line
        await stop.wait()


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    try:
        loaded = settings.load()
    except SettingsError as error:
        sys.exit(f"gpuping: {error}")
    logs.setup(loaded)
    run = asyncio.run
    # uvloop is an extra.
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415

        run = uvloop.run
    run(_main(loaded))


if __name__ == "__main__":
    main()
