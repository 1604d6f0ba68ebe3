"""How many of an agent's numbers never came.

They are counted between restarts, where numbers begin again at 1.

The numbers since the last restart are remembered as ranges (`storage/ingest/sequences.py`). Those
from before it are counted from their rows.
"""

from storage.engine.bounds import LAST_US
from storage.engine.database import value_of
from storage.ingest.loaded import missing_before_restart
from storage.store.store import Reader


def numbering_began_us(reader: Reader, agent: int) -> int:
    """Returns the time of the agent's last restart in microseconds, 0 where there was none."""
    text = "SELECT max(pinged_us) FROM restarts WHERE agent = $agent"
    return value_of(reader.cursor, text, {"agent": agent}) or 0


def missing(
    reader: Reader,
    agent: int,
    began: int,
    span: tuple[int | None, int | None],
    since_us: int,
    until_us: int = LAST_US,
) -> int:
    """Returns how many numbers are missing in a period, with those directly before its first.

    `began` is the time of the agent's last restart. `span` has the first and the last number in the
    period that came since then, None where there is none.
    """
    first, last = span
    count = 0
    if first is not None and last is not None:
        count = reader.sequences.missing_within(agent, first, last)
    if began > since_us:
        earlier = missing_before_restart(
            reader.cursor,
            reader.partitions,
            [agent],
            since_us,
            until_us,
        )
        count += earlier.get(agent, 0)
    return count
