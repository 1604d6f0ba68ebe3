"""Which numbers are held: against a plain set."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storage.ingest.sequences import SequenceRanges

numbers = st.lists(st.integers(1, 40), max_size=60)


@given(numbers)
def test_any_order_with_any_duplicates(arriving: list[int]):
    sequences, truth = SequenceRanges(), set[int]()
    for number in arriving:
        assert sequences.holds(7, number) == (number in truth)
        before = sequences.missing
        change = sequences.add(7, number) if number not in truth else 0
        truth.add(number)
        assert sequences.missing - before == change
        assert sequences.missing == max(truth) - len(truth)
    assert {n for n in range(1, 45) if sequences.holds(7, n)} == truth


@given(numbers.filter(bool), st.data())
def test_missing_within_a_page(arriving: list[int], data: st.DataObject):
    sequences, truth = SequenceRanges(), sorted(set(arriving))
    for number in truth:
        sequences.add(1, number)
    first = data.draw(st.sampled_from(truth))
    last = data.draw(st.sampled_from([n for n in truth if n >= first]))
    before = max([n for n in truth if n < first], default=0)
    assert sequences.missing_within(1, first, last) == len(
        set(range(before + 1, last + 1)) - set(truth)
    )


def test_loaded_runs_count_like_added_ones_and_a_restart_begins_anew():
    sequences = SequenceRanges()
    sequences.load(1, [(3, 5), (8, 9)])
    assert sequences.missing == 4
    sequences.load(2, [(50, 60)], base=49)  # what retention let go is not missing
    assert sequences.missing == 4
    assert sequences.add(1, 6) == -1
    assert sequences.add(1, 7) == -1
    assert sequences.missing == 2
    sequences.restart(1)
    assert not sequences.holds(1, 3)
    sequences.add(1, 1)
    assert sequences.missing == 2  # what never came before stays missing


@given(numbers, st.integers(0, 60))
def test_taking_in_all_up_to_a_number_is_taking_in_each(arriving: list[int], more: int):
    one, other = SequenceRanges(), SequenceRanges()
    for number in set(arriving):
        one.add(7, number)
        other.add(7, number)
    agents = np.array([7])
    (last,) = one.reached(agents).tolist()
    assert last == max(arriving, default=0)
    for number in range(last + 1, last + more + 1):
        one.add(7, number)
    if more:
        other.extend(agents, np.array([last + more]))
    assert (one.missing, one.reached(agents)) == (other.missing, other.reached(agents))
    assert [one.holds(7, n) for n in range(1, 120)] == [other.holds(7, n) for n in range(1, 120)]


def test_agents_of_any_number_have_room():
    sequences = SequenceRanges()
    assert sequences.reached(np.array([5_000, 3])).tolist() == [0, 0]
    sequences.extend(np.array([3, 70_000]), np.array([9, 8]))
    sequences.add(200_000, 1)
    assert sequences.reached(np.array([3, 70_000, 200_000, 4])).tolist() == [9, 8, 1, 0]
    assert sequences.holds(70_000, 8)
    assert not sequences.holds(900_000, 1)
    assert sequences.missing_within(900_000, 1, 1) == 1


@given(numbers.filter(bool), st.integers(1, 41), numbers)
def test_what_expired_is_neither_held_nor_missing(
    arriving: list[int], first: int, later: list[int]
):
    sequences, truth = SequenceRanges(), set(arriving)
    for number in truth:
        sequences.add(7, number)
    truth = {number for number in truth if number >= first}
    first = min(truth, default=0)
    sequences.expire(7, first or None)
    assert sequences.missing == (max(truth) - first + 1 - len(truth) if truth else 0)
    assert {n for n in range(1, 45) if sequences.holds(7, n)} == truth
    for number in later:
        if number not in truth:
            sequences.add(7, number)
            truth.add(number)
        assert sequences.missing == max(truth) - min(truth) + 1 - len(truth)
        assert sequences.missing_within(7, min(truth), max(truth)) == sequences.missing


def test_missing_before_a_restart_is_settled_anew():
    sequences = SequenceRanges()
    sequences.load(1, [(3, 5)], missing_before_restart=10)
    assert sequences.missing == 12
    sequences.restart(1)
    sequences.add(1, 2)
    assert sequences.missing == 13
    sequences.set_missing_before_restart(1, 4)
    assert sequences.missing == 5
