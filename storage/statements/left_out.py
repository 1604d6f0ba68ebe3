"""The outcomes whose windows cannot be, so that no answer accounts for them.

Versions before admission kept what a host said of a window's length. A window that would have begun
before 1970 is left out of every sum, and named in statements and replays.
"""

from typing import NamedTuple

from bus.contract.durations import Interval
from bus.contract.statements import LeftOut
from storage.engine.database import rows_as, sql
from storage.engine.rows import from_microseconds
from storage.store.store import Reader

NAMED = 100  # a statement or replay names at most so many
BEFORE_1970 = "its window would have begun before 1970"


class _LeftOutRow(NamedTuple):
    """A row of `left_out.sql`."""

    agent: int
    ping_seq: int
    pinged_us: int


def left_out(
    reader: Reader,
    period: Interval,
    agent: int | None = None,
) -> tuple[LeftOut, ...]:
    """Returns the first of the outcomes of a period, of one agent or of all."""
    text = reader.partitions.fill(sql("left_out"), period.begin, period.end)
    asked = {"since_us": period.begin, "until_us": period.end, "limit": NAMED, "agent": agent}
    found = []
    for row in rows_as(_LeftOutRow, reader.cursor, text, asked):
        one = LeftOut(
            agent_id=reader.names.agents.name(row.agent),
            ping_seq=row.ping_seq,
            pinged_at=from_microseconds(row.pinged_us),
            reason=BEFORE_1970,
        )
        found.append(one)
    return tuple(found)
