"""Answers as tables: for each table its query, its period, and the division into rows.

Sums come from the rollups where hours or days are sealed, and from the rows of history elsewhere,
as in every answer.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from msgspec import Struct, structs

from bus.contract.durations import Interval
from bus.contract.exports import ExportRequest, FileFormat, TableRequest
from bus.contract.statements import Account, FleetReplay, Statement
from bus.errors import RefusedError
from storage.answers.cursor import older_than
from storage.answers.latencies import EXACT_PINGS
from storage.answers.sealed import SealedRange, nothing_sealed, sealed_range
from storage.engine.database import listed, sql, value_of
from storage.engine.partitions import DAY_US, HOUR_US
from storage.engine.rows import microseconds
from storage.engine.table_files import TableQuery
from storage.statements.account import month_interval
from storage.statements.unaccounted import as_parameter, unaccounted, unaccounted_by_bucket
from storage.store.store import Reader

_GRAINS = {"day": DAY_US, "hour": HOUR_US}
_MEASURES = {"response-times": ("response", "response_us"), "lateness": ("late", "late_us")}
_EVERY_AGENT = "true"
_NO_AGENT = "false"
_NEWEST_FIRST = "ORDER BY p.pinged_us DESC, p.ping_seq DESC"
_BUCKET_START = "$base_us + (pinged_us - $base_us) // $grain * $grain"
_BUCKET_BOUNDS = (
    "make_timestamp(greatest(key, $since_us))::TIMESTAMPTZ AS since, "
    "make_timestamp(least(key + $grain, $until_us))::TIMESTAMPTZ AS until"
)
_COUNT = (
    "SELECT count(*) FROM {pings} AS p "
    "WHERE {chosen} AND pinged_us >= $since_us AND pinged_us < $until_us"
)


class TimeBuckets(Struct, frozen=True):
    """A period `[since, until)` and its division into rows, in microseconds.

    The fields are parameters of the queries. The rows of a day or an hour begin at multiples of
    `grain` (UTC; `base_us` is 0). A row of the whole period begins at `base_us`, and `grain` is its
    length.
    """

    since_us: int
    until_us: int
    base_us: int
    grain: int


def table(
    reader: Reader,
    request: TableRequest,
    now: datetime,
) -> TableQuery:
    """Returns a table's query.

    Raises RefusedError: 404 for an agent without history, 400 for a month in the future or a
    division that the table does not have.
    """
    buckets = _buckets(reader, request, microseconds(now))
    chosen = _chosen_agents(reader, request.agent_id, registered=request.registered)
    if request.agent_ids is not None:
        chosen = _chosen_group(reader, request.agent_ids)
    match request.table:
        case "history":
            order = _NEWEST_FIRST
            if request.agent_id is None:
                order = ""
            text = _history_text(request.format, order)
            return _query(reader, text, buckets, chosen=chosen)
        case "incidents":
            # Reports after the period tell when an incident ended: every later partition is read.
            text = reader.partitions.fill(sql("table_incidents"), buckets.since_us)
            return TableQuery(text.replace("{chosen}", chosen), _parameters(buckets))
        case "agents":
            sealed = _sealed_range(reader, "agent_days", DAY_US, buckets)
            query = _query(reader, sql("table_agents"), buckets, sealed, chosen=chosen)
            return _with_unaccounted(reader, query, buckets)
        case "dashboard":
            query = _query(reader, sql("table_dashboard"), buckets, chosen=chosen)
            return _with_unaccounted(reader, query, buckets)
        case "fleet":
            is_of_some = request.agent_id is not None or request.agent_ids is not None
            if is_of_some or request.by == "agent":
                raise RefusedError(
                    400, "fleet is of all agents together: the table agents has one row an agent"
                )
            sealed = _sealed_range(reader, "fleet_hours", HOUR_US, buckets)
            query = _query(reader, sql("table_fleet"), buckets, sealed)
            return _with_unaccounted_buckets(reader, query, buckets)
        case "response-times" | "lateness":
            return _latencies(reader, request, buckets, chosen)


def history(
    reader: Reader,
    agent_id: str,
    request: ExportRequest,
    now: datetime,
) -> TableQuery:
    """Returns the query for an agent's outcomes of the last hours, newest first.

    Raises RefusedError (404) for an agent without history.
    """
    chosen = _chosen_agents(reader, agent_id, registered=request.registered)
    order = _NEWEST_FIRST
    if request.limit is not None:
        order += f" LIMIT {request.limit:d}"
    period = TableRequest(table="history", hours=request.hours)
    buckets = _buckets(reader, period, microseconds(now))
    text = _history_text(request.format, order)
    query = _query(reader, text, buckets, chosen=chosen)
    return TableQuery(query.text, query.parameters | older_than(request.cursor))


def _history_text(form: FileFormat, order: str) -> str:
    """Returns the text of the query for outcomes. A Parquet file has the reports, too.

    A report has 2 kB of JSON, which nobody wants in a spreadsheet.
    """
    reports = ""
    joined = ""
    if form == "parquet":
        reports = ",\n    e.payload AS report,\n    nullif(e.signature, '') AS signature"
        joined = sql("table_history_reports")
    text = sql("table_history").replace("{order}", order)
    return text.replace("{reports}", reports).replace("{joined}", joined)


def statement(statement: Statement) -> TableQuery:
    """Returns the query for a statement's accounts: the host, then each GPU."""
    rows = [_account_row(statement, "host", "", statement.enrolled_seconds, statement.host)]
    for gpu in statement.gpus:
        row = _account_row(statement, gpu.uuid, gpu.name, gpu.enrolled_seconds, gpu)
        rows.append(row)
    return TableQuery(sql("table_statement"), {"rows": listed(rows)})


