"""Answers about the past. Uptime is always a ratio of summed milliseconds, never a mean of percentages.

Each function runs in a reader's thread on one snapshot of the history; the clock is read by who calls.
"""

from datetime import datetime

from bus.contract.durations import uptime_percent
from bus.contract.messages import Seconds
from bus.contract.questions import (
    HistoryRequest,
    HistorySummary,
    OverviewReply,
    OverviewRequest,
    Ping,
    StoredHistory,
    UptimesReply,
    UptimesRequest,
)
from bus.transport.large_answers import PAGE_BYTES
from storage.answers.cursor import cursor_at, older_than
from storage.answers.pings import assemble, carried, seconds_of
from storage.engine.bounds import LAST_US
from storage.engine.database import listed, rows_of, sql
from storage.engine.partitions import DAY_US, HOUR_US
from storage.engine.rollups import sealed_until
from storage.engine.rows import microseconds
from storage.store.missing import missing, numbering_began_us
from storage.store.store import Reader

EXACT_PINGS = 50_000  # up to so many, percentiles are exact; above, within 1 %
RECENT_US = 10 * 60_000_000
_BUCKET = 1.02
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
Rolled = tuple[
    int, int, int, int
]  # first and end of the sealed stretches; until where the head, from where the tail


def history(
    reader: Reader,
    agent_id: str,
    request: HistoryRequest,
    now: datetime,
    most_bytes: int = PAGE_BYTES,
) -> StoredHistory:
    """A page of an agent's outcomes and the sums of the whole period; nothing for an agent nobody knows.

    A page ends early where a message would not carry more.
    """
    since_us = microseconds(now) - int(request.hours * HOUR_US)
    agent = reader.names.agents.find(agent_id)
    if agent is None:
        return StoredHistory(agent_id=agent_id, hours=request.hours, pings=(), summary=NOTHING)
    asked = {"agent": agent, "since_us": since_us, "limit": request.limit + 1} | older_than(
        request.cursor
    )
    rows = rows_of(reader.cursor, reader.partitions.fill(sql("history_page"), since_us), asked)
    pings = carried(assemble(reader, rows[: request.limit]), most_bytes)
    return StoredHistory(
        agent_id=agent_id,
        hours=request.hours,
        pings=pings,
        summary=_summary(reader, agent, since_us),
        agent_known=True,
        next_cursor=cursor_at(pings[-1].pinged_at, pings[-1].ping_seq)
        if pings and len(rows) > len(pings)
        else None,
    )


def uptimes(reader: Reader, request: UptimesRequest, now: datetime) -> UptimesReply:
    """Time-weighted uptime by agent."""
    since_us = microseconds(now) - int(request.hours * HOUR_US)
    first, end, head_until, tail_since = stretches(reader, "agent_days", DAY_US, since_us)
    edges = {"since_us": since_us, "head_until_us": head_until, "tail_since_us": tail_since}
    parameters = {
        "first_day": first,
        "end_day": end,
        "agent_ids": listed(set(request.agent_ids)),
    } | edges
    text = reader.partitions.fill(sql("uptimes"), since_us)
    percents: dict[str, float] = {}
    judged_seconds: dict[str, float] = {}
    for agent_id, good_ms, judged_ms in rows_of(reader.cursor, text, parameters):
        percent = uptime_percent(good_ms, judged_ms)
        if percent is not None:
            percents[agent_id] = percent
            judged_seconds[agent_id] = judged_ms / 1000.0
    return UptimesReply(uptimes=percents, judged_seconds=judged_seconds)


def overview(
    reader: Reader, request: OverviewRequest, now: datetime, most_bytes: int = PAGE_BYTES
) -> OverviewReply:
    """The fleet's sums and percentiles, and its newest outcomes, as many as a message carries."""
    since_us = microseconds(now) - int(request.hours * HOUR_US)
    first, end, head_until, tail_since = stretches(reader, "fleet_hours", HOUR_US, since_us)
    edges = {"since_us": since_us, "head_until_us": head_until, "tail_since_us": tail_since}
    parameters = {"first_hour": first, "end_hour": end} | edges
    text = reader.partitions.fill(sql("overview"), since_us)
    sums = [value or 0 for value in rows_of(reader.cursor, text, parameters)[0]]
    response, late = _latencies(reader, sums[0], since_us, parameters)
    seconds = seconds_of(tuple(sums[5:])) or Seconds()
    return OverviewReply(
        pings=sums[0],
        verdicts={"first": sums[2], "good": sums[3], "poor": sums[4], "excused": sums[1]},
        uptime_percent=uptime_percent(sums[5] + sums[6], sum(sums[5:9])),
        seconds=seconds,
        response_ms=response,
        late_ms=late,
        recent=carried(_recent(reader, request.recent, since_us), most_bytes),
    )


