"""How a verb that looks gets from its options to an answer: opens the source, asks, shows, returns the exit code."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from bus import runner
from bus.runner import Lifecycle
from bus.settings import Settings
from gpuping.client.sources import Source, opened
from gpuping.commands.run import load
from gpuping.output import terminal

Show = Callable[[Source, Lifecycle, Console], Awaitable[None]]


def ask(show: Show, data_dir: Path | None, server_url: str | None) -> int:
    """Opens the source that the options name, shows, and returns the exit code."""
    loaded: Settings = load(level="error", GPUPING_DATA_DIR=data_dir)

    async def main(life: Lifecycle) -> None:
        async with opened(loaded, server_url) as source:
            await show(source, life, terminal.console())

    return runner.run(main)
