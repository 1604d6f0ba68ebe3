"""How many of an agent's numbers never came: numbering by numbering, for they begin again where the bucket was lost.

The numbering that goes on is remembered as runs (storage/ingest/sequences.py); those that ended are counted from their rows.
"""

from storage.engine.bounds import LAST_US
from storage.engine.database import rows_of
from storage.ingest.loaded import missing_before_restart
from storage.store.store import Reader


def numbering_began_us(reader: Reader, agent: int) -> int:
    """The moment at which the agent's numbering that goes on began; 0 where there was never another."""
    found = rows_of(
        reader.cursor, "SELECT max(pinged_us) FROM restarts WHERE agent = $agent", {"agent": agent}
    )
    return found[0][0] or 0


def missing(
    reader: Reader,
    agent: int,
    began: int,
    span: tuple[int | None, int | None],
    since_us: int,
    until_us: int = LAST_US,
) -> int:
    """Numbers missing in a period, and directly before its first.

    `span`: the first and the last number in the period that are of the numbering which goes on since `began`.
    """
    first, last = span
    here = (
        0 if first is None or last is None else reader.sequences.missing_within(agent, first, last)
    )
    if began <= since_us:
        return here
    return here + missing_before_restart(
        reader.cursor, reader.partitions, [agent], since_us, until_us
    ).get(agent, 0)
