"""Which part of a period a rollup has summed already, and which parts are summed from the rows."""

from typing import NamedTuple

from storage.engine.bounds import LAST_US
from storage.engine.rollups import sealed_until
from storage.store.store import Reader


class SealedRange(NamedTuple):
    """The sealed days or hours `[first, end)` within a period, as parameters of a query.

    The rows from the period's begin to `head_until_us` and from `tail_since_us` to its end are not
    sealed.
    """

    first: int
    end: int
    head_until_us: int
    tail_since_us: int


def nothing_sealed(since_us: int) -> SealedRange:
    """Returns the range of a period that is summed from its rows alone."""
    return SealedRange(
        first=0,
        end=0,
        head_until_us=since_us,
        tail_since_us=since_us,
    )


def sealed_range(
    reader: Reader,
    rollup: str,
    grain_us: int,
    since_us: int,
    until_us: int = LAST_US,
) -> SealedRange:
    """Returns the whole days or hours in `[since, until)` that the rollup has.

    `grain_us`: the length of one.
    """
    first = -(-since_us // grain_us)  # rounded up
    end = min(sealed_until(reader.cursor)[rollup], until_us) // grain_us
    if end <= first:
        return nothing_sealed(since_us)
    return SealedRange(first, end, head_until_us=first * grain_us, tail_since_us=end * grain_us)
