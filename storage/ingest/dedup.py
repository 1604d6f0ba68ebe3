"""Tells new outcomes from those that came again, and outcomes under numbers that began again from both.

An outcome is known by (agent, ping_seq, pinged_at). Nearly always an agent's numbers in a batch follow the last one
held, which proves them new without a look at the file, all of them at once. The agents of which that is not so are
looked at outcome by outcome.
"""

from collections.abc import Callable
from operator import itemgetter

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from storage.ingest.sequences import SequenceRanges

Key = tuple[int, int, int]  # agent, ping_seq, pinged_us
_BY_TIME = itemgetter(2)


class OutcomeKeys(Struct, frozen=True):
    """The keys of a batch's outcomes, a column each, and where in the batch each came."""

    agent: NDArray[np.int64]
    ping_seq: NDArray[np.int64]
    pinged_us: NDArray[np.int64]
    came: NDArray[np.int64]

    def as_they_came(self, places: NDArray[np.int64]) -> list[tuple[int, Key]]:
        """Of the outcomes in these places: places and keys, in the order in which they came."""
        places = places[np.argsort(self.came[places])]
        columns = (
            column[places].tolist() for column in (self.agent, self.ping_seq, self.pinged_us)
        )
        return list(zip(places.tolist(), zip(*columns, strict=True), strict=True))


class NewOutcomes(Struct, frozen=True):
    """What is new in a batch, and what `Deduplicator.remember` needs of it."""

    places: NDArray[
        np.int64
    ]  # among its outcomes, in the order of time: packs tighter, a day's rows lie together
    agents: NDArray[np.int64]  # those that went on without a gap,
    reached: NDArray[np.int64]  # and the last number of each
    others: list[Key]  # in the order of time
    restarts: list[Key]  # with each of these an agent's numbers began again


class Deduplicator:
    """The numbers held, and where numberings began again. `held` looks outcomes up in the file."""

    def __init__(
        self,
        numbering: SequenceRanges,
        restarted: dict[int, int],
        held: Callable[[list[Key]], list[Key]],
        retention_cutoff_us: int = 0,
    ) -> None:
        self.sequences = numbering
        self.retention_cutoff_us = retention_cutoff_us  # what was pinged before is no longer held
        self.restarted = restarted  # microseconds of the last restart, by agent
        self._held = held

    def find(self, outcomes: OutcomeKeys) -> NewOutcomes:
        """Changes nothing: the batch may fail yet."""
        follow, agents, reached = self._parted(outcomes)
        others, any_taken = self._new_among(outcomes, np.flatnonzero(~follow))
        places = np.concatenate(
            [np.flatnonzero(follow), np.array(list(others.values()), dtype=np.int64)]
        )
        places = places[np.argsort(outcomes.pinged_us[places], kind="stable")]
        keys = sorted(others, key=_BY_TIME)
        return NewOutcomes(places, agents, reached, keys, self._restarts(keys) if any_taken else [])

    def remember(self, fresh: NewOutcomes) -> list[int]:
        """Once it is written. Returns the agents that miss numbers for it."""
        self.restarted |= {agent: pinged_us for agent, _, pinged_us in fresh.restarts}
        begins = set(fresh.restarts)
        self.sequences.extend(fresh.agents, fresh.reached)
        return [key[0] for key in fresh.others if self._number(key, begins=key in begins) > 0]

    def _parted(
        self, outcomes: OutcomeKeys
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        """Which outcomes are of agents whose numbers all follow the last one held; those agents, how far each gets."""
        order = np.lexsort((outcomes.ping_seq, outcomes.agent))
        agent, number = outcomes.agent[order], outcomes.ping_seq[order]
        first = np.flatnonzero(np.diff(agent, prepend=-1))  # where each agent's outcomes begin
        count = np.diff(first, append=len(agent))
        expected = (
            self.sequences.reached(agent) + 1 + np.arange(len(agent)) - np.repeat(first, count)
        )
        as_expected = (number == expected) & ~np.isin(agent, list(self.restarted))
        whole = np.logical_and.reduceat(as_expected, first)
        follow = np.empty(len(agent), dtype=np.bool_)
        follow[order] = np.repeat(whole, count)
        return follow, agent[first[whole]], number[(first + count - 1)[whole]]

    def _new_among(
        self, outcomes: OutcomeKeys, places: NDArray[np.int64]
    ) -> tuple[dict[Key, int], bool]:
        """The new ones and their places, looked at one by one; and whether any number among all of them was taken."""
        certain: dict[Key, int] = {}
        doubtful: dict[Key, int] = {}
        numbers: set[tuple[int, int]] = set()
        for place, key in outcomes.as_they_came(places):
            if key[:2] in numbers or self._is_taken(key):
                doubtful.setdefault(key, place)
            else:
                numbers.add(key[:2])
                certain[key] = place
        any_taken = bool(doubtful)
        for key in [key for key in doubtful if key in certain]:
            del doubtful[key]
        for key in self._held(list(doubtful)):
            doubtful.pop(key, None)
        return certain | doubtful, any_taken

    def _is_taken(self, key: Key) -> bool:
        """Whether the number proves nothing: another outcome had it, or they began again once."""
        return key[0] in self.restarted or self._had(key)

    def _had(self, key: Key) -> bool:
        """Whether history holds the number, or let it go with an outcome that was before this one."""
        agent, number, pinged_us = key
        has_let_go = pinged_us >= self.retention_cutoff_us and self.sequences.has_let_go(
            agent, number
        )
        return has_let_go or self.sequences.holds(agent, number)

    def _restarts(self, fresh: list[Key]) -> list[Key]:
        """New outcomes under numbers that are taken: with each of them an agent's numbers began again."""
        restarts: dict[int, Key] = {}
        taken: dict[int, set[int]] = {}
        for key in fresh:
            agent, number, pinged_us = key
            began = self.restarted.get(agent)
            here = taken.setdefault(agent, set())
            known = agent not in restarts and self._had(key)
            if (known or number in here) and (began is None or pinged_us > began):
                restarts[agent] = key
                here.clear()
            here.add(number)
        return list(restarts.values())

    def _number(self, key: Key, *, begins: bool) -> int:
        agent, number, pinged_us = key
        began = self.restarted.get(agent)
        if began is not None and pinged_us < began:
            return 0  # of a numbering that has ended
        if begins:
            self.sequences.restart(agent)
        return self.sequences.add(agent, number)