def _summary(reader: Reader, agent: int, since_us: int) -> HistorySummary:
    text = reader.partitions.fill(sql("history_summary"), since_us)
    began = numbering_began_us(reader, agent)
    row = rows_of(reader.cursor, text, {"agent": agent, "since_us": since_us, "began_us": began})[0]
    first_seq, last_seq, p50, p95 = row[12:]
    return HistorySummary(
        pings=row[0],
        answered=row[1],
        missed=row[2],
        excused=row[3],
        first=row[4],
        good=row[5],
        poor=row[6],
        missing_seqs=missing(reader, agent, began, (first_seq, last_seq), since_us),
        uptime_percent=uptime_percent(row[7] + row[8], sum(row[7:11])),
        seconds=seconds_of(row[7:12]) or Seconds(),
        response_ms_p50=None if p50 is None else p50 / 1000,
        response_ms_p95=None if p95 is None else p95 / 1000,
    )


def stretches(
    reader: Reader, rollup: str, grain: int, since_us: int, until_us: int = LAST_US
) -> Rolled:
    """The whole sealed stretches in `[since, until)`, and where the edges are that are summed from the rows."""
    first = -(-since_us // grain)
    end = min(sealed_until(reader.cursor)[rollup], until_us) // grain
    if end <= first:
        return 0, 0, since_us, since_us
    return first, end, first * grain, end * grain


def _latencies(
    reader: Reader, pings: int, since_us: int, parameters: dict[str, int]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    if pings <= EXACT_PINGS:
        text = reader.partitions.fill(sql("latencies"), since_us)
        exact = rows_of(reader.cursor, text, {"since_us": since_us})[0]
        response, late = (
            dict(zip(_QUANTILES, values or (None,) * 3, strict=True)) for values in exact
        )
        return _in_ms(response), _in_ms(late)
    buckets = rows_of(
        reader.cursor, reader.partitions.fill(sql("latency_buckets"), since_us), parameters
    )
    by_measure = {
        m: [(bucket, n) for measure, bucket, n in buckets if measure == m]
        for m in ("response", "late")
    }
    return _in_ms(_quantiles(by_measure["response"])), _in_ms(_quantiles(by_measure["late"]))


def _quantiles(buckets: list[tuple[int, int]]) -> dict[str, float | None]:
    total = sum(count for _, count in buckets)
    found: dict[str, float | None] = dict.fromkeys(_QUANTILES)
    for name, share in _QUANTILES.items():
        below = 0
        for bucket, count in buckets:
            below += count
            if below >= share * total:
                found[name] = _BUCKET**bucket
                break
    return found


def _in_ms(values: dict[str, float | None]) -> dict[str, float | None]:
    return {
        name: None if value is None else round(value / 1000, 3) for name, value in values.items()
    }


def _recent(reader: Reader, limit: int, since_us: int) -> tuple[Ping, ...]:
    if not limit:
        return ()
    for start_us in (
        max(since_us, reader.newest_us - RECENT_US),
        since_us,
    ):  # few minutes of a busy fleet will do
        asked = {"since_us": start_us, "limit": limit}
        text = reader.partitions.fill(sql("recent_moment"), start_us)
        moment_us, found = rows_of(reader.cursor, text, asked)[0]
        if found == limit or start_us == since_us:
            break
    if not found:
        return ()
    text = reader.partitions.fill(sql("recent_pings"), moment_us)
    rows = rows_of(reader.cursor, text, {"since_us": moment_us})
    return assemble(
        reader, sorted(rows, key=lambda row: -row[2])[:limit]
    )  # pinged_us, newest first


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
