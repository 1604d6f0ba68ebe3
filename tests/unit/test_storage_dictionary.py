"""Numbers for names: dense, in order, and found by others only once they are in the file."""

from storage.engine.dictionary import Dictionaries, Dictionary


def test_a_new_name_is_given_the_next_number_once():
    numbers = Dictionary([("a", 0), ("b", 1)])
    assert (numbers["b"], numbers["c"], numbers["d"], numbers["c"]) == (1, 2, 3, 2)
    assert [numbers.name(number) for number in range(4)] == ["a", "b", "c", "d"]


def test_a_name_is_new_until_it_is_written():
    numbers = Dictionary([("a", 0)])
    assert numbers.new() == []
    assert numbers["b"] == 1
    new = numbers.new()
    assert new == [(1, "b")]
    assert (numbers.find("a"), numbers.find("b"), numbers.find("c")) == (0, None, None)
    assert numbers["c"] == 2  # meanwhile
    numbers.written(len(new))
    assert numbers.find("b") == 1
    assert numbers.new() == [(2, "c")]


def test_a_set_of_gpus_has_one_number_whoever_reports_it():
    names = Dictionaries([], [('[["GPU-1",0,"RTX 4090"]]', 0)])
    assert names.gpu_set((("GPU-1", 0, "RTX 4090"),)) == 0
    assert names.gpu_set((("GPU-1", None, "RTX 4090"),)) == 1
    assert names.gpus(1) == [("GPU-1", None, "RTX 4090")]
