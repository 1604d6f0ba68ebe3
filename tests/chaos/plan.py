"""Which faults happen, when, and to whom: a function of the seed and of nothing else."""

import random
from collections.abc import Sequence

from msgspec import Struct

# Faults of one process, by its role, with how often each is chosen.
_OF_ROLE: dict[str, dict[str, int]] = {
    "server": {"kill": 5, "freeze": 5, "isolate": 3, "disk": 3, "descriptors": 2},
    "scheduler": {
        "kill": 5,
        "freeze": 4,
        "cut": 3,
        "stall": 3,
        "slow": 2,
        "clock": 3,
        "descriptors": 1,
        "restart": 2,
    },
    "storage": {
        "kill": 5,
        "freeze": 3,
        "cut": 2,
        "stall": 2,
        "slow": 1,
        "clock": 2,
        "disk": 2,
        "descriptors": 1,
        "restart": 2,
    },
    "gateway": {"kill": 3, "freeze": 2, "cut": 1, "stall": 1, "clock": 1, "restart": 1},
    "fleet": {"kill": 3, "freeze": 3, "cut": 2, "stall": 2, "slow": 2, "clock": 1},
}
# Faults of the whole system.
_OF_ALL = {"power": 2, "rolling": 1, "backup": 2}
ROLE_WEIGHTS = {"server": 8, "scheduler": 8, "storage": 5, "gateway": 2, "fleet": 3, "all": 1}
NEEDS_ROOT = frozenset({"isolate", "narrow", "disk"})
TOGETHER = (1, 1, 2, 2, 3)  # how many faults happen at once, drawn from these
LONGEST_SECONDS = 9.0


class Fault(Struct, frozen=True):
    """One fault; `amount` is seconds of a clock's step, and otherwise unused."""

    kind: str
    target: str
    seconds: float
    amount: float = 0.0


class Turn(Struct, frozen=True):
    """Faults that begin together, and the pause after the last of them has ended."""

    faults: tuple[Fault, ...]
    pause: float


def turns(seed: int, targets: Sequence[str], count: int, *, is_root: bool) -> list[Turn]:
    """Returns turns with `count` faults in all; equal arguments give equal turns.

    A target is named by its role and a number, as in `server-2`.
    """
    chance = random.Random(seed)
    planned: list[Turn] = []
    left = count
    while left > 0:
        size = min(left, chance.choice(TOGETHER))
        faults = _together(chance, targets, size, is_root=is_root)
        left -= len(faults)
        pause = round(chance.choice((0.2, 0.5, 1.0, 3.0)) * chance.uniform(0.5, 1.5), 2)
        planned.append(Turn(faults, pause))
    return planned


def _together(
    chance: random.Random, targets: Sequence[str], size: int, *, is_root: bool
) -> tuple[Fault, ...]:
    """Faults of different targets. One of the whole system comes alone."""
    faults: dict[str, Fault] = {}
    roles = list(ROLE_WEIGHTS)
    while len(faults) < size:
        role = chance.choices(roles, list(ROLE_WEIGHTS.values()))[0]
        if role == "all":
            kind = chance.choices(list(_OF_ALL), list(_OF_ALL.values()))[0]
            if not faults:
                return (Fault(kind, "all", round(chance.uniform(0.0, 3.0), 2)),)
            continue
        named = [target for target in targets if target.rpartition("-")[0] == role]
        if not named:
            continue
        target = chance.choice(named)
        kinds = _OF_ROLE[role]
        kind = chance.choices(list(kinds), list(kinds.values()))[0]
        if target not in faults and (is_root or kind not in NEEDS_ROOT):
            faults[target] = _fault(chance, kind, target)
    return tuple(faults.values())


def _fault(chance: random.Random, kind: str, target: str) -> Fault:
    seconds = chance.choice((0.2, 1.0, 2.0, 4.0)) * chance.uniform(0.5, 1.5)
    if kind in {"freeze", "stall", "isolate"} and chance.random() < 0.2:
        seconds = chance.uniform(5.0, LONGEST_SECONDS)
    amount = 0.0
    if kind == "clock":
        amount = chance.choice((-1, 1)) * chance.choice((1.0, 30.0, 3600.0))
    seconds = round(seconds, 2)
    if kind == "isolate" and round(seconds * 100) % 3 == 0:
        kind = "narrow"  # drawn this way, the older seeds keep their other faults
    return Fault(kind, target, seconds, amount)
