"""The columns of the list of agents, and which of them a terminal has room for. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from rich.text import Text

from bus.contract.questions import Agent, AgentOrder
from bus.contract.reasons import reason_words
from gpuping.output import tables
from gpuping.output.formats import (
    NO_VALUE,
    duration,
    milliseconds,
    percent,
    relative_time,
    untrusted,
)

GAP = 2  # between two columns
LONGEST_ID = 32  # of an agent, in a row; its own screen shows all of it


class Column(NamedTuple):
    """One column. `width` is in characters.

    `priority` says how soon it is left out where the terminal is narrow: the highest goes first.
    `order` is the order of the list that this column shows, where it has one.
    """

    heading: str
    width: int
    priority: int
    order: AgentOrder | None
    cell: Callable[[Agent, datetime], Text]


def _agent_id(agent: Agent, _now: datetime) -> Text:
    agent_id = agent.agent_id
    if len(agent_id) > LONGEST_ID:
        agent_id = agent_id[: LONGEST_ID - 1] + "…"
    return untrusted(agent_id)


def _status(agent: Agent, _now: datetime) -> Text:
    return Text(agent.status, tables.STATUS_COLOURS.get(agent.status, ""))


def _gpus(agent: Agent, _now: datetime) -> Text:
    """`7/8`: how many work, in the colour of the worst. Simulated ones are always marked."""
    if not agent.gpus:
        return NO_VALUE
    return tables.gpus_up(agent, short=True)


def _uptime(agent: Agent, _now: datetime) -> Text:
    return percent(agent.uptime_percent)


def _uptime_of_a_day(agent: Agent, _now: datetime) -> Text:
    return tables.uptime_of_a_day(agent)


def _reason(agent: Agent, _now: datetime) -> Text:
    """Why the agent is as it is: its GPUs' reasons first, then that of its last ping."""
    reasons: list[str] = []
    for gpu in agent.gpus:
        reasons += gpu.reasons
    if agent.last_reason and agent.last_reason != "uptime_below_threshold":
        reasons.append(agent.last_reason)
    if not reasons:
        return NO_VALUE
    words = [reason_words(reason) for reason in dict.fromkeys(reasons)]
    return untrusted(", ".join(words))


def _poor_pings(agent: Agent, _now: datetime) -> Text:
    if agent.consecutive_poor_uptime == 0:
        return NO_VALUE
    return Text(str(agent.consecutive_poor_uptime), "yellow")


def _interval(agent: Agent, _now: datetime) -> Text:
    return Text(duration(agent.current_interval_minutes * 60))


def _last_ping(agent: Agent, now: datetime) -> Text:
    return relative_time(agent.last_ping_at, now)


def _next_ping(agent: Agent, now: datetime) -> Text:
    return relative_time(agent.next_ping_at, now)


def _response(agent: Agent, _now: datetime) -> Text:
    return milliseconds(agent.last_response_ms)


COLUMNS = (
    Column("Agent", 20, 0, "id", _agent_id),
    Column("Status", 11, 1, "worst", _status),
    Column("GPUs", 9, 2, None, _gpus),
    Column("Uptime", 9, 3, "uptime", _uptime),
    Column("24 h", 9, 6, None, _uptime_of_a_day),
    Column("Next ping", 10, 4, "next", _next_ping),
    Column("Poor", 4, 8, None, _poor_pings),
    Column("Interval", 8, 7, "interval", _interval),
    Column("Last ping", 10, 9, None, _last_ping),
    Column("Took", 9, 10, "response", _response),
    Column("Why", 24, 5, None, _reason),
)

# The orders in which `s` goes round, the most useful one first.
ORDERS: tuple[AgentOrder, ...] = ("worst", "uptime", "interval", "next", "response", "id")


def columns_that_fit(width: int, id_width: int) -> tuple[Column, ...]:
    """Returns the columns for a terminal of so many characters, in their order on the screen.

    `id_width` is the longest agent id to be shown. The agent and its status are always there. Where
    the reasons are shown, they have the room that is left.
    """
    left = width
    kept = []
    for column in sorted(COLUMNS, key=lambda column: column.priority):
        column_width = column.width
        if column.order == "id":
            column_width = max(len(column.heading), min(id_width, LONGEST_ID))
        needed = column_width + GAP
        if column.priority > 1 and needed > left:
            break
        kept.append(column._replace(width=column_width))
        left -= needed
    headings = [column.heading for column in COLUMNS]
    kept.sort(key=lambda column: headings.index(column.heading))
    if kept[-1].cell is _reason:
        kept[-1] = kept[-1]._replace(width=kept[-1].width + max(0, left))
    return tuple(kept)
