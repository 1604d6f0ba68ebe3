"""The columns of lists of agents, and the list as it is printed."""

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from bus.contract.questions import Agent
from bus.contract.reasons import UPTIME_BELOW_THRESHOLD, reason_words
from gpuping.output import tables
from gpuping.output.columns import Column, agent_column, columns_that_fit, printed_table
from gpuping.output.formats import (
    NO_VALUE,
    duration,
    milliseconds,
    percent,
    relative_time,
    untrusted,
)
from gpuping.output.terminal import PLAIN_EDGES, PLAIN_GAP

SHORTEST_ID_ROOM = 32  # characters: where ids are longer, they may take half of the line


def agent_columns(
    agents: Iterable[Agent],
    width: int,
    gap: int,
) -> tuple[Column[Agent], ...]:
    """Returns the columns for a line of so many characters, with `gap` between two of them.

    The agent and its status are always there. Where the reasons are shown, they have the room that
    is left.
    """
    id_room = max(SHORTEST_ID_ROOM, width // 2)
    columns = (agent_column(agents, id_room), *_OTHER_COLUMNS)
    return columns_that_fit(columns, width, gap)


def agents_table(
    agents: Iterable[Agent],
    now: datetime,
    width: int,
) -> Table:
    """One row an agent, in so many characters."""
    agents = tuple(agents)
    columns = agent_columns(agents, width - PLAIN_EDGES, PLAIN_GAP)
    return printed_table(columns, agents, now)


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
    if agent.last_reason and agent.last_reason != UPTIME_BELOW_THRESHOLD:
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


_OTHER_COLUMNS = (
    Column("Status", 11, 1, _status),
    Column("GPUs up", 9, 2, _gpus),
    Column("Uptime", 8, 3, _uptime, is_number=True),
    Column("24 h", 9, 5, _uptime_of_a_day, is_number=True),
    Column("Poor", 4, 8, _poor_pings, is_number=True),
    Column("Interval", 8, 7, _interval, is_number=True),
    Column("Last ping", 11, 9, _last_ping),
    Column("Next ping", 10, 4, _next_ping),
    Column("Took", 9, 10, _response, is_number=True),
    Column("Why", 24, 6, _reason, takes_rest=True),
)
