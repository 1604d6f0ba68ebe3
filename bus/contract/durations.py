"""How time is counted and how uptime is computed.

Nothing else in the tree computes uptime from times.

Integers add up exactly, in any order; the wire carries the same values as seconds
(`bus.contract.messages.Seconds`). In SQL the same formula is the macro `uptime_percent`
(`storage/engine/macros.sql`).
"""

from collections.abc import Iterable

from msgspec import Struct

from bus.contract.messages import Seconds

# Greater than every sequence number and time. It is half of BIGINT's range, so that adding a number
# or a time to it does not overflow.
UNBOUNDED = 2**62


def uptime_percent(good_ms: float, judged_ms: float) -> float | None:
    """Returns 100 x good / judged, from 0 to 100. Returns None where no time can be judged.

    Good time is up or degraded. Judged time is the window without what is excused, so that unknown
    time counts against the host.
    """
    if judged_ms <= 0:
        return None
    return 100.0 * good_ms / judged_ms


class Durations(Struct, frozen=True, gc=False):
    """How long a GPU or a host was in each state within a window, in whole milliseconds."""

    up: int = 0
    degraded: int = 0
    down: int = 0
    unknown: int = 0
    excused: int = 0

    @property
    def window(self) -> int:
        """The length of the whole window."""
        return self.up + self.degraded + self.down + self.unknown + self.excused

    @property
    def judged(self) -> int:
        """The part of the window that uptime is a share of: all that is not excused."""
        return self.up + self.degraded + self.down + self.unknown

    @property
    def good(self) -> int:
        """The part of the window that counts as uptime."""
        return self.up + self.degraded

    @property
    def uptime_percent(self) -> float | None:
        """The uptime over this window, from 0 to 100.

        None where all of it is excused or it is empty.
        """
        good = self.up + self.degraded
        return uptime_percent(good, good + self.down + self.unknown)

    def __add__(self, other: "Durations") -> "Durations":
        return Durations(
            up=self.up + other.up,
            degraded=self.degraded + other.degraded,
            down=self.down + other.down,
            unknown=self.unknown + other.unknown,
            excused=self.excused + other.excused,
        )

    def __sub__(self, other: "Durations") -> "Durations":
        return Durations(
            up=self.up - other.up,
            degraded=self.degraded - other.degraded,
            down=self.down - other.down,
            unknown=self.unknown - other.unknown,
            excused=self.excused - other.excused,
        )

    @classmethod
    def total(cls, parts: "Iterable[Durations]") -> "Durations":
        """Returns the sum of the parts; zero for no part."""
        return sum(parts, start=cls())

    @classmethod
    def from_seconds(cls, seconds: Seconds) -> "Durations":
        """Returns durations from the wire's seconds, each rounded to the millisecond."""
        return cls(
            up=round(seconds.up * 1000),
            degraded=round(seconds.degraded * 1000),
            down=round(seconds.down * 1000),
            unknown=round(seconds.unknown * 1000),
            excused=round(seconds.excused * 1000),
        )

    def to_seconds(self) -> Seconds:
        """Returns the durations as the wire carries them."""
        return Seconds(
            up=self.up / 1000,
            degraded=self.degraded / 1000,
            down=self.down / 1000,
            unknown=self.unknown / 1000,
            excused=self.excused / 1000,
        )


class Interval(Struct, frozen=True, gc=False):
    """A half-open interval `[begin, end)`; empty where `end` is not after `begin`.

    Both ends have one unit, which depends on the clock: `agentd` counts milliseconds of ledger
    time, `storage` counts microseconds since 1970. Intervals of the two clocks are never mixed.
    """

    begin: int
    end: int

    @property
    def length(self) -> int:
        """The distance between the ends, in their unit; 0 for an empty interval."""
        return max(0, self.end - self.begin)

    def __contains__(self, at: int) -> bool:
        return self.begin <= at < self.end

    def covers(self, other: "Interval") -> bool:
        """Returns whether the other one lies within this one."""
        return self.begin <= other.begin and other.end <= self.end

    def overlaps(self, other: "Interval") -> bool:
        """Returns whether the two have any time in common."""
        return self.begin < other.end and other.begin < self.end

    def intersection(self, other: "Interval") -> "Interval":
        """Returns the time that both have in common, which may be empty."""
        begin = max(self.begin, other.begin)
        end = min(self.end, other.end)
        return Interval(begin, max(begin, end))
