"""What is verified: one recorded outcome, and what is found about it. Times are whole numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple


class InputError(Exception):
    """A file that cannot be read as one of those that are verified."""


class Times(NamedTuple):
    """Milliseconds by state."""

    up: int
    degraded: int
    down: int
    unknown: int
    excused: int

    @property
    def total(self) -> int:
        """All five together."""
        return sum(self)

    @property
    def good(self) -> int:
        """What counts as uptime."""
        return self.up + self.degraded

    @property
    def judged(self) -> int:
        """What uptime is a share of."""
        return self.total - self.excused

    def plus(self, other: "Times") -> "Times":
        """The sums by state."""
        return Times(*(mine + its for mine, its in zip(self, other, strict=True)))


NO_TIME = Times(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Recorded:
    """One outcome as the scheduler recorded it, with the report as the host sent it.

    `pinged_us` and `since_us` are microseconds since 1970 UTC: the window is `[since, pinged)`.
    `since_us` is None where the file does not tell it. `times` is what was accounted, None where
    nothing was. `report` is the exact bytes: of the report that counts, or of an answer that was
    refused. `signature` is the header, empty where there was none. `has_row` False: the file has
    reports alone, and nothing of what was accounted.
    """

    agent_id: str
    ping_seq: int
    pinged_us: int
    outcome: str
    verdict: str = ""
    uptime_percent: float | None = None
    since_us: int | None = None
    times: Times | None = None
    response_ms: float = 0.0
    remarks: tuple[str, ...] = ()
    gpus: Mapping[str, Times] = field(default_factory=lambda: MappingProxyType({}))
    report: bytes | None = None
    signature: str = ""
    has_row: bool = True

    @property
    def counts(self) -> bool:
        """Whether its report counts. Otherwise the report is kept as evidence of a refusal."""
        return self.outcome == "answered"


class Observation(NamedTuple):
    """What a check has to say. `is_fault` False: nothing is wrong, and it should be known."""

    text: str
    is_fault: bool


def fault(text: str) -> Observation:
    """Something is wrong."""
    return Observation(text, is_fault=True)


def note(text: str) -> Observation:
    """Nothing is wrong, and it should be known."""
    return Observation(text, is_fault=False)


class Finding(NamedTuple):
    """An observation, and where it was made."""

    agent_id: str
    ping_seq: int | None
    at_us: int | None
    text: str
    is_fault: bool = True


class Trusted(NamedTuple):
    """What the reader knows from elsewhere: the fleet's public key, and keys of agents.

    None: any fleet; an agent that is not in `keys`: any key.
    """

    fleet: str | None
    keys: Mapping[str, str] = MappingProxyType({})
