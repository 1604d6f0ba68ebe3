"""Answers about the past as tables in CSV or Parquet: which there are, and how to ask for one.

Storage writes the file and offers it (`bus/transport/file_transfer.py`); the asker fetches it in
pieces.
"""

from typing import Annotated, Literal

from msgspec import Meta

from bus.contract.labels import Label
from bus.contract.messages import AgentId, Message
from bus.contract.questions import Cursor, PastHours
from bus.contract.statements import Month

FileFormat = Literal["csv", "parquet"]
By = Literal["period", "day", "hour", "agent"]
Table = Literal[
    "history", "incidents", "agents", "dashboard", "fleet", "response-times", "lateness"
]

# what one row is, in one line each: shown in the help of the command line and in the REST schema
TABLES: dict[Table, str] = {
    "history": "one row an outcome, of one agent newest first, of the whole fleet in no order",
    "incidents": "one row a time in which a GPU or a host was not up",
    "agents": "one row an agent: its pings, its seconds and its uptime over the period",
    "dashboard": "one row an agent as its newest outcome left it, worst first",
    "fleet": "the fleet's pings, seconds and uptime: one row, or one a day or hour",
    "response-times": (
        "percentiles of the time that agents took to answer: one row, or one a day, hour or agent"
    ),
    "lateness": "percentiles of how late pings went out: one row, or one a day, hour or agent",
}


class ExportRequest(Message, kw_only=True, frozen=True):
    """Asks for an agent's history of the last `hours` as a file, newest outcome first.

    `limit` and `cursor` are as for a page; without a limit the file has all of it. `registered`
    says that the asker knows the agent, so that an agent without outcomes is an empty file and not
    an unknown agent.
    """

    hours: PastHours = 24.0
    limit: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    cursor: Cursor | None = None
    format: FileFormat = "csv"
    registered: bool = False


class TableRequest(Message, kw_only=True, frozen=True):
    """Asks for a table as a file, over the last `hours` or over a calendar month in UTC.

    `month` takes precedence over `hours`. `agent_id` limits the table to one agent (not in fleet),
    `label` to the registered agents that have it (`site=FRA`); the asker finds them out, and
    storage is told their `agent_ids`.
    `by` divides what is summed. `registered` says that the asker knows the agent, so that an agent
    without outcomes is an empty file and not an unknown agent.
    """

    table: Table
    format: FileFormat = "csv"
    agent_id: AgentId | None = None
    hours: PastHours = 24.0
    month: Month | None = None
    by: By = "period"
    registered: bool = False
    label: Label | None = None
    agent_ids: tuple[AgentId, ...] | None = None
