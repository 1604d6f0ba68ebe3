"""Token buckets, one a caller: generous, so that only a runaway client ever meets them."""

from collections import OrderedDict
from typing import NamedTuple

MOST_CALLERS = 10_000


class _Bucket(NamedTuple):
    level: float
    at: float


class RateLimit:
    """`per_second` requests on average, `burst` at once. Remembers the callers of late, forgets the rest."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, caller: str, clock: float) -> float:
        """0 when the request may pass; else the seconds after which the next one may. `clock` is monotonic."""
        bucket = self._buckets.get(caller, _Bucket(self._burst, clock))
        level = min(self._burst, bucket.level + (clock - bucket.at) * self._per_second)
        passes = level >= 1.0
        self._buckets[caller] = _Bucket(level - 1.0 if passes else level, clock)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1.0 - level) / self._per_second
