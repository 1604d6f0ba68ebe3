"""Small numbers for long names: ten bytes of a row instead of a hundred."""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

GpuNames = tuple[tuple[str, int | None, str], ...]  # uuid, index and name of each


class Dictionary(dict[str, int]):
    """Names and their numbers, dense and in the order of the dictionary. Looking a new name up gives it a number.

    One thread gives numbers. `in_file` of them can be found by others: a name is new until it is written.
    """

    def __init__(self, held: Iterable[tuple[str, int]]) -> None:
        super().__init__(held)
        self.in_file = len(self)
        self._listed: list[str] = []

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number

    def find(self, name: str) -> int | None:
        """The number, where the file has it."""
        number = self.get(name)
        return None if number is None or number >= self.in_file else number

    def name(self, number: int) -> str:
        """The inverse."""
        if number >= len(self._listed):
            self._listed = list(self)
        return self._listed[number]

    def new(self) -> list[tuple[int, str]]:
        """Numbers and names that the file does not have yet, in order."""
        start = self.in_file
        return list(enumerate(list(self)[start:], start)) if len(self) > start else []

    def written(self, count: int) -> None:
        """The first `count` of the new ones are in the file."""
        self.in_file += count


class Dictionaries:
    """The agents and the sets of GPUs that history has numbers for."""

    def __init__(
        self, agents: Iterable[tuple[str, int]], gpu_sets: Iterable[tuple[str, int]]
    ) -> None:
        self.agents = Dictionary(agents)
        self.gpu_sets = Dictionary(gpu_sets)  # named by JSON [[uuid, index, name], ...]
        self.gpu_set = lru_cache(maxsize=100_000)(
            self._gpu_set
        )  # a host has the same GPUs in every report

    def gpus(self, number: int) -> list[tuple[str, int | None, str]]:
        """A set of GPUs: uuid, index and name of each."""
        return msgspec.json.decode(
            self.gpu_sets.name(number), type=list[tuple[str, int | None, str]]
        )

    def _gpu_set(self, gpus: GpuNames) -> int:
        return self.gpu_sets[msgspec.json.encode(gpus).decode()]
