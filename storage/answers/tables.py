"""What history has to say as tables: for each the SELECT, the stretch of time and how it is divided.

Sums come from the rollups where hours or days are sealed and from rows at the edges, as in every other answer.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from bus.contract.exports import TableRequest
from bus.contract.statements import Account, ExportRequest, FleetReplay, Statement
from bus.errors import RefusedError
from storage.answers.cursor import older_than
from storage.answers.history import EXACT_PINGS, Rolled, stretches
from storage.engine.database import rows_of, sql
from storage.engine.partitions import DAY_US, HOUR_US
from storage.engine.rows import microseconds
from storage.engine.table_files import TableQuery
from storage.statements.account import month_interval
from storage.store.store import Reader

_GRAINS = {"day": DAY_US, "hour": HOUR_US}
_MEASURES = {"response-times": ("response", "response_us"), "lateness": ("late", "late_us")}
_TIMED = (
    "make_timestamp(greatest(key, $since_us))::TIMESTAMPTZ AS since, "
    "make_timestamp(least(key + $grain, $until_us))::TIMESTAMPTZ AS until"
)
_NEWEST_FIRST = "ORDER BY p.pinged_us DESC, p.ping_seq DESC"
_BY_TIME = "$base_us + (pinged_us - $base_us) // $grain * $grain"


class Stretch(Struct, frozen=True):
    """`[since, until)` in microseconds, and how long a row of it is: aligned to the clock, or all of it."""

    since_us: int
    until_us: int
    base_us: int
    grain: int


def table(reader: Reader, request: TableRequest, now: datetime) -> TableQuery:
    """A table's question. Raises RefusedError: 404 for an agent without history, 400 for what cannot be meant."""
    stretch = _stretch(reader, request, microseconds(now))
    chosen = _chosen(reader, request.agent_id, registered=request.registered)
    match request.table:
        case "history":
            order = "" if request.agent_id is None else _NEWEST_FIRST
            return _filled(reader, "table_history", stretch, chosen=chosen, order=order)
        case "incidents":
            text = reader.partitions.fill(
                sql("table_incidents"), stretch.since_us
            )  # later reports tell the ends
            return TableQuery(text.replace("{chosen}", chosen), _parameters(stretch))
        case "agents":
            rolled = stretches(reader, "agent_days", DAY_US, stretch.since_us, stretch.until_us)
            return _filled(reader, "table_agents", stretch, rolled, chosen=chosen)
        case "dashboard":
            return _filled(reader, "table_dashboard", stretch, chosen=chosen)
        case "fleet":
            if request.agent_id is not None or request.by == "agent":
                raise RefusedError(
                    400, "fleet is of all agents together: the table agents has one row an agent"
                )
            rolled = stretches(reader, "fleet_hours", HOUR_US, stretch.since_us, stretch.until_us)
            return _filled(reader, "table_fleet", stretch, rolled)
        case "response-times" | "lateness":
            return _latencies(reader, request, stretch, chosen)


def history(reader: Reader, agent_id: str, request: ExportRequest, now: datetime) -> TableQuery:
    """An agent's outcomes of the last hours, newest first, as many as asked for; RefusedError (404) as above."""
    chosen = _chosen(reader, agent_id, registered=request.registered)
    limit = "" if request.limit is None else f" LIMIT {request.limit:d}"
    stretch = _stretch(
        reader, TableRequest(table="history", hours=request.hours), microseconds(now)
    )
    question = _filled(reader, "table_history", stretch, chosen=chosen, order=_NEWEST_FIRST + limit)
    return TableQuery(question.text, question.parameters | older_than(request.cursor))


def statement(made: Statement) -> TableQuery:
    """A statement's sums: the host, then each GPU."""
    rows = [
        _account(made, "host", "", made.enrolled_seconds, made.host),
        *(_account(made, gpu.uuid, gpu.name, gpu.enrolled_seconds, gpu) for gpu in made.gpus),
    ]
    return TableQuery(sql("table_statement"), {"rows": msgspec.json.encode(rows).decode()})


def replay(made: FleetReplay) -> TableQuery:
    """Every agent's pay under both rules, the greatest change first."""
    return TableQuery(sql("table_replay"), {"rows": msgspec.json.encode([made]).decode()})


