"""The counters of one scheduler, from which its metrics are made."""

import bisect
from collections import Counter
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from bus.contract.messages import AgentState

# Upper bounds in seconds. A ping takes from a LAN round trip to the longest time-out; it is late by
# anything from the tick of a timer to an hour of backlog.
PING_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATE_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Histogram:
    """Counts values by upper bound, as Prometheus does."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Counts one value."""
        bucket = bisect.bisect_left(self._bounds, seconds)
        self._counts[bucket] += 1
        self.sum += seconds

    def cumulative(self) -> dict[str, int]:
        """Returns, for each bound, how many values were at most that; `+Inf` counts all values."""
        labels = [*map(str, self._bounds), "+Inf"]
        totals = accumulate(self._counts)
        return dict(zip(labels, totals, strict=True))


class Counters(NamedTuple):
    """Counts the outcomes that this scheduler wrote since `started_at`."""

    started_at: datetime
    verdicts: Counter[str]
    ping: Histogram
    late: Histogram

    def record(self, state: AgentState) -> None:
        """Counts the last outcome of `state`."""
        outcome = state.last
        self.verdicts[outcome.verdict] += 1
        if outcome.response_ms is not None:
            self.ping.add(outcome.response_ms / 1000.0)
        if outcome.late_ms is not None:
            self.late.add(outcome.late_ms / 1000.0)


def new_counters(now: datetime) -> Counters:
    """Returns counters that are all at zero."""
    return Counters(
        started_at=now,
        verdicts=Counter(),
        ping=Histogram(PING_BOUNDS),
        late=Histogram(LATE_BOUNDS),
    )
