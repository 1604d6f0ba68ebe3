"""Asks a running system and shows the answer, which most commands have in common."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from bus import runner
from bus.runner import Lifecycle
from gpuping.client.sources import Source, open_source
from gpuping.commands.command_settings import load_settings
from gpuping.output import terminal
from gpuping.output.json_text import print_json
from gpuping.output.standard_output import ignore_closed_pipe

T = TypeVar("T")
Show = Callable[[Source, Lifecycle, Console], Awaitable[None]]


def run_query(
    show: Show,
    data_dir: Path | None,
    server_url: str | None,
) -> int:
    """Opens a source, has `show` ask it and print the answer, and returns the exit code."""
    settings = load_settings(default_log_level="error", GPUPING_DATA_DIR=data_dir)

    async def main(lifecycle: Lifecycle) -> None:
        async with open_source(settings, server_url) as source:
            with ignore_closed_pipe():
                await show(source, lifecycle, terminal.console())
                sys.stdout.flush()

    return runner.run_command(main)


def run_answer(
    ask: Callable[[Source], Awaitable[T]],
    show: Callable[[Console, T], None],
    data_dir: Path | None,
    server_url: str | None,
    *,
    as_json: bool,
) -> int:
    """Opens a source, asks it, and prints the answer: as JSON, or with `show` in words."""

    async def print_answer(
        source: Source,
        _: Lifecycle,
        console: Console,
    ) -> None:
        answer = await ask(source)
        if as_json:
            print_json(answer)
        else:
            show(console, answer)

    return run_query(print_answer, data_dir, server_url)
