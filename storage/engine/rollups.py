"""Sums by day and by hour.

They are made once a period is over, and made again when an outcome of it comes late.

A rollup is sealed up to a time. What is newer is summed from the rows when a question asks for it,
so no answer depends on when the sealing ran. `remake` makes all sums again from the rows; they are
the same then.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.engine.bounds import FIRST_US
from storage.engine.database import (
    Connection,
    execute_all,
    rows_as,
    sql,
    transaction,
    value_of,
)
from storage.engine.partitions import DAY_US, HOUR_US, Partitions

# How long a period stays open after its end. An outcome that comes later makes its period be summed
# again.
GRACE_US = 2 * HOUR_US
GRAINS = {"agent_days": DAY_US, "fleet_hours": HOUR_US}


class _Sealed(NamedTuple):
    rollup: str
    until_us: int


def sealed_until(connection: Connection) -> dict[str, int]:
    """Returns up to where each rollup is sealed, in microseconds.

    FIRST_US where nothing is sealed yet.
    """
    sealed = dict.fromkeys(GRAINS, FIRST_US)
    for row in rows_as(_Sealed, connection, "SELECT rollup, until_us FROM sealed"):
        sealed[row.rollup] = row.until_us
    return sealed


def seal(
    connection: Connection,
    partitions: Partitions,
    newest_us: int,
) -> bool:
    """Sums up to one day more of each rollup.

    Only time is summed that ended GRACE_US before the newest outcome. Returns whether there may be
    more to sum.
    """
    more = False
    for rollup, until_us in sealed_until(connection).items():
        if _seal_step(connection, partitions, rollup, until_us, newest_us):
            more = True
    return more


def _seal_step(
    connection: Connection,
    partitions: Partitions,
    rollup: str,
    until_us: int,
    newest_us: int,
) -> bool:
    grain = GRAINS[rollup]
    end = (newest_us - GRACE_US) // grain * grain
    if end <= until_us:
        return False
    following = _first_outcome(connection, partitions, until_us, end)
    if following is not None:
        start = following // grain * grain
    elif until_us == FIRST_US:
        return False
    else:
        start = end
    step = min(end, start + DAY_US)
    with transaction(connection):
        _sum(connection, partitions, rollup, start, step)
        connection.execute("DELETE FROM sealed WHERE rollup = $1", [rollup])
        connection.execute("INSERT INTO sealed VALUES ($1, $2)", [rollup, step])
    return step < end


def _first_outcome(
    connection: Connection,
    partitions: Partitions,
    since_us: int,
    until_us: int,
) -> int | None:
    """The time of the first outcome in a period.

    It is nearly always within the first day, so that day is asked for alone. Otherwise the whole
    period is asked for, so that years without an outcome are passed over in one step.
    """
    for end_us in (min(since_us + DAY_US, until_us), until_us):
        text = partitions.fill(sql("first_within"), since_us, end_us - 1)
        found: int | None = value_of(connection, text, {"since_us": since_us, "until_us": end_us})
        if found is not None:
            return found
    return None


def sum_again(
    connection: Connection,
    partitions: Partitions,
    pinged_us: NDArray[np.int64],
) -> None:
    """Sums the sealed periods again that these outcomes fall into.

    Runs within the caller's transaction.

    `pinged_us` is in ascending order.
    """
    for rollup, until_us in sealed_until(connection).items():
        late = pinged_us[: np.searchsorted(pinged_us, until_us)]
        grain = GRAINS[rollup]
        for start in np.unique(late // grain * grain).tolist():
            _clear(connection, rollup, start, start + grain)
            _sum(connection, partitions, rollup, start, start + grain)


def remake(connection: Connection, partitions: Partitions) -> None:
    """Makes all sums again from the rows."""
    with transaction(connection):
        for rollup, until_us in sealed_until(connection).items():
            _clear(connection, rollup, FIRST_US, until_us)
            _sum(connection, partitions, rollup, FIRST_US, until_us)


def _clear(
    connection: Connection,
    rollup: str,
    since_us: int,
    until_us: int,
) -> None:
    period = {"since_us": since_us, "until_us": until_us}
    execute_all(connection, sql(f"clear_{rollup}"), period)


def _sum(
    connection: Connection,
    partitions: Partitions,
    rollup: str,
    since_us: int,
    until_us: int,
) -> None:
    period = {"since_us": since_us, "until_us": until_us}
    text = partitions.fill(sql(f"sum_{rollup}"), since_us, until_us)
    execute_all(connection, text, period)