def _account(
    made: Statement, subject: str, gpu_name: str, enrolled: float, account: Account
) -> dict[str, Any]:
    about = {
        "agent_id": made.agent_id,
        "month": made.month,
        "subject": subject,
        "gpu_name": gpu_name,
    }
    seconds = {
        f"{name}_seconds": value for name, value in msgspec.structs.asdict(account.seconds).items()
    }
    shares = {
        "unreported_seconds": account.unreported_seconds,
        "coverage_percent": account.coverage_percent,
        "uptime_percent": account.uptime_percent,
    }
    return about | {"final": made.final, "enrolled_seconds": enrolled} | seconds | shares


def _latencies(reader: Reader, request: TableRequest, stretch: Stretch, chosen: str) -> TableQuery:
    """Exact for so few pings as elsewhere; above, by buckets, those of sealed hours where a row is of all agents."""
    measure, column = _MEASURES[request.table]
    by_agent = request.by == "agent"
    rolled: Rolled = (0, 0, stretch.since_us, stretch.since_us)
    if not by_agent and request.agent_id is None:
        rolled = stretches(reader, "fleet_hours", HOUR_US, stretch.since_us, stretch.until_us)
    found = (
        "latencies_exact"
        if _count(reader, stretch, chosen) <= EXACT_PINGS
        else "latencies_bucketed"
    )
    marks = {
        "{found}": sql(found),
        "{sealed}": sql("latencies_sealed") if rolled[0] < rolled[1] else "",
        "{key}": "agent" if by_agent else _BY_TIME,
        "{measure}": column,
        "{shown}": "a.agent_id" if by_agent else _TIMED,
        "{joined}": "JOIN agents AS a ON a.agent = found.key" if by_agent else "",
    }
    text = sql("table_latencies")
    for mark, value in marks.items():
        text = text.replace(mark, value)
    question = _put_in(reader, text, stretch, rolled, chosen=chosen)
    return TableQuery(question.text, question.parameters | {"measure": measure})


def _count(reader: Reader, stretch: Stretch, chosen: str) -> int:
    text = "SELECT count(*) FROM {pings} AS p WHERE {chosen} AND pinged_us >= $since_us AND pinged_us < $until_us"
    question = _put_in(reader, text, stretch, chosen=chosen)
    asked = {name: question.parameters[name] for name in ("since_us", "until_us")}
    found: int = rows_of(reader.cursor, question.text, asked)[0][0]
    return found


def _filled(
    reader: Reader,
    name: str,
    stretch: Stretch,
    rolled: Rolled = (0, 0, 0, 0),
    *,
    chosen: str = "true",
    order: str = "",
) -> TableQuery:
    return _put_in(reader, sql(name), stretch, rolled, chosen=chosen, order=order)


def _put_in(
    reader: Reader,
    text: str,
    stretch: Stretch,
    rolled: Rolled = (0, 0, 0, 0),
    *,
    chosen: str = "true",
    order: str = "",
) -> TableQuery:
    """The text with its tables and conditions, and every parameter that one of ours may name."""
    text = text.replace("{chosen}", chosen).replace("{order}", order)
    text = reader.partitions.fill(text, stretch.since_us, stretch.until_us)
    return TableQuery(text, _parameters(stretch, rolled))


def _parameters(stretch: Stretch, rolled: Rolled = (0, 0, 0, 0)) -> dict[str, Any]:
    names = ("first", "end", "head_until_us", "tail_since_us")
    return (
        msgspec.structs.asdict(stretch) | dict(zip(names, rolled, strict=True)) | older_than(None)
    )


def _chosen(reader: Reader, agent_id: str | None, *, registered: bool) -> str:
    """The condition for one agent or all."""
    if agent_id is None:
        return "true"
    agent = reader.names.agents.find(agent_id)
    if agent is None and not registered:
        raise RefusedError(404, f"no history of agent {agent_id}")
    return "false" if agent is None else f"p.agent = {agent:d}"


def _stretch(reader: Reader, request: TableRequest, now_us: int) -> Stretch:
    """The month, or the last hours up to the newest outcome: its clock may be ahead of ours."""
    until_us = max(now_us, reader.newest_us) + 1
    since_us = now_us - int(request.hours * HOUR_US)
    if request.month is not None:
        month = month_interval(request.month)
        if month.begin > now_us:
            raise RefusedError(400, f"{request.month} has not begun")
        since_us = month.begin
        until_us = min(until_us, month.end)
    grain = _GRAINS.get(request.by)
    return Stretch(since_us, until_us, 0 if grain else since_us, grain or until_us - since_us)
