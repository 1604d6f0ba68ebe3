"""The columns of the tables of history.

They are declared in `schema.sql` only, and read from there.

Statements that name every column of a table are made here: they stay complete when the schema grows
a column.
"""

from functools import cache
from typing import NamedTuple

from storage.engine.database import in_memory, rows_as, schema


class Column(NamedTuple):
    """A column of a table: its name, its type as DuckDB writes it, and whether it may be null."""

    name: str
    type: str
    required: bool

    @property
    def plain_type(self) -> str:
        """The type outside of a history file. Files and JSON carry an ENUM as text."""
        if self.type.startswith("ENUM"):
            return "VARCHAR"
        return self.type


# A partition names agents and GPUs in full, so that any engine can read it and a rebuild can number
# them anew.
_NAMED_IN_FULL = {"agent": "agent_id", "gpu_set": "gpus"}


@cache
def table_columns(table: str) -> tuple[Column, ...]:
    """Returns the columns of a table of the history file, in the order of the schema."""
    text = 'SELECT name, type, "notnull" FROM pragma_table_info($table)'
    with in_memory() as connection:
        connection.execute(schema())
        return tuple(rows_as(Column, connection, text, {"table": table}))


@cache
def partition_columns(table: str) -> tuple[Column, ...]:
    """Returns the columns of a table's file in the archive."""
    columns = []
    for column in table_columns(table):
        if column.name in _NAMED_IN_FULL:
            columns.append(Column(_NAMED_IN_FULL[column.name], "VARCHAR", column.required))
        else:
            columns.append(column)
    return tuple(columns)


@cache
def insert_statement(table: str) -> str:
    """Returns the statement that inserts rows into a table.

    Its parameter `rows` has one JSON object a line.

    This takes a fiftieth of the time of `executemany` (measured).
    """
    types = ", ".join(f'"{column.name}": "{column.plain_type}"' for column in table_columns(table))
    lines = "unnest(string_split($rows, chr(10)))"
    rows = f"SELECT from_json({lines}, '{{{types}}}') AS row"
    return f"INSERT INTO {table} BY NAME SELECT row.* FROM ({rows})"  # noqa: S608  # our table
