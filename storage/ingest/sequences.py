"""Which ping_seq of which agent history holds already: tells a new outcome from one that came again. Pure.

Numbers run 1, 2, 3 ... an agent without gaps, so a few runs of numbers stand for millions of rows, and what
lies between the runs is missing.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from storage.engine.bounds import FAR

_ANY = FAR  # as a base: the next number begins what is held


class SequenceRanges:
    """Runs of numbers held, by agent. A run is `[first, last]`, both held; runs never touch.

    The end of an agent's last run stands in `_reached` and is put into the run only when it is looked at: to take in
    numbers that follow, which nearly all do, is then one step for a whole batch.
    """

    def __init__(self) -> None:
        self._reached = np.zeros(1024, dtype=np.int64)  # the highest number held, by agent; 0: none
        self._runs: dict[int, list[list[int]]] = {}
        self._base: dict[int, int] = {}  # the number before the first that can be missed
        self._settled: dict[int, int] = {}  # missing in numberings that have ended
        self.missing = 0

    def load(
        self, agent: int, runs: list[tuple[int, int]], *, base: int = 0, settled: int = 0
    ) -> None:
        """What the database holds of an agent, in ascending order. `settled`: missing before a restart."""
        self._runs[agent] = [list(run) for run in runs]
        self._reach(agent, runs[-1][1])
        self._base[agent] = base
        self.missing += self._missing_of(agent)
        self.settle(agent, settled)

    def reached(self, agents: NDArray[np.int64]) -> NDArray[np.int64]:
        """The highest number held of each of these agents; 0 where there is none."""
        self._make_room(agents)
        return self._reached[agents]

    def holds(self, agent: int, number: int) -> bool:
        """Whether this number is there already."""
        if number > self._end(agent):
            return False
        runs = self._runs_of(agent)
        place = bisect_right(runs, number, key=lambda run: run[0]) - 1
        return place >= 0 and number <= runs[place][1]

    def extend(self, agents: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Takes in, for each of these agents, all numbers after the highest one held, up to the one given."""
        self._make_room(agents)
        self._reached[agents] = numbers

    def add(self, agent: int, number: int) -> int:
        """Takes a number in; returns how many more are missing for it (negative: it filled a gap)."""
        if number == self._end(agent) + 1:
            self._reach(agent, number)
            return 0
        before = self.missing
        self._insert(self._runs_of(agent), agent, number)
        return self.missing - before

    def missing_within(self, agent: int, first: int, last: int) -> int:
        """Numbers missing up to `last`, those directly before `first` included; changes nothing (readers ask)."""
        runs = [(run[0], run[1]) for run in self._runs.get(agent, ())]
        if reached := self._end(agent):
            start, end = runs.pop() if runs else (1, 0)
            runs.append((start, max(end, reached)))
        base = self._base_of(agent, runs[0][0] if runs else first)
        before = max((run[1] for run in runs if run[0] < first and run[1] < first), default=base)
        before = max((first - 1 for run in runs if run[0] < first <= run[1]), default=before)
        held = sum(
            min(run[1], last) - max(run[0], first) + 1
            for run in runs
            if run[0] <= last and run[1] >= first
        )
        return max(0, last - before - held)

    def restart(self, agent: int) -> None:
        """The agent's numbers begin again; what was missing stays missing."""
        self._settled[agent] = self._settled.get(agent, 0) + self._missing_of(agent)
        self._runs[agent] = []
        self._base[agent] = 0
        self._reach(agent, 0)

    def settle(self, agent: int, missing: int) -> None:
        """So many are missing in numberings that have ended."""
        self.missing += missing - self._settled.get(agent, 0)
        self._settled[agent] = missing

    def let_go(self, agent: int, first: int | None = None) -> None:
        """Numbers below `first` (None: all) are held no more, and none of them is missing."""
        self.missing -= self._missing_of(agent)
        held = [] if first is None else [run for run in self._runs_of(agent) if run[1] >= first]
        self._runs[agent] = [[max(run[0], first or 0), run[1]] for run in held]
        self._base[agent] = _ANY if first is None else first - 1
        self._reach(agent, held[-1][1] if held else 0)
        self.missing += self._missing_of(agent)

    def has_let_go(self, agent: int, number: int) -> bool:
        """Whether this number was held and is no more. Of an agent of which nothing is held, nobody knows."""
        base = self._base.get(agent, 0)
        return number <= base != _ANY

    def _end(self, agent: int) -> int:
        return int(self._reached[agent]) if agent < len(self._reached) else 0

    def _reach(self, agent: int, number: int) -> None:
        self._make_room(np.array([agent]))
        self._reached[agent] = number

    def _make_room(self, agents: NDArray[np.int64]) -> None:
        """Doubled, for agents are numbered one after the other. Readers keep the array that they have."""
        here = len(self._reached)
        if len(agents) and (highest := int(agents.max())) >= here:
            more = np.zeros(max(here, highest + 1 - here), dtype=np.int64)
            self._reached = np.concatenate([self._reached, more])

    def _runs_of(self, agent: int) -> list[list[int]]:
        """The runs as they are: a first number 1 begins one, and the last one reaches as far as is known."""
        runs = self._runs.setdefault(agent, [])
        if last := self._end(agent):
            if not runs:
                runs.append([1, last])
            runs[-1][1] = last
        return runs

    def _insert(self, runs: list[list[int]], agent: int, number: int) -> None:
        self.missing -= self._missing_of(agent)
        self._base[agent] = self._base_of(agent, min(number, runs[0][0]) if runs else number)
        place = bisect_right(runs, number, key=lambda run: run[0])
        if place == 0 or runs[place - 1][1] < number:
            runs.insert(place, [number, number])
            self._join(runs, place)
            self._join(runs, place - 1)
            self._reach(agent, runs[-1][1])
        self.missing += self._missing_of(agent)

    @staticmethod
    def _join(runs: list[list[int]], place: int) -> None:
        """Makes one of a run and the next, where they touch."""
        if 0 <= place < len(runs) - 1 and runs[place][1] + 1 == runs[place + 1][0]:
            runs[place][1] = runs.pop(place + 1)[1]

    def _missing_of(self, agent: int) -> int:
        runs = self._runs_of(agent)
        if not runs:
            return 0
        held = sum(last - first + 1 for first, last in runs)
        return runs[-1][1] - self._base_of(agent, runs[0][0]) - held

    def _base_of(self, agent: int, first: int) -> int:
        """Never above the first number held: after a time without any, the next may be any number."""
        return min(self._base.get(agent, 0), first - 1)
