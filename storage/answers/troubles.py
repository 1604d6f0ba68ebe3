"""What began or ended in the fleet: the newest troubles of its GPUs and hosts, and why."""

from typing import NamedTuple

from bus.contract.questions import Trouble
from storage.engine.bounds import LAST_US
from storage.engine.database import listed, rows_as, sql
from storage.engine.partitions import HOUR_US
from storage.engine.rows import from_microseconds
from storage.store.store import Reader

# Merging what successive reports repeat takes 0.1 s for the incidents of so many outcomes; of more,
# those of the last hour are merged.
MANY_PINGS = 200_000


class _TroubleRow(NamedTuple):
    """A row of `troubles.sql`."""

    agent: int
    gpu: str | None
    state: str
    reason: str
    times: int
    since_us: int
    until_us: int | None
    told_us: int


class _SetRow(NamedTuple):
    """A row of `gpu_sets_of_pings.sql`."""

    agent: int
    pinged_us: int
    gpu_set: int


def troubles(
    reader: Reader,
    limit: int,
    since_us: int,
    pings: int,
) -> tuple[Trouble, ...]:
    """Returns the newest troubles that began since a time, by when they began or ended.

    `pings` is how many outcomes the time has. Of a fleet with very many outcomes only the troubles
    of the last hour are told.
    """
    if not limit:
        return ()
    if pings > MANY_PINGS:
        since_us = max(since_us, reader.newest_us - HOUR_US)
    text = reader.partitions.fill(sql("troubles"), since_us).replace("{chosen}", "true")
    asked = {"since_us": since_us, "until_us": LAST_US, "limit": limit}
    rows = rows_as(_TroubleRow, reader.cursor, text, asked)
    indexes = _Indexes(reader, rows)
    found = []
    for row in rows:
        until = None
        if row.until_us is not None:
            until = from_microseconds(row.until_us)
        trouble = Trouble(
            agent_id=reader.names.agents.name(row.agent),
            gpu=row.gpu,
            index=indexes.of(row),
            state=row.state,
            reason=row.reason,
            since=from_microseconds(row.since_us),
            until=until,
            times=row.times,
            told_at=from_microseconds(row.told_us),
        )
        found.append(trouble)
    return tuple(found)


class _Indexes:
    """The places of GPUs in their hosts, as the reports had them that told the troubles."""

    def __init__(self, reader: Reader, rows: list[_TroubleRow]) -> None:
        self._reader = reader
        self._sets: dict[tuple[int, int], int] = {}
        if not rows:
            return
        oldest_us = min(row.told_us for row in rows)
        text = reader.partitions.fill(sql("gpu_sets_of_pings"), oldest_us)
        asked = {
            "since_us": oldest_us,
            "agents": listed({row.agent for row in rows}),
            "times_us": listed({row.told_us for row in rows}),
        }
        for row in rows_as(_SetRow, reader.cursor, text, asked):
            self._sets[row.agent, row.pinged_us] = row.gpu_set

    def of(self, row: _TroubleRow) -> int | None:
        """Returns the index of the GPU; None for a host, or where the report named none."""
        gpu_set = self._sets.get((row.agent, row.told_us))
        if row.gpu is None or gpu_set is None:
            return None
        for uuid, index, _name in self._reader.names.gpus(gpu_set):
            if uuid == row.gpu:
                return index
        return None
