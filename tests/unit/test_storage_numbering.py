"""Which numbers are held: against a plain set."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storage.ingest.sequences import SequenceRanges

numbers = st.lists(st.integers(1, 40), max_size=60)


@given(numbers)
def test_any_order_with_any_duplicates(arriving: list[int]):
    numbering, truth = SequenceRanges(), set[int]()
    for number in arriving:
        assert numbering.holds(7, number) == (number in truth)
        before = numbering.missing
        change = numbering.add(7, number) if number not in truth else 0
        truth.add(number)
        assert numbering.missing - before == change
        assert numbering.missing == max(truth) - len(truth)
    assert {n for n in range(1, 45) if numbering.holds(7, n)} == truth


@given(numbers.filter(bool), st.data())
def test_missing_within_a_page(arriving: list[int], data: st.DataObject):
    numbering, truth = SequenceRanges(), sorted(set(arriving))
    for number in truth:
        numbering.add(1, number)
    first = data.draw(st.sampled_from(truth))
    last = data.draw(st.sampled_from([n for n in truth if n >= first]))
    before = max([n for n in truth if n < first], default=0)
    assert numbering.missing_within(1, first, last) == len(
        set(range(before + 1, last + 1)) - set(truth)
    )


def test_loaded_runs_count_like_added_ones_and_a_restart_begins_anew():
    numbering = SequenceRanges()
    numbering.load(1, [(3, 5), (8, 9)])
    assert numbering.missing == 4
    numbering.load(2, [(50, 60)], base=49)  # what retention let go is not missing
    assert numbering.missing == 4
    assert numbering.add(1, 6) == -1
    assert numbering.add(1, 7) == -1
    assert numbering.missing == 2
    numbering.restart(1)
    assert not numbering.holds(1, 3)
    numbering.add(1, 1)
    assert numbering.missing == 2  # what never came before stays missing


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
    numbering = SequenceRanges()
    assert numbering.reached(np.array([5_000, 3])).tolist() == [0, 0]
    numbering.extend(np.array([3, 70_000]), np.array([9, 8]))
    numbering.add(200_000, 1)
    assert numbering.reached(np.array([3, 70_000, 200_000, 4])).tolist() == [9, 8, 1, 0]
    assert numbering.holds(70_000, 8)
    assert not numbering.holds(900_000, 1)
    assert numbering.missing_within(900_000, 1, 1) == 1


@given(numbers.filter(bool), st.integers(1, 41), numbers)
def test_what_is_let_go_is_neither_held_nor_missing(
    arriving: list[int], first: int, later: list[int]
):
    numbering, truth = SequenceRanges(), set(arriving)
    for number in truth:
        numbering.add(7, number)
    truth = {number for number in truth if number >= first}
    first = min(truth, default=0)
    numbering.let_go(7, first or None)
    assert numbering.missing == (max(truth) - first + 1 - len(truth) if truth else 0)
    assert {n for n in range(1, 45) if numbering.holds(7, n)} == truth
    for number in later:
        if number not in truth:
            numbering.add(7, number)
            truth.add(number)
        assert numbering.missing == max(truth) - min(truth) + 1 - len(truth)
        assert numbering.missing_within(7, min(truth), max(truth)) == numbering.missing


def test_missing_before_a_restart_is_settled_anew():
    numbering = SequenceRanges()
    numbering.load(1, [(3, 5)], settled=10)
    assert numbering.missing == 12
    numbering.restart(1)
    numbering.add(1, 2)
    assert numbering.missing == 13
    numbering.settle(1, 4)
    assert numbering.missing == 5
