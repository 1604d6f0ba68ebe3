"""Numbers for long names, so that a row of history has ten bytes in place of a hundred."""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

GpuNames = tuple[tuple[str, int | None, str], ...]  # uuid, index and name of each GPU


class Dictionary(dict[str, int]):
    """Names and their numbers, which run 0, 1, 2 ...

    Looking up a new name gives it the next number.

    Only one thread looks names up in this way. Other threads use `find`, which returns a number
    only once the history file has it: `in_file` counts the names that are written.
    """

    def __init__(self, stored: Iterable[tuple[str, int]]) -> None:
        super().__init__(stored)
        self.in_file = len(self)
        self._by_number: list[str] = []

    def __missing__(self, name: str) -> int:
        number = len(self)
        self[name] = number
        return number

    def find(self, name: str) -> int | None:
        """Returns the number of a name. None when the history file does not have the name."""
        number = self.get(name)
        if number is None or number >= self.in_file:
            return None
        return number

    def name(self, number: int) -> str:
        """Returns the name that has this number. Raises IndexError when none has."""
        if number >= len(self._by_number):
            self._by_number = list(self)
        return self._by_number[number]

    def new(self) -> list[tuple[int, str]]:
        """Returns the numbers and names that are not in the history file yet, in order."""
        start = self.in_file
        if len(self) == start:
            return []
        names = list(self)[start:]
        return list(enumerate(names, start))

    def written(self, count: int) -> None:
        """Notes that the first `count` of the new names are in the history file."""
        self.in_file += count


class Dictionaries:
    """The dictionaries of a history file: its agents, and the sets of GPUs that they reported."""

    def __init__(
        self,
        agents: Iterable[tuple[str, int]],
        gpu_sets: Iterable[tuple[str, int]],
    ) -> None:
        self.agents = Dictionary(agents)
        self.gpu_sets = Dictionary(gpu_sets)  # a set's name is JSON: [[uuid, index, name], ...]
        # A host reports the same GPUs every time, so their JSON is made once.
        self.gpu_set = lru_cache(maxsize=100_000)(self._gpu_set)

    def gpus(self, number: int) -> list[tuple[str, int | None, str]]:
        """Returns uuid, index and name of each GPU of the set that has this number."""
        name = self.gpu_sets.name(number)
        return msgspec.json.decode(name, type=list[tuple[str, int | None, str]])

    def _gpu_set(self, gpus: GpuNames) -> int:
        name = msgspec.json.encode(gpus).decode()
        return self.gpu_sets[name]
