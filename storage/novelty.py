"""Tells new outcomes from those that came again, and outcomes under numbers that began again from both.

An outcome is known by (agent, ping_seq, pinged_at). Nearly always its number follows the last one held, which
proves it new without a look at the file; only the others are looked up there.
"""

from collections.abc import Callable
from operator import attrgetter

from msgspec import Struct

from storage.numbering import Numbering
from storage.rows import Row

Key = tuple[int, int, int]  # agent, ping_seq, pinged_us
_BY_TIME = attrgetter("pinged_us")  # packs tighter, and a day's rows lie together


class Fresh(Struct, frozen=True):
    """What is new in a batch: all of it in the order of time, and what `Novelty.remember` needs of it."""

    rows: list[Row]
    restarts: list[Row]  # with each of these an agent's numbers began again
    reached: dict[int, int]  # the last number of agents that went on without a gap
    others: list[Row]


class Novelty:
    """The numbers held, and where numberings began again. `held` looks outcomes up in the file."""

    def __init__(self, numbering: Numbering, restarted: dict[int, int], held: Callable[[list[Key]], list[Key]]) -> None:
        self.numbering = numbering
        self._restarted = restarted  # microseconds of the last restart, by agent
        self._held = held

    def find(self, rows: list[Row]) -> Fresh:
        """Changes nothing: the batch may fail yet."""
        going_on, others, reached = self._parted(rows)
        certain: list[Row] = []
        doubtful: dict[Key, Row] = {}
        numbers: set[tuple[int, int]] = set()
        for row in others:
            agent, number = row.agent, row.ping_seq
            if self._is_taken(row, reached) or (agent, number) in numbers:
                doubtful.setdefault((agent, number, row.pinged_us), row)
            else:
                numbers.add((agent, number))
                certain.append(row)
        if doubtful:
            certain += self._new_among(doubtful, going_on + certain)
        fresh = sorted(going_on + certain, key=_BY_TIME)
        return Fresh(fresh, self._restarts(fresh) if doubtful else [], reached, certain)

    def remember(self, fresh: Fresh) -> list[int]:
        """Once it is written. Returns the agents that miss numbers for it."""
        self._restarted |= {row.agent: row.pinged_us for row in fresh.restarts}
        begins = {id(row) for row in fresh.restarts}
        if not begins:
            self.numbering.extend(fresh.reached)
        one_by_one = sorted(fresh.others, key=_BY_TIME) if not begins else fresh.rows
        return [row.agent for row in one_by_one if self._number(row, id(row) in begins) > 0]

    def _parted(self, rows: list[Row]) -> tuple[list[Row], list[Row], dict[int, int]]:
        """Outcomes whose numbers follow the last one held, and the others."""
        going_on: list[Row] = []
        others: list[Row] = []
        reached: dict[int, int] = {}
        before, restarted = self.numbering.reached, self._restarted
        for row in rows:
            agent, number = row.agent, row.ping_seq
            if number == (reached.get(agent) or before.get(agent, 0)) + 1 and agent not in restarted:
                reached[agent] = number
                going_on.append(row)
            else:
                others.append(row)
        return going_on, others, reached

    def _is_taken(self, row: Row, reached: dict[int, int]) -> bool:
        """Whether the number proves nothing: history or this batch holds it, or they began again once."""
        agent, number = row.agent, row.ping_seq
        return (
            agent in self._restarted
            or self.numbering.holds(agent, number)
            or self.numbering.reached.get(agent, 0) < number <= reached.get(agent, 0)
        )

    def _new_among(self, doubtful: dict[Key, Row], certain: list[Row]) -> list[Row]:
        for row in certain:
            doubtful.pop((row.agent, row.ping_seq, row.pinged_us), None)
        for held in self._held(list(doubtful)):
            doubtful.pop(held, None)
        return list(doubtful.values())

    def _restarts(self, fresh: list[Row]) -> list[Row]:
        """New outcomes under numbers that are taken: with each of them an agent's numbers began again."""
        restarts: dict[int, Row] = {}
        taken: dict[int, set[int]] = {}
        for row in fresh:
            agent, number = row.agent, row.ping_seq
            here = taken.setdefault(agent, set())
            known = agent not in restarts and self.numbering.holds(agent, number)
            if (known or number in here) and row.pinged_us > self._restarted.get(agent, -1):
                restarts[agent] = row
                here.clear()
            here.add(number)
        return list(restarts.values())

    def _number(self, row: Row, begins: bool) -> int:
        agent, number = row.agent, row.ping_seq
        if row.pinged_us < self._restarted.get(agent, 0):
            return 0  # of a numbering that has ended
        if begins:
            self.numbering.restart(agent)
        return self.numbering.add(agent, number)
