"""Tables whose columns go by priority where the terminal is narrow. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from rich.table import Table
from rich.text import Text

from gpuping.output.formats import untrusted
from gpuping.output.terminal import plain_table

AGENT_HEADING = "Agent"
Row = TypeVar("Row")


class _OfAgent(Protocol):
    @property
    def agent_id(self) -> str: ...


RowOfAgent = TypeVar("RowOfAgent", bound=_OfAgent)


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


def agent_column(rows: Iterable[RowOfAgent], most: int) -> Column[RowOfAgent]:
    """Returns the column of the agents' ids: as wide as the longest, up to `most` characters."""
    width = len(AGENT_HEADING)
    for row in rows:
        width = max(width, len(row.agent_id))
    return Column(AGENT_HEADING, min(width, most), 0, _agent_id)


def _agent_id(row: _OfAgent, _now: datetime) -> Text:
    return untrusted(row.agent_id)


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
        column_width = column.width
        if column.takes_rest:
            column_width += max(0, left)
        shown.append(column._replace(width=column_width))
    return tuple(shown)


def side(column: Column[Row]) -> Literal["left", "right"]:
    """Returns where the texts of a column stand: numbers on the right."""
    if column.is_number:
        return "right"
    return "left"


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
            justify=side(column),
            max_width=column.width,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*(column.cell(row, now) for column in columns))
    return table
