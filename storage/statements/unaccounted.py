"""The time of agents that no window in history accounts for, for answers about many agents.

Sums of windows leave it out, so every answer that judges a period adds it: time in which an agent
was asked and never answered counts against it, and time whose outcome was lost is excused.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from bus.contract.durations import Interval
from storage.archive.day_folders import retention_cutoff_us
from storage.engine.bounds import LAST_US
from storage.engine.database import listed, rows_as, rows_of, sql
from storage.statements.gaps import Gap, MeasuredOutcome, gaps
from storage.statements.outcomes import AWAITED_US
from storage.store.store import Reader


class Unaccounted(NamedTuple):
    """An agent's time in a period that no window accounts for, in milliseconds."""

    unreported_ms: int = 0
    lost_ms: int = 0

    def with_gap(self, gap: Gap, period: Interval) -> "Unaccounted":
        """Returns the time with that of a gap, as far as it lies in the period."""
        length_ms = gap.interval.intersection(period).length // 1000
        if gap.kind == "history_lost":
            return Unaccounted(self.unreported_ms, self.lost_ms + length_ms)
        return Unaccounted(self.unreported_ms + length_ms, self.lost_ms)


class _MeasuredRow(NamedTuple):
    """A row of `measured_outcomes.sql`."""

    agent: int
    ping_seq: int
    pinged_us: int
    begin_us: int | None
    outcome: str
    enrolled_us: int | None

    def measured(self) -> MeasuredOutcome:
        """Returns where the outcome lies."""
        return MeasuredOutcome(
            self.ping_seq,
            self.pinged_us,
            self.begin_us,
            self.outcome,
            self.enrolled_us,
        )


class _OpenWindowRow(NamedTuple):
    """A row of `open_windows.sql`."""

    agent: int
    begin_us: int
    missed_us: int


NOTHING = Unaccounted()


def unaccounted(
    reader: Reader,
    since_us: int,
    until_us: int = LAST_US,
) -> dict[int, Unaccounted]:
    """Returns the time of every agent that has some in a period.

    A period that has ended is accounted for by outcomes after it, which are read, too. The rows of
    agents that miss numbers are looked at one by one; few agents do.
    """
    period = Interval(since_us, until_us)
    found: dict[int, Unaccounted] = {}
    for agent, gap in fleet_gaps(reader, period):
        found[agent] = found.get(agent, NOTHING).with_gap(gap, period)
    return _without_nothing(found)


def unaccounted_by_bucket(
    reader: Reader,
    period: Interval,
    base_us: int,
    grain_us: int,
) -> dict[int, Unaccounted]:
    """Returns the time of the whole fleet, by the begin of each bucket that has some.

    Buckets begin at `base_us` and every `grain_us` after it. A gap is divided at their edges.
    """
    found: dict[int, Unaccounted] = {}
    for _agent, gap in fleet_gaps(reader, period):
        within = gap.interval.intersection(period)
        if within.length == 0:
            continue
        buckets_before = (within.begin - base_us) // grain_us
        begin_us = base_us + buckets_before * grain_us
        while begin_us < within.end:
            bucket = Interval(begin_us, begin_us + grain_us)
            bucket = bucket.intersection(period)
            found[begin_us] = found.get(begin_us, NOTHING).with_gap(gap, bucket)
            begin_us += grain_us
    return _without_nothing(found)


def _without_nothing(found: dict[int, Unaccounted]) -> dict[int, Unaccounted]:
    return {key: time for key, time in found.items() if time != NOTHING}


def fleet_gaps(reader: Reader, period: Interval) -> Iterator[tuple[int, Gap]]:
    """Yields every agent's gaps that the outcomes in a period, and after it, tell of."""
    read = Interval(period.begin, min(period.end + AWAITED_US, LAST_US))
    uneven = set(reader.sequences.agents_with_gaps())
    for row in _open_windows(reader, read):
        if row.agent not in uneven:
            yield row.agent, Gap(Interval(row.begin_us, row.missed_us), "unreported")
    yield from _gaps_of(reader, uneven, read)


def as_parameter(found: dict[int, Unaccounted], key: str = "agent") -> str:
    """Returns the times as the parameter `unaccounted` of a table's query."""
    return listed({key: number, **time._asdict()} for number, time in found.items())


def _open_windows(reader: Reader, read: Interval) -> list[_OpenWindowRow]:
    asked: dict[str, Any] = {"since_us": read.begin, "until_us": read.end}
    text = reader.partitions.fill(sql("open_misses"), read.begin, read.end)
    agents = [agent for (agent,) in rows_of(reader.cursor, text, asked)]
    if not agents:
        return []
    asked["agents"] = listed(agents)
    text = reader.partitions.fill(sql("open_windows"), read.begin, read.end)
    return rows_as(_OpenWindowRow, reader.cursor, text, asked)


def unaccounted_of(
    reader: Reader,
    agents: Iterable[int],
    period: Interval,
    read: Interval,
) -> dict[int, Unaccounted]:
    """Returns the time of some agents, from each of their outcomes in `read`."""
    found: dict[int, Unaccounted] = {}
    for agent, gap in _gaps_of(reader, agents, read):
        found[agent] = found.get(agent, NOTHING).with_gap(gap, period)
    return found


def _gaps_of(
    reader: Reader,
    agents: Iterable[int],
    read: Interval,
) -> Iterator[tuple[int, Gap]]:
    """Yields the gaps of some agents, from each of their outcomes in `read`."""
    wanted = sorted(agents)
    if not wanted:
        return
    text = reader.partitions.fill(sql("measured_outcomes"), read.begin, read.end)
    asked = {"agents": listed(wanted), "since_us": read.begin, "until_us": read.end}
    complete_since_us = max(read.begin, retention_cutoff_us(reader.cursor))
    rows = rows_as(_MeasuredRow, reader.cursor, text, asked)
    for agent, agent_rows in groupby(rows, key=attrgetter("agent")):
        outcomes = [row.measured() for row in agent_rows]
        for gap in gaps(outcomes, complete_since_us):
            yield agent, gap