def replay(replayed: FleetReplay) -> TableQuery:
    """Returns the query for every agent's pay under both rules, the greatest change first."""
    return TableQuery(sql("table_replay"), {"rows": listed([replayed])})


def _account_row(
    statement: Statement,
    subject: str,
    gpu_name: str,
    enrolled_seconds: float,
    account: Account,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "agent_id": statement.agent_id,
        "month": statement.month,
        "subject": subject,
        "gpu_name": gpu_name,
        "final": statement.final,
        "enrolled_seconds": enrolled_seconds,
        "unreported_seconds": account.unreported_seconds,
        "coverage_percent": account.coverage_percent,
        "uptime_percent": account.uptime_percent,
    }
    for state, seconds in structs.asdict(account.seconds).items():
        row[f"{state}_seconds"] = seconds
    return row


def _latencies(
    reader: Reader,
    request: TableRequest,
    buckets: TimeBuckets,
    chosen: str,
) -> TableQuery:
    """Returns the query for percentiles, which are exact for as few pings as in other answers.

    For more pings they come from latency buckets. Those of sealed hours are used where a row is of
    all agents.
    """
    measure, column = _MEASURES[request.table]
    sealed = nothing_sealed(buckets.since_us)
    sealed_text = ""
    if request.by != "agent" and request.agent_id is None:
        sealed = _sealed_range(reader, "fleet_hours", HOUR_US, buckets)
        if sealed.first < sealed.end:
            sealed_text = sql("latencies_sealed")
    found = sql("latencies_bucketed")
    if _count_pings(reader, buckets, chosen) <= EXACT_PINGS:
        found = sql("latencies_exact")
    key, shown, joined = _BUCKET_START, _BUCKET_BOUNDS, ""
    if request.by == "agent":
        key, shown, joined = "agent", "a.agent_id", "JOIN agents AS a ON a.agent = found.key"
    # The order matters: the text of {found} has the other placeholders in it.
    text = sql("table_latencies").replace("{found}", found)
    text = text.replace("{sealed}", sealed_text)
    text = text.replace("{key}", key)
    text = text.replace("{measure}", column)
    text = text.replace("{shown}", shown)
    text = text.replace("{joined}", joined)
    query = _query(reader, text, buckets, sealed, chosen=chosen)
    return TableQuery(query.text, query.parameters | {"measure": measure})


