"""Tells new outcomes from those that came again, and finds agents whose numbers began again. Pure.

An outcome is identified by agent, ping_seq and time of the ping. Nearly always an agent's numbers
in a batch follow the last one that history has. That proves them new without a look at the file,
and it is found out for all of them at once. The outcomes of the other agents are looked at one by
one.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from storage.ingest.sequences import SequenceRanges


class Key(NamedTuple):
    """What identifies an outcome. `agent` is the agent's number in the dictionary."""

    agent: int
    ping_seq: int
    pinged_us: int


class OutcomeKeys(Struct, frozen=True):
    """The keys of a batch's outcomes, a column each. `message_index` is that in the batch."""

    agent: NDArray[np.int64]
    ping_seq: NDArray[np.int64]
    pinged_us: NDArray[np.int64]
    message_index: NDArray[np.int64]

    def in_order_of_messages(self, indices: NDArray[np.int64]) -> list[tuple[int, Key]]:
        """Returns index and key of the outcomes at these indices, in the order they came."""
        indices = indices[np.argsort(self.message_index[indices])]
        agents = self.agent[indices].tolist()
        numbers = self.ping_seq[indices].tolist()
        times = self.pinged_us[indices].tolist()
        keys = map(Key, agents, numbers, times)
        return list(zip(indices.tolist(), keys, strict=True))


class NewOutcomes(Struct, frozen=True):
    """The new outcomes of a batch.

    `indices` are in order of time, so that rows pack tighter and those of a day lie together. The
    other fields are what `Deduplicator.remember` needs.
    """

    indices: NDArray[np.int64]
    agents: NDArray[np.int64]  # agents whose numbers all followed
    reached: NDArray[np.int64]  # the highest number of each of them
    others: list[Key]  # outcomes of the other agents, in order of time
    restarts: list[Key]  # the outcomes with which an agent's numbers began again


class _Following(Struct, frozen=True):
    """The agents whose numbers in a batch all follow the last one stored, and their outcomes."""

    is_outcome: NDArray[np.bool_]
    agents: NDArray[np.int64]
    reached: NDArray[np.int64]


