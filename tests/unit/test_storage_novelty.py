"""What is new in a batch: against a plain set of all that was ever taken in."""

from hypothesis import given
from hypothesis import strategies as st

from storage.novelty import Key, Novelty
from storage.numbering import Numbering
from storage.rows import FullRow, HealthyRow, Row

# numbers of few agents; the moment follows from the number and from how often the numbers began again
outcomes = st.tuples(st.integers(0, 2), st.integers(1, 8), st.integers(0, 2)).map(
    lambda one: (one[0], one[1], one[2] * 1_000 + one[1])
)
in_order = st.lists(st.integers(1, 12), max_size=4).map(
    lambda counts: [(0, n, 1_000 * numbering + n) for numbering, count in enumerate(counts) for n in range(1, count)]
)
batches = st.lists(st.one_of(st.lists(outcomes, max_size=10), in_order), max_size=6)


def row(key: Key) -> Row:
    """Of either kind: they are told apart nowhere here."""
    if key[1] % 2:
        return FullRow(*key, 0, 900.0, "missed", "poor")
    return HealthyRow(*key, 0, 900, 900_000, 3, 0, None, None, None)


def key_of(one: Row) -> Key:
    return (one.agent, one.ping_seq, one.pinged_us)


@given(batches)
def test_each_outcome_is_new_once(delivered: list[list[Key]]):
    held: set[Key] = set()
    novelty = Novelty(Numbering(), {}, lambda asked: [key for key in asked if key in held])
    for batch in delivered:
        fresh = novelty.find([row(key) for key in batch])
        found = [key_of(one) for one in fresh.rows]
        assert sorted(found) == sorted(set(batch) - held)
        assert [key[2] for key in found] == sorted(key[2] for key in found)
        novelty.remember(fresh)
        held |= set(found)


def test_numbers_that_follow_are_not_looked_up():
    asked: list[Key] = []

    def held(keys: list[Key]) -> list[Key]:
        asked.extend(keys)
        return []

    novelty = Novelty(Numbering(), {}, held)
    for first in range(1, 100, 10):
        novelty.remember(novelty.find([row((agent, n, n)) for n in range(first, first + 10) for agent in range(3)]))
    assert asked == []
    assert novelty.numbering.missing == 0
    novelty.find([row((1, 50, 50))])
    assert asked == [(1, 50, 50)]


def test_many_agents_that_begin_again_at_once_are_told_in_one_go():
    novelty = Novelty(Numbering(), {}, lambda _: [])
    agents = range(5_000)
    novelty.remember(novelty.find([row((agent, n, n)) for agent in agents for n in (1, 2)]))
    fresh = novelty.find([row((agent, n, 1_000 + n)) for agent in agents for n in (1, 2)])  # the bucket was lost
    assert len(fresh.rows) == 10_000
    assert sorted(key_of(one) for one in fresh.restarts) == [(agent, 1, 1_001) for agent in agents]
