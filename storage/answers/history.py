"""Answers about the past.

Uptime is always a ratio of summed milliseconds, never a mean of percentages.

Each function runs in a reader's thread on one snapshot of the history. The caller reads the clock
and passes `now`.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bus.contract.durations import Durations, Interval, uptime_percent
from bus.contract.fleet_map import FleetUptimes, FleetUptimesRequest, tenths
from bus.contract.messages import Seconds
from bus.contract.questions import (
    FleetSums,
    HistoryRequest,
    HistorySummary,
    OverviewReply,
    OverviewRequest,
    Ping,
    StoredHistory,
    UptimesReply,
    UptimesRequest,
)
from bus.transport.large_answers import PAGE_BYTES, fitting
from storage.answers.changes import changes
from storage.answers.cursor import cursor_at, older_than
from storage.answers.latencies import fleet_latencies
from storage.answers.pings import HistoryRow, fit_message, to_pings, with_evidence
from storage.answers.sealed import sealed_range
from storage.answers.troubles import troubles
from storage.engine.bounds import LAST_US
from storage.engine.database import listed, rows_as, sql
from storage.engine.duration_columns import durations_of
from storage.engine.partitions import DAY_US, HOUR_US
from storage.engine.rows import in_milliseconds, microseconds
from storage.statements.unaccounted import Unaccounted, unaccounted, unaccounted_of
from storage.store.missing import missing, numbering_began_us
from storage.store.store import Reader

RECENT_US = (
    10 * 60_000_000
)  # of a busy fleet, so few minutes have as many outcomes as are asked for
NOTHING = HistorySummary(
    pings=0,
    answered=0,
    missed=0,
    excused=0,
    first=0,
    good=0,
    poor=0,
    missing_seqs=0,
    uptime_percent=None,
    seconds=Seconds(),
)


class _SummaryRow(NamedTuple):
    """The row of `history_summary.sql`.

    The sequence numbers are of the numbering that is going on.
    """

    pings: int
    answered: int
    missed: int
    excused: int
    first: int
    good: int
    poor: int
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int
    first_seq: int | None
    last_seq: int | None
    response_p50_us: float | None
    response_p95_us: float | None


class _OverviewRow(NamedTuple):
    """The row of `overview.sql`."""

    pings: int
    excused: int
    first: int
    good: int
    poor: int
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    excused_ms: int


class _UptimeRow(NamedTuple):
    """A row of `uptimes.sql`."""

    agent_id: str
    good_ms: int
    judged_ms: int


class _JudgedTime(NamedTuple):
    """The time of an agent that counts, and how much of it was good."""

    good_ms: int
    judged_ms: int


class _RecentRow(NamedTuple):
    """The row of `recent_since.sql`: when the oldest of the newest outcomes was."""

    since_us: int | None
    outcomes: int


def history(
    reader: Reader,
    agent_id: str,
    request: HistoryRequest,
    now: datetime,
    most_bytes: int = PAGE_BYTES,
) -> StoredHistory:
    """Returns a page of an agent's outcomes and the sums of the whole period.

    Both are empty for an unknown agent. A page ends early where a message cannot carry more than
    `most_bytes`.
    """
    since_us = microseconds(now) - int(request.hours * HOUR_US)
    agent = reader.names.agents.find(agent_id)
    if agent is None:
        return StoredHistory(
            agent_id=agent_id,
            hours=request.hours,
            pings=(),
            summary=NOTHING,
        )
    asked = older_than(request.cursor, request.before)
    asked |= {"agent": agent, "since_us": since_us, "limit": request.limit + 1}
    text = reader.partitions.fill(sql("history_page"), since_us)
    rows = rows_as(HistoryRow, reader.cursor, text, asked)
    found = to_pings(reader, rows[: request.limit])
    if request.evidence:
        found = with_evidence(reader, agent, found)
    pings = fit_message(found, most_bytes)
    next_cursor = None
    if pings and len(rows) > len(pings):
        last = pings[-1]
        next_cursor = cursor_at(last.pinged_at, last.ping_seq)
    return StoredHistory(
        agent_id=agent_id,
        hours=request.hours,
        pings=pings,
        summary=_summary(reader, agent, since_us),
        agent_known=True,
        next_cursor=next_cursor,
    )


def uptimes(
    reader: Reader,
    request: UptimesRequest,
    now: datetime,
) -> UptimesReply:
    """Returns the uptime of each agent, weighted by time.

    Agents without any judged time are left out.
    """
    percents: dict[str, float] = {}
    judged_seconds: dict[str, float] = {}
    for agent_id, time in _judged_times(reader, request.agent_ids, request.hours, now):
        percent = uptime_percent(time.good_ms, time.judged_ms)
        if percent is not None:
            percents[agent_id] = percent
            judged_seconds[agent_id] = time.judged_ms / 1000.0
    return UptimesReply(uptimes=percents, judged_seconds=judged_seconds)


def fleet_uptimes(
    reader: Reader,
    request: FleetUptimesRequest,
    now: datetime,
) -> FleetUptimes:
    """Returns what `uptimes` does of every agent that was judged for long enough, packed."""
    agent_ids: list[str] = []
    percents: list[int] = []
    for agent_id, time in _judged_times(reader, None, request.hours, now):
        if time.judged_ms < request.judged_seconds * 1000:
            continue
        agent_ids.append(agent_id)
        percents.append(tenths(uptime_percent(time.good_ms, time.judged_ms)))
    return FleetUptimes(agent_ids=tuple(agent_ids), uptimes=tuple(percents))


def overview(
    reader: Reader,
    request: OverviewRequest,
    now: datetime,
    most_bytes: int = PAGE_BYTES,
) -> OverviewReply:
    """Returns the fleet's sums and percentiles, and as many of its newest outcomes as fit."""
    since_us = microseconds(now) - int(request.hours * HOUR_US)
    sealed = sealed_range(reader, "fleet_hours", HOUR_US, since_us)
    text = reader.partitions.fill(sql("overview"), since_us)
    asked = {"since_us": since_us, **sealed._asdict()}
    row = rows_as(_OverviewRow, reader.cursor, text, asked)[0]
    durations = durations_of(row)
    missing_time = unaccounted(reader, since_us).values()
    unreported_ms = sum(time.unreported_ms for time in missing_time)
    durations += Durations(excused=sum(time.lost_ms for time in missing_time))
    latencies = fleet_latencies(reader, row.pings, since_us, sealed)
    recent = fit_message(_recent_pings(reader, request.recent, since_us), most_bytes // 2)
    changed = changes(reader, request.changes, since_us, row.pings)
    found_troubles = troubles(reader, request.troubles, since_us, row.pings)
    longer = []
    for hours in request.longer_hours:
        longer.append(_sums(reader, hours, now))
    return OverviewReply(
        pings=row.pings,
        verdicts={
            "first": row.first,
            "good": row.good,
            "poor": row.poor,
            "excused": row.excused,
        },
        uptime_percent=uptime_percent(durations.good, durations.judged + unreported_ms),
        seconds=durations.to_seconds(),
        unreported_seconds=unreported_ms / 1000,
        response_ms=latencies.response_ms,
        late_ms=latencies.late_ms,
        recent=recent,
        changes=fitting(changed, most_bytes // 4),
        troubles=fitting(found_troubles, most_bytes // 4),
        longer=tuple(longer),
    )


def _sums(
    reader: Reader,
    hours: float,
    now: datetime,
) -> FleetSums:
    """Returns the fleet's sums of the last `hours`, mostly from the rollup of its hours."""
    since_us = microseconds(now) - int(hours * HOUR_US)
    sealed = sealed_range(reader, "fleet_hours", HOUR_US, since_us)
    text = reader.partitions.fill(sql("overview"), since_us)
    asked = {"since_us": since_us, **sealed._asdict()}
    durations = durations_of(rows_as(_OverviewRow, reader.cursor, text, asked)[0])
    missing_time = unaccounted(reader, since_us).values()
    unreported_ms = sum(time.unreported_ms for time in missing_time)
    durations += Durations(excused=sum(time.lost_ms for time in missing_time))
    return FleetSums(
        hours=hours,
        uptime_percent=uptime_percent(durations.good, durations.judged + unreported_ms),
        seconds=durations.to_seconds(),
        unreported_seconds=unreported_ms / 1000,
    )


def _judged_times(
    reader: Reader,
    agent_ids: Sequence[str] | None,
    hours: float,
    now: datetime,
) -> Iterator[tuple[str, _JudgedTime]]:
    """Yields the judged time of each of the agents that has any; None asks for all of them."""
    since_us = microseconds(now) - int(hours * HOUR_US)
    sealed = sealed_range(reader, "agent_days", DAY_US, since_us)
    asked: dict[str, Any] = {"since_us": since_us, **sealed._asdict(), "agent_ids": None}
    if agent_ids is not None:
        asked["agent_ids"] = listed(set(agent_ids))
    text = reader.partitions.fill(sql("uptimes"), since_us)
    unreported = _unreported_ms(reader, agent_ids, since_us)
    for row in rows_as(_UptimeRow, reader.cursor, text, asked):
        unreported_ms = unreported.pop(row.agent_id, 0)
        yield row.agent_id, _JudgedTime(row.good_ms, row.judged_ms + unreported_ms)
    for agent_id, unreported_ms in unreported.items():
        yield agent_id, _JudgedTime(0, unreported_ms)


def _unreported_ms(
    reader: Reader,
    agent_ids: Iterable[str] | None,
    since_us: int,
) -> dict[str, int]:
    """Returns the unreported time of those of the agents that have some; None asks for all."""
    agents = reader.names.agents
    unreported = {}
    for agent, time in unaccounted(reader, since_us).items():
        if time.unreported_ms:
            unreported[agents.name(agent)] = time.unreported_ms
    if agent_ids is None:
        return unreported
    return {agent_id: unreported[agent_id] for agent_id in agent_ids if agent_id in unreported}


def _summary(
    reader: Reader,
    agent: int,
    since_us: int,
) -> HistorySummary:
    began_us = numbering_began_us(reader, agent)
    text = reader.partitions.fill(sql("history_summary"), since_us)
    asked = {"agent": agent, "since_us": since_us, "began_us": began_us}
    row = rows_as(_SummaryRow, reader.cursor, text, asked)[0]
    missing_seqs = missing(reader, agent, began_us, (row.first_seq, row.last_seq), since_us)
    missing_time = Unaccounted()
    if row.missed or missing_seqs:
        period = Interval(since_us, LAST_US)
        found = unaccounted_of(reader, [agent], period, period)
        missing_time = found.get(agent, missing_time)
    durations = durations_of(row) + Durations(excused=missing_time.lost_ms)
    judged_ms = durations.judged + missing_time.unreported_ms
    return HistorySummary(
        pings=row.pings,
        answered=row.answered,
        missed=row.missed,
        excused=row.excused,
        first=row.first,
        good=row.good,
        poor=row.poor,
        missing_seqs=missing_seqs,
        uptime_percent=uptime_percent(durations.good, judged_ms),
        seconds=durations.to_seconds(),
        unreported_seconds=missing_time.unreported_ms / 1000,
        response_ms_p50=in_milliseconds(row.response_p50_us),
        response_ms_p95=in_milliseconds(row.response_p95_us),
    )


def _recent_pings(
    reader: Reader,
    limit: int,
    since_us: int,
) -> tuple[Ping, ...]:
    """Returns the newest outcomes of the fleet, newest first."""
    if not limit:
        return ()
    recent_us = max(since_us, reader.newest_us - RECENT_US)
    found = _find_recent(reader, limit, recent_us)
    if found.outcomes < limit and recent_us > since_us:
        found = _find_recent(reader, limit, since_us)
    if found.since_us is None:
        return ()
    text = reader.partitions.fill(sql("recent_pings"), found.since_us)
    rows = rows_as(HistoryRow, reader.cursor, text, {"since_us": found.since_us})
    rows.sort(key=_newest_first)
    return to_pings(reader, rows[:limit])


def _find_recent(
    reader: Reader,
    limit: int,
    since_us: int,
) -> _RecentRow:
    text = reader.partitions.fill(sql("recent_since"), since_us)
    asked = {"since_us": since_us, "limit": limit}
    return rows_as(_RecentRow, reader.cursor, text, asked)[0]


def _newest_first(row: HistoryRow) -> int:
    return -row.pinged_us
