"""The days and incidents of a few hosts, for status pages and a host's own view.

A month's statement divides a window at the month's edge by what is known of it. Here, where a day
is a bar on a page, a window that crosses midnight is divided in proportion to its time.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from bus.contract.durations import Interval
from bus.contract.publishing import (
    SILENT,
    HostDay,
    HostDays,
    HostDaysReply,
    HostDaysRequest,
    HostIncident,
)
from storage.engine.database import listed, rows_as, sql
from storage.engine.partitions import DAY_US, label
from storage.engine.rows import EPOCH, microseconds
from storage.statements.unaccounted import fleet_gaps
from storage.store.store import Reader

MOST_INCIDENTS = 200  # of one host; the newest
TOGETHER_US = 5_000_000  # GPUs that fail within so long of each other are one incident


class _DayRow(NamedTuple):
    """A row of `days_by_agent.sql`."""

    agent: int
    day: int
    up_ms: int
    lost_ms: int
    excused_ms: int


class _IncidentRow(NamedTuple):
    """A row of `table_incidents.sql`, with its times in microseconds."""

    agent_id: str
    gpu: str | None
    state: str
    reason: str
    since_us: int
    until_us: int | None


class _SilenceRow(NamedTuple):
    """A row of `silences.sql`."""

    agent: int
    since_us: int
    until_us: int | None


class _Time(NamedTuple):
    """A day's time in milliseconds."""

    up_ms: int = 0
    lost_ms: int = 0
    excused_ms: int = 0


def host_days(reader: Reader, request: HostDaysRequest) -> HostDaysReply:
    """Returns the days of every agent that has history, and its newest incidents."""
    numbers: dict[int, str] = {}
    for agent_id in request.agent_ids:
        number = reader.names.agents.find(agent_id)
        if number is not None:
            numbers[number] = agent_id
    if not numbers:
        return HostDaysReply(hosts=())
    last_day = microseconds(request.until) // DAY_US
    first_day = max(0, last_day - request.days + 1)
    enrolled_us = {
        number: microseconds(request.enrolled_since.get(agent_id, EPOCH))
        for number, agent_id in numbers.items()
    }
    days = _days(reader, enrolled_us, first_day, last_day)
    since_us = max(0, (last_day - request.incident_days + 1) * DAY_US)
    reported = _incidents(reader, list(numbers), since_us, microseconds(request.until))
    silences = _silences(reader, list(numbers), since_us)
    hosts: list[HostDays] = []
    for number, agent_id in numbers.items():
        of_host = days.get(number, {})
        incidents = _together(reported.get(agent_id, [])) + silences.get(number, [])
        incidents.sort(key=lambda one: one.since)
        hosts.append(
            HostDays(
                agent_id=agent_id,
                days=tuple(_day(day, of_host[day]) for day in sorted(of_host)),
                incidents=tuple(incidents[-MOST_INCIDENTS:]),
            )
        )
    return HostDaysReply(hosts=tuple(hosts))


