"""What one scheduler counts about itself, for metrics."""

import bisect
from collections import Counter
from datetime import datetime
from typing import NamedTuple

from bus.contract.messages import AgentState

# seconds; from a LAN round trip to the longest time-out, and from the tick of a timer to an hour behind
PING_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATE_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Histogram:
    """Counts values by upper bound, as Prometheus does."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """One value."""
        self._counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> dict[str, int]:
        """How many were at most each bound; the last is all of them."""
        total, result = 0, {}
        for bound, number in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += number
            result[str(bound)] = total
        return result


class Counters(NamedTuple):
    """Counted at each outcome of our own."""

    started_at: datetime
    verdicts: Counter[str]
    ping: Histogram
    late: Histogram

    def record(self, state: AgentState) -> None:
        """One outcome that this scheduler wrote."""
        self.verdicts[state.last.verdict] += 1
        if state.last.response_ms is not None:
            self.ping.add(state.last.response_ms / 1000.0)
        if state.last.late_ms is not None:
            self.late.add(state.last.late_ms / 1000.0)


def counters(now: datetime) -> Counters:
    """All at zero."""
    return Counters(now, Counter(), Histogram(PING_BOUNDS), Histogram(LATE_BOUNDS))
