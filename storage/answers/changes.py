"""What changed in the fleet: outcomes that differ in kind from the one before of their agent."""

from typing import NamedTuple

from bus.contract.questions import Change, OutcomeKind
from storage.answers.pings import HistoryRow, OutcomeKey, to_pings
from storage.engine.database import listed, rows_as, sql
from storage.engine.partitions import HOUR_US
from storage.store.store import Reader

# Comparing each outcome with the one before takes 0.1 s for so many; of more, the last hour is
# compared.
MANY_PINGS = 200_000


class _ChangeRow(NamedTuple):
    """A row of `changes.sql`."""

    agent: int
    ping_seq: int
    pinged_us: int
    previous: OutcomeKind | None


def changes(
    reader: Reader,
    limit: int,
    since_us: int,
    pings: int,
) -> tuple[Change, ...]:
    """Returns the newest changes since a time, newest first; `pings` is how many outcomes it has.

    Of a fleet with very many outcomes only those of the last hour are compared.
    """
    if not limit:
        return ()
    if pings > MANY_PINGS:
        since_us = max(since_us, reader.newest_us - HOUR_US)
    text = reader.partitions.fill(sql("changes"), since_us)
    asked = {"since_us": since_us, "limit": limit}
    changed = rows_as(_ChangeRow, reader.cursor, text, asked)
    if not changed:
        return ()
    oldest_us = changed[-1].pinged_us
    times_us = listed({row.pinged_us for row in changed})
    text = reader.partitions.fill(sql("changed_pings"), oldest_us)
    asked_times = {"since_us": oldest_us, "times_us": times_us}
    rows = rows_as(HistoryRow, reader.cursor, text, asked_times)
    by_key = {row.key(): row for row in rows}
    previous: list[OutcomeKind | None] = []
    found: list[HistoryRow] = []
    for row in changed:
        outcome = by_key.get(OutcomeKey(row.agent, row.ping_seq, row.pinged_us))
        if outcome is not None:
            found.append(outcome)
            previous.append(row.previous)
    shown = to_pings(reader, found)
    return tuple(
        Change(previous=before, ping=ping) for before, ping in zip(previous, shown, strict=True)
    )
