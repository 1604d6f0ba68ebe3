"""Token buckets, one for each caller. The rates are generous: only a runaway client meets them."""

from collections import OrderedDict
from typing import NamedTuple

MAX_CALLERS = 10_000


class _Bucket(NamedTuple):
    level: float  # requests that may still pass at `clock`
    clock: float


class RateLimit:
    """Lets `per_second` requests of a caller pass on average, and `burst` at once.

    Remembers the MAX_CALLERS callers seen last. A forgotten caller starts with a full bucket.
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str, clock: float) -> float:
        """Counts a request; returns 0 if it may pass, else the seconds until the next one may.

        `clock` is in seconds and never goes back.
        """
        bucket = self._buckets.get(caller, _Bucket(self._burst, clock))
        refilled = bucket.level + (clock - bucket.clock) * self._per_second
        level = min(self._burst, refilled)
        wait = 0.0
        if level >= 1.0:
            level -= 1.0
        else:
            wait = (1.0 - level) / self._per_second
        self._remember(caller, _Bucket(level, clock))
        return wait

    def _remember(self, caller: str, bucket: _Bucket) -> None:
        self._buckets[caller] = bucket
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
