"""Sums by day and hour: sealed when a stretch is over, made again when an outcome comes late, never trusted blindly.

What is not sealed yet is summed from the rows when it is asked for, so an answer never depends on when the
sealing ran. `remake` makes all of it again; the sums are then the same.
"""

import numpy as np
from numpy.typing import NDArray

from storage.engine.bounds import FIRST_US
from storage.engine.database import Connection, execute_all, rows_of, sql, transaction
from storage.engine.partitions import DAY_US, HOUR_US, Partitions

GRACE_US = (
    2 * HOUR_US
)  # outcomes that come later than this after their day or hour cost a summing anew
GRAINS = {"agent_days": DAY_US, "fleet_hours": HOUR_US}


def sealed_until(connection: Connection) -> dict[str, int]:
    """Up to where each rollup stands, in microseconds; long before any outcome: nothing yet."""
    return dict.fromkeys(GRAINS, FIRST_US) | dict(
        rows_of(connection, "SELECT rollup, until_us FROM sealed")
    )


def seal(connection: Connection, partitions: Partitions, newest_us: int) -> bool:
    """Sums the next day that ended well before the newest outcome; true while there may be more."""
    more = False
    for rollup, until_us in sealed_until(connection).items():
        grain = GRAINS[rollup]
        end = (newest_us - GRACE_US) // grain * grain
        following = _following(connection, partitions, until_us, end) if until_us < end else None
        if end <= until_us or (following is None and until_us == FIRST_US):
            continue
        start = end if following is None else following // grain * grain
        step = min(end, start + DAY_US)
        with transaction(connection):
            _sum(connection, partitions, rollup, start, step)
            connection.execute("DELETE FROM sealed WHERE rollup = $1", [rollup])
            connection.execute("INSERT INTO sealed VALUES ($1, $2)", [rollup, step])
        more = more or step < end
    return more


def _following(
    connection: Connection, partitions: Partitions, since_us: int, until_us: int
) -> int | None:
    """The next outcome that is not summed yet: of that day nearly always, else years without any are passed over."""
    for end_us in (min(since_us + DAY_US, until_us), until_us):
        text = partitions.fill(sql("first_within"), since_us, end_us - 1)
        found: int | None = rows_of(connection, text, {"since_us": since_us, "until_us": end_us})[
            0
        ][0]
        if found is not None:
            return found
    return None


def make_again(
    connection: Connection, partitions: Partitions, pinged_us: NDArray[np.int64]
) -> None:
    """Within the caller's transaction: sums the sealed stretches anew that these outcomes, in order, fall into."""
    for rollup, until_us in sealed_until(connection).items():
        late = pinged_us[: np.searchsorted(pinged_us, until_us)]
        grain = GRAINS[rollup]
        for start in np.unique(late // grain * grain).tolist():
            _clear(connection, rollup, start, start + grain)
            _sum(connection, partitions, rollup, start, start + grain)


def remake(connection: Connection, partitions: Partitions) -> None:
    """All sums anew, from the rows."""
    with transaction(connection):
        for rollup, until_us in sealed_until(connection).items():
            _clear(connection, rollup, FIRST_US, until_us)
            _sum(connection, partitions, rollup, FIRST_US, until_us)


def _clear(connection: Connection, rollup: str, since_us: int, until_us: int) -> None:
    execute_all(connection, sql(f"clear_{rollup}"), {"since_us": since_us, "until_us": until_us})


def _sum(
    connection: Connection, partitions: Partitions, rollup: str, since_us: int, until_us: int
) -> None:
    text = partitions.fill(sql(f"sum_{rollup}"), since_us, until_us)
    execute_all(connection, text, {"since_us": since_us, "until_us": until_us})
