"""`python -m scheduler`: one scheduler, for benches and tests that kill it; `gpuping scheduler` is for people."""

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
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(loaded):
        print("ready", flush=True)  # noqa: T201  # whoever started us waits for it
        await stop.wait()


def main() -> None:
    """Runs until SIGTERM."""
    try:
        loaded = settings.load()
    except SettingsError as error:
        sys.exit(f"gpuping: {error}")
    logs.setup(loaded)
    run = asyncio.run
    with contextlib.suppress(ImportError):  # the fast loop is an extra
        import uvloop  # noqa: PLC0415

        run = uvloop.run
    run(_main(loaded))


if __name__ == "__main__":
    main()
