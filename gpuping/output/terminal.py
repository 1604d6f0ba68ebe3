"""The console that answers are printed on, and the plain table that they are printed in."""

import os

from rich import box
from rich.console import Console
from rich.table import Table

from gpuping.output.standard_output import discard_standard_output

# Columns where the output is no terminal: wide enough that no table is wrapped.
PLAIN_WIDTH = 160
# Of a screen that is printed where no terminal tells its width.
SCREEN_WIDTH = 80
# Characters of a plain table between two columns, and at its two edges together.
PLAIN_GAP = 3
PLAIN_EDGES = 2


class PipeConsole(Console):
    """A console that is silent once its reader has left. Rich's own ends the program instead.

    `gpuping up` must go on then, and a command that only prints has nothing left to do.
    """

    def on_broken_pipe(self) -> None:
        """Called by rich when it gets a BrokenPipeError."""
        self.quiet = True
        if not self.stderr:
            discard_standard_output()


def console(*, error: bool = False) -> Console:
    """Standard output, or standard error. Neither colours nor wraps where that is no terminal."""
    console = PipeConsole(
        stderr=error,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )
    if console.is_terminal:
        return console
    return PipeConsole(
        stderr=error,
        highlight=False,
        markup=False,
        emoji=False,
        width=PLAIN_WIDTH,
    )


def screen_width(console: Console) -> int:
    """How wide a screen is that is printed: the terminal's width, or else COLUMNS, or else 80."""
    if console.is_terminal:
        return console.width
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    return SCREEN_WIDTH


def plain_table(*headings: str) -> Table:
    """A table without boxes. A heading that begins with > aligns its column to the right."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
    )
    for heading in headings:
        if heading.startswith(">"):
            table.add_column(heading[1:], justify="right", no_wrap=True)
        else:
            table.add_column(heading, justify="left", no_wrap=True)
    return table
