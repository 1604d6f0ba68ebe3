"""A report's window, cut at a moment: how many of its milliseconds lie before it. Pure.

The report holds sums, not a timeline. A window that was in one state throughout is cut exactly; one of many
states is cut by its incidents where these account for every millisecond; else its states are shared out in
proportion, and the statement says so. The parts always add up to the whole.
"""

from datetime import datetime
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from bus.contract.messages import Incident, Seconds
from storage.engine.rows import microseconds

Method = Literal["exact", "prorated"]
STATES = ("up", "degraded", "down", "unknown", "excused")
TOLERANCE_MS = 3  # incidents are rounded to the millisecond at each end
_WORST_FIRST = ("down", "unknown", "degraded")


class Milliseconds(Struct, frozen=True):
    """An account in whole milliseconds."""

    up: int = 0
    degraded: int = 0
    down: int = 0
    unknown: int = 0
    excused: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.up + self.degraded + self.down + self.unknown + self.excused

    def plus(self, other: "Milliseconds") -> "Milliseconds":
        """State by state."""
        return Milliseconds(*(getattr(self, s) + getattr(other, s) for s in STATES))

    def minus(self, other: "Milliseconds") -> "Milliseconds":
        """State by state."""
        return Milliseconds(*(getattr(self, s) - getattr(other, s) for s in STATES))

    def seconds(self) -> Seconds:
        """As everybody else has it."""
        return Seconds(**{s: getattr(self, s) / 1000 for s in STATES})


class Window(Struct, frozen=True):
    """`[since, until)` in microseconds, what was accounted in it, and by GPU.

    `stepped`: the host's clock was set meanwhile, so that nothing says where in the window something was.
    """

    ping_seq: int
    since_us: int
    until_us: int
    host: Milliseconds
    gpus: dict[str, Milliseconds]
    incidents: tuple[Incident, ...] = ()
    stepped: bool = False


class Part(Struct, frozen=True):
    """What of an account lies within a stretch, and how that was found."""

    account: Milliseconds
    method: Method


def within(window: Window, gpu: str | None, since_us: int, until_us: int) -> Part:
    """The part of the host's (or a GPU's) account that lies in `[since, until)`."""
    whole = window.host if gpu is None else window.gpus[gpu]
    if since_us <= window.since_us and window.until_us <= until_us:
        return Part(whole, "exact")
    till = _before(window, gpu, whole, until_us)
    start = _before(window, gpu, whole, since_us)
    return Part(
        till.account.minus(start.account),
        "exact" if till.method == start.method == "exact" else "prorated",
    )


def _before(window: Window, gpu: str | None, whole: Milliseconds, moment_us: int) -> Part:
    if moment_us <= window.since_us:
        return Part(Milliseconds(), "exact")
    if moment_us >= window.until_us:
        return Part(whole, "exact")
    shared = _share(whole, moment_us - window.since_us, window.until_us - window.since_us)
    if sum(1 for state in STATES if getattr(whole, state)) <= 1:
        return Part(shared, "exact")
    timeline = _timeline(window, gpu)
    if any(
        abs(_sum(timeline, s, window.until_us) // 1000 - getattr(whole, s)) > TOLERANCE_MS
        for s in _WORST_FIRST
    ):
        return Part(shared, "prorated")
    stepped = (
        window.stepped
        or abs((window.until_us - window.since_us) // 1000 - whole.total) > TOLERANCE_MS
    )
    if whole.excused or stepped:
        return Part(shared, "prorated")  # nothing says when it was
    bad_us = {s: _sum(timeline, s, moment_us) for s in _WORST_FIRST}
    bad = {s: min(spent // 1000, getattr(whole, s)) for s, spent in bad_us.items()}
    up = min(whole.up, (moment_us - window.since_us - sum(bad_us.values())) // 1000)
    return Part(Milliseconds(up=up, **bad), "exact")


def _share(whole: Milliseconds, part_us: int, length_us: int) -> Milliseconds:
    """In proportion, each state rounded down: so no state shrinks as the moment moves on, and no part is negative."""
    return Milliseconds(*(getattr(whole, state) * part_us // length_us for state in STATES))


def _timeline(window: Window, gpu: str | None) -> list[tuple[int, int, str]]:
    """Stretches that were not up: of one GPU, or of the host, where the worst state of any GPU counts."""
    stretches = [
        (_clip(window, one.since), _clip(window, one.until), one.state)
        for one in window.incidents
        if one.state in _WORST_FIRST and (gpu is None or one.gpu in {gpu, None})
    ]
    edges = sorted({edge for start, end, _ in stretches for edge in (start, end)})
    timeline = []
    for start, end in pairwise(edges):
        there = {state for since, until, state in stretches if since <= start and end <= until}
        if worst := next((state for state in _WORST_FIRST if state in there), None):
            timeline.append((start, end, worst))
    return timeline


def _clip(window: Window, moment: datetime | None) -> int:
    if moment is None:
        return window.until_us
    return min(max(microseconds(moment), window.since_us), window.until_us)


def _sum(timeline: list[tuple[int, int, str]], state: str, until_us: int) -> int:
    """Microseconds of a state before a moment."""
    return sum(
        max(0, min(end, until_us) - start) for start, end, found in timeline if found == state
    )