def _count_pings(
    reader: Reader,
    buckets: TimeBuckets,
    chosen: str,
) -> int:
    text = reader.partitions.fill(
        _COUNT.replace("{chosen}", chosen), buckets.since_us, buckets.until_us
    )
    asked = {"since_us": buckets.since_us, "until_us": buckets.until_us}
    count: int = value_of(reader.cursor, text, asked)
    return count


def _sealed_range(
    reader: Reader,
    rollup: str,
    grain_us: int,
    buckets: TimeBuckets,
) -> SealedRange:
    return sealed_range(reader, rollup, grain_us, buckets.since_us, buckets.until_us)


def _query(
    reader: Reader,
    text: str,
    buckets: TimeBuckets,
    sealed: SealedRange | None = None,
    *,
    chosen: str = _EVERY_AGENT,
) -> TableQuery:
    """Returns the query of a text whose tables and condition are put in.

    `chosen`: the condition for agents.
    """
    text = text.replace("{chosen}", chosen)
    text = reader.partitions.fill(text, buckets.since_us, buckets.until_us)
    return TableQuery(text, _parameters(buckets, sealed))


def _with_unaccounted(
    reader: Reader,
    query: TableQuery,
    buckets: TimeBuckets,
) -> TableQuery:
    """Adds the parameter with the agents' time that no window accounts for."""
    found = unaccounted(reader, buckets.since_us, buckets.until_us)
    return TableQuery(query.text, query.parameters | {"unaccounted": as_parameter(found)})


def _with_unaccounted_buckets(
    reader: Reader,
    query: TableQuery,
    buckets: TimeBuckets,
) -> TableQuery:
    """Adds the parameter with the fleet's time that no window accounts for, by bucket."""
    period = Interval(buckets.since_us, buckets.until_us)
    found = unaccounted_by_bucket(reader, period, buckets.base_us, buckets.grain)
    parameter = as_parameter(found, key="begins_us")
    return TableQuery(query.text, query.parameters | {"unaccounted": parameter})


def _parameters(
    buckets: TimeBuckets,
    sealed: SealedRange | None = None,
) -> dict[str, Any]:
    """Returns every parameter that one of the texts may name; a query uses those that it names."""
    if sealed is None:
        sealed = nothing_sealed(buckets.since_us)
    parameters = structs.asdict(buckets)
    parameters |= sealed._asdict()
    parameters |= older_than(None)
    return parameters


def _chosen_agents(
    reader: Reader,
    agent_id: str | None,
    *,
    registered: bool,
) -> str:
    """Returns the SQL condition for one agent, or for all where `agent_id` is None."""
    if agent_id is None:
        return _EVERY_AGENT
    agent = reader.names.agents.find(agent_id)
    if agent is not None:
        return f"p.agent = {agent:d}"
    if registered:
        return _NO_AGENT
    raise RefusedError(404, f"no history of agent {agent_id}")


def _chosen_group(reader: Reader, agent_ids: Iterable[str]) -> str:
    """Returns the SQL condition for some agents; those without history have no rows."""
    numbers = [reader.names.agents.find(agent_id) for agent_id in agent_ids]
    known = [str(number) for number in numbers if number is not None]
    if not known:
        return _NO_AGENT
    return f"p.agent IN ({', '.join(known)})"


def _buckets(
    reader: Reader,
    request: TableRequest,
    now_us: int,
) -> TimeBuckets:
    """Returns the month, or the last hours to the newest outcome (its clock may be ahead)."""
    since_us = now_us - int(request.hours * HOUR_US)
    until_us = max(now_us, reader.newest_us) + 1
    if request.month is not None:
        month = month_interval(request.month)
        if month.begin > now_us:
            raise RefusedError(400, f"{request.month} has not begun")
        since_us = month.begin
        until_us = min(until_us, month.end)
    grain = _GRAINS.get(request.by)
    if grain is None:
        return TimeBuckets(since_us, until_us, base_us=since_us, grain=until_us - since_us)
    return TimeBuckets(since_us, until_us, base_us=0, grain=grain)
