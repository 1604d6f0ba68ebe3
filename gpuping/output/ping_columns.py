"""The columns of lists of outcomes, and the list as it is printed."""

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from bus.contract.questions import Ping
from bus.contract.reasons import UPTIME_BELOW_THRESHOLD
from gpuping.output.columns import Column, agent_column, columns_that_fit, printed_table
from gpuping.output.formats import duration, milliseconds, percent, relative_time
from gpuping.output.terminal import PLAIN_EDGES, PLAIN_GAP

SHORTEST_ID_ROOM = 20  # characters: where ids are longer, they may take a quarter of the line
_VERDICT_COLOURS = {"good": "green", "first": "cyan", "poor": "yellow", "excused": "blue"}


def pings_table(
    pings: Iterable[Ping],
    now: datetime,
    width: int,
    *,
    with_agent: bool = False,
) -> Table:
    """One row an outcome, in the order given, in so many characters."""
    pings = tuple(pings)
    columns: tuple[Column[Ping], ...] = _COLUMNS
    if with_agent:
        id_room = max(SHORTEST_ID_ROOM, width // 4)
        columns = (agent_column(pings, id_room), *_COLUMNS)
    fitting = columns_that_fit(columns, width - PLAIN_EDGES, PLAIN_GAP)
    return printed_table(fitting, pings, now)


def _number(ping: Ping, _now: datetime) -> Text:
    return Text(str(ping.ping_seq))


def _when(ping: Ping, now: datetime) -> Text:
    return relative_time(ping.pinged_at, now)


def _verdict(ping: Ping, _now: datetime) -> Text:
    return Text(ping.verdict, _VERDICT_COLOURS.get(ping.verdict, ""))


def _outcome(ping: Ping, _now: datetime) -> Text:
    """The outcome, its reason and the remarks. A reason that `poor` says already is left out."""
    notes = list(ping.remarks)
    if ping.reason and ping.reason != UPTIME_BELOW_THRESHOLD:
        notes.insert(0, ping.reason)
    if not notes:
        return Text(ping.outcome)
    return Text(f"{ping.outcome} ({', '.join(notes)})")


def _uptime(ping: Ping, _now: datetime) -> Text:
    return percent(ping.uptime_percent)


def _poor_pings(ping: Ping, _now: datetime) -> Text:
    return Text(str(ping.consecutive_poor_uptime))


def _interval(ping: Ping, _now: datetime) -> Text:
    return Text(duration(ping.interval_minutes * 60))


def _response(ping: Ping, _now: datetime) -> Text:
    return milliseconds(ping.response_ms)


_COLUMNS = (
    Column("Ping", 6, 8, _number, is_number=True),
    Column("When", 11, 1, _when),
    Column("Verdict", 7, 2, _verdict),
    Column("Outcome", 20, 4, _outcome, takes_rest=True),
    Column("Uptime", 8, 3, _uptime, is_number=True),
    Column("Poor", 4, 7, _poor_pings, is_number=True),
    Column("Interval", 8, 5, _interval, is_number=True),
    Column("Took", 9, 6, _response, is_number=True),
)
