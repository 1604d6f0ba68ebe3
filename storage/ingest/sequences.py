"""Which ping_seq of which agent history has already: tells a new outcome from one that came again.

Pure.

An agent's pings are numbered 1, 2, 3 ... So a few ranges of numbers stand for millions of rows, and
the numbers between two ranges are missing. The numbers begin again at 1 where the scheduler's
bucket was lost ("restart").
"""

from bisect import bisect_right
from operator import attrgetter

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bus.contract.durations import UNBOUNDED

# As a base: history has no outcome of the agent left, and whatever number comes next is the first
# that counts.
_UNKNOWN_BASE = UNBOUNDED

_by_first = attrgetter("first")


class SequenceRange(Struct, gc=False):
    """The numbers from `first` to `last`, both included."""

    first: int
    last: int


class SequenceRanges:
    """The numbers that history has, as ranges by agent, and how many are missing.

    The ranges of an agent are in ascending order and never touch. The end of the last range is kept
    in `_reached`, and is put into the range only when somebody looks at it. So taking in the
    numbers that follow, which nearly all do, is one step for a whole batch.

    An agent's base is the number before the first that can be missing: 0, or where retention has
    expired outcomes, the last number that expired.

    One thread writes. `missing_within` changes nothing, so that readers may call it meanwhile.
    """

    def __init__(self) -> None:
        self.missing = 0
        self._reached = np.zeros(1024, dtype=np.int64)  # the highest number by agent, 0 for none
        self._ranges: dict[int, list[SequenceRange]] = {}
        self._base: dict[int, int] = {}
        self._missing_before_restart: dict[int, int] = {}

    def load(
        self,
        agent: int,
        ranges: list[tuple[int, int]],
        *,
        base: int = 0,
        missing_before_restart: int = 0,
    ) -> None:
        """Sets what the history file has of an agent: at least one range, in ascending order."""
        self._ranges[agent] = [SequenceRange(first, last) for first, last in ranges]
        self._set_reached(agent, ranges[-1][1])
        self._base[agent] = base
        self.missing += self._missing_of(agent)
        self.set_missing_before_restart(agent, missing_before_restart)

    def reached(self, agents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the highest number of each of these agents, 0 where there is none."""
        self._make_room(agents)
        return self._reached[agents]

    def holds(self, agent: int, number: int) -> bool:
        """Returns whether history has this number."""
        if number > self._last_of(agent):
            return False
        ranges = self._ranges_of(agent)
        index = bisect_right(ranges, number, key=_by_first) - 1
        return index >= 0 and number <= ranges[index].last

    def extend(self, agents: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Adds to each of these agents all numbers after its highest one, up to the one given."""
        self._make_room(agents)
        self._reached[agents] = numbers

    def add(self, agent: int, number: int) -> int:
        """Adds a number. Returns how many more are missing for it, below 0 where it fills a gap."""
        if number == self._last_of(agent) + 1:
            self._set_reached(agent, number)
            return 0
        before = self.missing
        self._insert(agent, number)
        return self.missing - before

    def missing_within(
        self,
        agent: int,
        first: int,
        last: int,
    ) -> int:
        """Returns how many numbers are missing up to `last`, with those directly before `first`."""
        ranges = self._snapshot(agent)
        lowest = first
        if ranges:
            lowest = ranges[0].first
        # The highest number below `first` that is not missing.
        before = self._base_of(agent, lowest)
        held = 0
        for known in ranges:
            if known.first < first:
                before = min(known.last, first - 1)
            overlap_first = max(known.first, first)
            overlap_last = min(known.last, last)
            held += max(0, overlap_last - overlap_first + 1)
        return max(0, last - before - held)

    def agents_with_gaps(self) -> list[int]:
        """Returns the agents that miss numbers, also before a restart."""
        found = []
        for agent, ranges in list(self._ranges.items()):
            if self._has_gaps(agent, ranges):
                found.append(agent)
        return found

    def _has_gaps(self, agent: int, ranges: list[SequenceRange]) -> bool:
        if self._missing_before_restart.get(agent, 0) > 0:
            return True
        if not ranges:
            return False
        first_that_counts = self._base.get(agent, 0) + 1
        return len(ranges) > 1 or ranges[0].first > first_that_counts

    def restart(self, agent: int) -> None:
        """Notes that an agent's numbers begin again. What was missing stays missing."""
        missing = self._missing_before_restart.get(agent, 0) + self._missing_of(agent)
        self._missing_before_restart[agent] = missing
        self._ranges[agent] = []
        self._base[agent] = 0
        self._set_reached(agent, 0)

    def set_missing_before_restart(self, agent: int, missing: int) -> None:
        """Sets how many numbers are missing from before the agent's last restart."""
        self.missing += missing - self._missing_before_restart.get(agent, 0)
        self._missing_before_restart[agent] = missing

    def expire(self, agent: int, first: int | None = None) -> None:
        """Removes the numbers below `first` (None: all of them).

        None of them is missing any more.
        """
        self.missing -= self._missing_of(agent)
        kept: list[SequenceRange] = []
        if first is None:
            self._base[agent] = _UNKNOWN_BASE
        else:
            for known in self._ranges_of(agent):
                if known.last >= first:
                    kept.append(SequenceRange(max(known.first, first), known.last))
            self._base[agent] = first - 1
        self._ranges[agent] = kept
        reached = 0
        if kept:
            reached = kept[-1].last
        self._set_reached(agent, reached)
        self.missing += self._missing_of(agent)

    def has_expired(self, agent: int, number: int) -> bool:
        """Returns whether history had this number and it expired.

        False where all of the agent's outcomes expired.
        """
        base = self._base.get(agent, 0)
        return number <= base and base != _UNKNOWN_BASE

    def _last_of(self, agent: int) -> int:
        if agent >= len(self._reached):
            return 0
        return int(self._reached[agent])

    def _set_reached(self, agent: int, number: int) -> None:
        self._make_room(np.array([agent]))
        self._reached[agent] = number

    def _make_room(self, agents: NDArray[np.int64]) -> None:
        """Doubles `_reached` until it has room for these agents.

        Readers keep the array that they have.
        """
        if not len(agents):
            return
        size = len(self._reached)
        lacking = int(agents.max()) + 1 - size
        if lacking > 0:
            added = np.zeros(max(size, lacking), dtype=np.int64)
            self._reached = np.concatenate([self._reached, added])

    def _ranges_of(self, agent: int) -> list[SequenceRange]:
        """The agent's ranges, after the end of the last one was put in.

        Without a range the numbers began at 1.
        """
        ranges = self._ranges.setdefault(agent, [])
        last = self._last_of(agent)
        if last:
            if not ranges:
                ranges.append(SequenceRange(1, last))
            ranges[-1].last = last
        return ranges

    def _snapshot(self, agent: int) -> list[SequenceRange]:
        """The same as `_ranges_of`, as a copy and without a change."""
        ranges = []
        for known in self._ranges.get(agent, ()):
            ranges.append(SequenceRange(known.first, known.last))
        last = self._last_of(agent)
        if last:
            if not ranges:
                ranges.append(SequenceRange(1, last))
            ranges[-1].last = max(ranges[-1].last, last)
        return ranges

    def _insert(self, agent: int, number: int) -> None:
        """Adds a number that does not follow the highest one."""
        ranges = self._ranges_of(agent)
        self.missing -= self._missing_of(agent)
        lowest = number
        if ranges:
            lowest = min(number, ranges[0].first)
        self._base[agent] = self._base_of(agent, lowest)
        index = bisect_right(ranges, number, key=_by_first)
        if index == 0 or ranges[index - 1].last < number:
            ranges.insert(index, SequenceRange(number, number))
            _join_with_next(ranges, index)
            _join_with_next(ranges, index - 1)
            self._set_reached(agent, ranges[-1].last)
        self.missing += self._missing_of(agent)

    def _missing_of(self, agent: int) -> int:
        """How many numbers are missing since the agent's last restart."""
        ranges = self._ranges_of(agent)
        if not ranges:
            return 0
        held = 0
        for known in ranges:
            held += known.last - known.first + 1
        base = self._base_of(agent, ranges[0].first)
        return ranges[-1].last - base - held

    def _base_of(self, agent: int, first: int) -> int:
        """The agent's base, which is below the first number that history has.

        It is lowered here where all outcomes had expired, or where a number below it came after
        all.
        """
        return min(self._base.get(agent, 0), first - 1)


def _join_with_next(ranges: list[SequenceRange], index: int) -> None:
    """Makes one range of this one and the next where they touch.

    Does nothing where there is no such pair.
    """
    if index < 0 or index + 1 >= len(ranges):
        return
    if ranges[index].last + 1 == ranges[index + 1].first:
        ranges[index].last = ranges.pop(index + 1).last