def _days(
    reader: Reader,
    enrolled_us: dict[int, int],
    first_day: int,
    last_day: int,
) -> dict[int, dict[int, _Time]]:
    """Returns the time of each agent by its day. The keys of `enrolled_us` are the agents."""
    since_us = first_day * DAY_US
    text = reader.partitions.fill(sql("days_by_agent"), since_us)
    asked = {
        "agents": listed(
            {"agent": agent, "counted_since_us": since} for agent, since in enrolled_us.items()
        ),
        "since_us": since_us,
        "first_day": first_day,
        "last_day": last_day,
        "day_us": DAY_US,
    }
    found: dict[int, dict[int, _Time]] = {}
    for row in rows_as(_DayRow, reader.cursor, text, asked):
        found.setdefault(row.agent, {})[row.day] = _Time(row.up_ms, row.lost_ms, row.excused_ms)
    period = Interval(since_us, (last_day + 1) * DAY_US)
    for agent, gap in fleet_gaps(reader, period):
        if agent not in enrolled_us:
            continue
        enrolled = Interval(enrolled_us[agent], period.end)
        counted = gap.interval.intersection(period).intersection(enrolled)
        if counted.length == 0:
            continue
        of_agent = found.setdefault(agent, {})
        for day in range(counted.begin // DAY_US, (counted.end - 1) // DAY_US + 1):
            inside = counted.intersection(Interval(day * DAY_US, (day + 1) * DAY_US))
            time = of_agent.get(day, _Time())
            length_ms = inside.length // 1000
            if gap.kind == "history_lost":
                of_agent[day] = time._replace(excused_ms=time.excused_ms + length_ms)
            else:
                of_agent[day] = time._replace(lost_ms=time.lost_ms + length_ms)
    return found


def _incidents(
    reader: Reader,
    agents: list[int],
    since_us: int,
    until_us: int,
) -> dict[str, list[_IncidentRow]]:
    chosen = f"p.agent IN ({', '.join(str(number) for number in agents)})"
    table = reader.partitions.fill(sql("table_incidents"), since_us).replace("{chosen}", chosen)
    text = (
        "SELECT agent_id, gpu, state, reason, epoch_us(since), epoch_us(until)"  # noqa: S608
        f" FROM ({table}) ORDER BY agent_id, since"
    )
    asked = {"since_us": since_us, "until_us": until_us}
    found: dict[str, list[_IncidentRow]] = {}
    for row in rows_as(_IncidentRow, reader.cursor, text, asked):
        found.setdefault(row.agent_id, []).append(row)
    return found


def _silences(reader: Reader, agents: list[int], since_us: int) -> dict[int, list[HostIncident]]:
    """Returns when each agent did not answer, which no report tells."""
    text = reader.partitions.fill(sql("silences"), since_us)
    asked = {"agents": listed(agents), "since_us": since_us}
    found: dict[int, list[HostIncident]] = {}
    for row in rows_as(_SilenceRow, reader.cursor, text, asked):
        found.setdefault(row.agent, []).append(
            HostIncident(
                state="missing",
                reason=SILENT,
                since=_moment(row.since_us),
                until=_moment(row.until_us) if row.until_us is not None else None,
                gpus=0,
            )
        )
    return found


def _together(rows: Iterable[_IncidentRow]) -> list[HostIncident]:
    """Returns incidents by their begin; GPUs that failed alike at the same time are one of them."""
    groups: list[list[_IncidentRow]] = []
    for row in rows:
        for group in reversed(groups[-20:]):
            if _is_same(group[0], row):
                group.append(row)
                break
        else:
            groups.append([row])
    return [_incident(group) for group in groups]


def _is_same(one: _IncidentRow, other: _IncidentRow) -> bool:
    if (one.state, one.reason) != (other.state, other.reason):
        return False
    if one.gpu is None or other.gpu is None or abs(one.since_us - other.since_us) > TOGETHER_US:
        return False
    if one.until_us is None or other.until_us is None:
        return one.until_us == other.until_us
    return abs(one.until_us - other.until_us) <= TOGETHER_US


def _incident(group: list[_IncidentRow]) -> HostIncident:
    first = group[0]
    until_us = None
    if first.until_us is not None:
        until_us = max(row.until_us or 0 for row in group)
    gpus = {row.gpu for row in group if row.gpu is not None}
    return HostIncident(
        state=first.state,
        reason=first.reason,
        since=_moment(first.since_us),
        until=_moment(until_us) if until_us is not None else None,
        gpus=len(gpus),
    )


def _moment(at_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_us)


def _day(day: int, time: _Time) -> HostDay:
    return HostDay(
        day=label(day),
        up_seconds=time.up_ms / 1000,
        lost_seconds=time.lost_ms / 1000,
        excused_seconds=time.excused_ms / 1000,
    )
