"""`python -m storage`: the one service, settings from the environment."""

import asyncio
import signal

from bus import logs, settings
from storage.service import running


async def main() -> None:
    """Until SIGTERM or Ctrl-C."""
    chosen = settings.load()
    logs.setup(chosen)
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with running(chosen):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
