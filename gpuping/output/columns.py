"""Tables whose columns go by priority where the terminal is narrow. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

from rich.table import Table
from rich.text import Text

from gpuping.output.terminal import plain_table

Row = TypeVar("Row")


class Column(NamedTuple, Generic[Row]):
    """One column. `width` is in characters: the most that its cells need.

    `priority` says how soon it is left out where the terminal is narrow: the highest goes first,
    those of 0 and 1 never do. A column that `takes_rest` has the room that the others leave.
    """

    heading: str
    width: int
    priority: int
    cell: Callable[[Row, datetime], Text]
    is_number: bool = False
    takes_rest: bool = False


def columns_that_fit(
    columns: Sequence[Column[Row]],
    width: int,
    gap: int,
) -> tuple[Column[Row], ...]:
    """Returns those that a line of so many characters has room for, in their order.

    `gap` is the room between two columns.
    """
    left = width + gap  # there is none behind the last one
    kept = []
    for column in sorted(columns, key=lambda column: column.priority):
        needed = column.width + gap
        if column.priority > 1 and needed > left:
            break
        kept.append(column)
        left -= needed
    headings = [column.heading for column in columns]
    kept.sort(key=lambda column: headings.index(column.heading))
    shown = []
    for column in kept:
        rest = max(0, left) if column.takes_rest else 0
        shown.append(column._replace(width=column.width + rest))
    return tuple(shown)


def printed_table(
    columns: Iterable[Column[Row]],
    rows: Iterable[Row],
    now: datetime,
) -> Table:
    """The rows as a table that is printed."""
    columns = tuple(columns)
    table = plain_table()
    for column in columns:
        table.add_column(
            column.heading.upper(),
            justify="right" if column.is_number else "left",
            max_width=column.width,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*(column.cell(row, now) for column in columns))
    return table