class Deduplicator:
    """Knows which numbers history has, and when an agent's numbers last began again.

    `restarted` has the time of the last restart, in microseconds by agent. `find_stored` returns
    those of the keys given that are in the history file. Outcomes from before `retention_cutoff_us`
    have expired.
    """

    def __init__(
        self,
        sequences: SequenceRanges,
        restarted: dict[int, int],
        find_stored: Callable[[list[Key]], list[Key]],
        retention_cutoff_us: int = 0,
    ) -> None:
        self.sequences = sequences
        self.restarted = restarted
        self.retention_cutoff_us = retention_cutoff_us
        self._find_stored = find_stored

    def find(self, outcomes: OutcomeKeys) -> NewOutcomes:
        """Returns the new outcomes of a batch.

        Changes nothing, for writing the batch may still fail.
        """
        following = self._following(outcomes)
        doubtful_indices = np.flatnonzero(~following.is_outcome)
        others, any_number_taken = self._new_among(outcomes, doubtful_indices)
        other_indices = np.array(list(others.values()), dtype=np.int64)
        indices = np.concatenate([np.flatnonzero(following.is_outcome), other_indices])
        by_time = np.argsort(outcomes.pinged_us[indices], kind="stable")
        keys = sorted(others, key=attrgetter("pinged_us"))
        restarts: list[Key] = []
        if any_number_taken:
            restarts = self._find_restarts(keys)
        return NewOutcomes(
            indices=indices[by_time],
            agents=following.agents,
            reached=following.reached,
            others=keys,
            restarts=restarts,
        )

    def remember(self, new: NewOutcomes) -> list[int]:
        """Adds outcomes that are being written. Returns the agents that now miss more numbers."""
        for key in new.restarts:
            self.restarted[key.agent] = key.pinged_us
        self.sequences.extend(new.agents, new.reached)
        restarts = set(new.restarts)
        agents = []
        for key in new.others:
            if self._add(key, restarts=key in restarts) > 0:
                agents.append(key.agent)
        return agents

    def _following(self, outcomes: OutcomeKeys) -> _Following:
        """Compares all numbers at once with those expected, sorted by agent and number."""
        order = np.lexsort((outcomes.ping_seq, outcomes.agent))
        agent = outcomes.agent[order]
        number = outcomes.ping_seq[order]
        # Where each agent's outcomes begin, and how many there are.
        first = np.flatnonzero(np.diff(agent, prepend=-1))
        count = np.diff(first, append=len(agent))
        position = np.arange(len(agent)) - np.repeat(first, count)
        expected = self.sequences.reached(agent) + 1 + position
        # After a restart another outcome may have had the same number, so a number proves nothing.
        never_restarted = ~np.isin(agent, list(self.restarted))
        follows = (number == expected) & never_restarted
        all_follow = np.logical_and.reduceat(follows, first)
        is_outcome = np.empty(len(agent), dtype=np.bool_)
        is_outcome[order] = np.repeat(all_follow, count)
        last = first + count - 1
        return _Following(is_outcome, agent[first[all_follow]], number[last[all_follow]])

    def _new_among(
        self,
        outcomes: OutcomeKeys,
        indices: NDArray[np.int64],
    ) -> tuple[dict[Key, int], bool]:
        """Looks at outcomes one by one.

        Returns the new ones with their indices, and whether any number was taken.

        Where a number is taken, the file is asked whether it was by the same outcome.
        """
        certain: dict[Key, int] = {}
        doubtful: dict[Key, int] = {}
        seen: set[tuple[int, int]] = set()
        for index, key in outcomes.in_order_of_messages(indices):
            number = (key.agent, key.ping_seq)
            if number in seen or key.agent in self.restarted or self._was_used(key):
                doubtful.setdefault(key, index)
            else:
                seen.add(number)
                certain[key] = index
        any_number_taken = bool(doubtful)
        # The same outcome twice in one batch.
        for key in doubtful.keys() & certain.keys():
            del doubtful[key]
        for key in self._find_stored(list(doubtful)):
            doubtful.pop(key, None)
        return certain | doubtful, any_number_taken

    def _was_used(self, key: Key) -> bool:
        """Whether history has the number, or had it with an outcome that has expired.

        A number that expired proves nothing for an outcome from before the cutoff.
        """
        if self.sequences.holds(key.agent, key.ping_seq):
            return True
        if key.pinged_us < self.retention_cutoff_us:
            return False
        return self.sequences.has_expired(key.agent, key.ping_seq)

    def _find_restarts(self, new: list[Key]) -> list[Key]:
        """Returns the new outcomes with which an agent's numbers began again.

        The number of such an outcome belongs to an earlier outcome already. `new` is in order of
        time. Where an agent restarts several times in it, the last restart is returned.
        """
        restarts: dict[int, Key] = {}
        numbers_since: dict[int, set[int]] = {}
        for key in new:
            numbers = numbers_since.setdefault(key.agent, set())
            taken = key.ping_seq in numbers
            if key.agent not in restarts and self._was_used(key):
                taken = True
            restarted_us = self.restarted.get(key.agent)
            is_newer = restarted_us is None or key.pinged_us > restarted_us
            if taken and is_newer:
                restarts[key.agent] = key
                numbers.clear()
            numbers.add(key.ping_seq)
        return list(restarts.values())

    def _add(self, key: Key, *, restarts: bool) -> int:
        """Adds a number. Returns how many more numbers are missing, below 0 if it fills a gap."""
        restarted_us = self.restarted.get(key.agent)
        if restarted_us is not None and key.pinged_us < restarted_us:
            # It is from before the restart. Those numbers are no longer kept.
            return 0
        if restarts:
            self.sequences.restart(key.agent)
        return self.sequences.add(key.agent, key.ping_seq)
