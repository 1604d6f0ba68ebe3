"""What is new in a batch: against a plain set of all that was ever taken in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storage.ingest.dedup import Deduplicator, Key, NewOutcomes, OutcomeKeys
from storage.ingest.sequences import SequenceRanges

# numbers of few agents; the moment follows from the number and from how often the numbers began
# again
outcomes = st.tuples(st.integers(0, 2), st.integers(1, 8), st.integers(0, 2)).map(
    lambda one: (one[0], one[1], one[2] * 1_000 + one[1])
)
in_order = st.lists(st.integers(1, 12), max_size=4).map(
    lambda counts: [
        (0, n, 1_000 * numbering + n)
        for numbering, count in enumerate(counts)
        for n in range(1, count)
    ]
)
batches = st.lists(st.one_of(st.lists(outcomes, max_size=10), in_order), max_size=6)


def outcomes_of(keys: list[Key]) -> OutcomeKeys:
    return OutcomeKeys(
        *np.array(keys, dtype=np.int64).reshape(-1, 3).T, message_index=np.arange(len(keys))
    )


def found_among(keys: list[Key], new: NewOutcomes) -> list[Key]:
    return [keys[place] for place in new.indices]


@given(batches)
def test_each_outcome_is_new_once(delivered: list[list[Key]]):
    held: set[Key] = set()
    deduplicator = Deduplicator(
        SequenceRanges(), {}, lambda asked: [key for key in asked if key in held]
    )
    for batch in delivered:
        new = deduplicator.find(outcomes_of(batch))
        found = found_among(batch, new)
        assert sorted(found) == sorted(set(batch) - held)
        assert [key[2] for key in found] == sorted(key[2] for key in found)
        deduplicator.remember(new)
        held |= set(found)


def test_numbers_that_follow_are_not_looked_up():
    asked: list[Key] = []

    def held(keys: list[Key]) -> list[Key]:
        asked.extend(keys)
        return []

    deduplicator = Deduplicator(SequenceRanges(), {}, held)
    for first in range(1, 100, 10):
        keys = [(agent, n, n) for n in range(first, first + 10) for agent in range(3)]
        deduplicator.remember(deduplicator.find(outcomes_of(keys)))
    assert asked == []
    assert deduplicator.sequences.missing == 0
    deduplicator.find(outcomes_of([(1, 50, 50)]))
    assert asked == [(1, 50, 50)]


def test_many_agents_that_begin_again_at_once_are_told_in_one_go():
    deduplicator = Deduplicator(SequenceRanges(), {}, lambda _: [])
    agents = range(5_000)
    deduplicator.remember(
        deduplicator.find(outcomes_of([(agent, n, n) for agent in agents for n in (1, 2)]))
    )
    after_the_bucket_was_lost = [(agent, n, 1_000 + n) for agent in agents for n in (1, 2)]
    new = deduplicator.find(outcomes_of(after_the_bucket_was_lost))
    assert len(new.indices) == 10_000
    assert sorted(new.restarts) == [(agent, 1, 1_001) for agent in agents]
