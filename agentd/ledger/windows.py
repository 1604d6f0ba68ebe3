"""Which stretch of ledger time a ping asks for, and how its milliseconds add up. Pure, in whole milliseconds.

Windows tile: each begins at the mark of the last answered report, so a lost reply makes the next window
longer and neither loses nor repeats a millisecond. For one window
`up + degraded + down + unknown + excused` is the window, exactly.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from agentd.ledger.ledger import Ledger, Moment
from bus.contract.messages import PingRequest, Seconds, Span

LONGEST = (
    100 * 365 * 86_400_000
)  # beyond any window; keeps labels within the years that a datetime can hold
Stretch = tuple[int, int]


class Tally(NamedTuple):
    """A window in milliseconds, accounted."""

    up: int
    degraded: int
    down: int
    unknown: int
    excused: int

    @property
    def window(self) -> int:
        """The whole window."""
        return sum(self)

    @property
    def uptime_percent(self) -> float | None:
        """Share of what is not excused, 0..100; unknown counts against it. None where nothing is left."""
        judged = self.window - self.excused
        return 100.0 * (self.up + self.degraded) / judged if judged else None

    def seconds(self) -> Seconds:
        """The same for a report."""
        return Seconds(**{name: value / 1000 for name, value in self._asdict().items()})


def mark(ledger: Ledger, at: int) -> str:
    """The opaque name of a ledger position."""
    return f"{ledger.began.ledger}.{at}"


def start(ledger: Ledger, request: PingRequest, now: int) -> int:
    """Where the window begins. A mark of another ledger, or one ahead of us, is unknown: `window_seconds` then."""
    position = _position(ledger, request.since_mark)
    if position is not None and position <= now:
        return position
    if request.window_seconds is not None:
        return now - round(min(request.window_seconds * 1000, LONGEST))
    return ledger.counted or 0


def _position(ledger: Ledger, since_mark: str | None) -> int | None:
    name, _, position = (since_mark or "").partition(".")
    known = (
        name == ledger.began.ledger
        and position.isascii()
        and position.isdigit()
        and len(position) < 16
    )
    return int(position) if known else None


def excused_stretches(spans: Iterable[Span], since: int, now: int, moment: Moment) -> list[Stretch]:
    """Excused wall time as ledger time within the window, overlaps merged, in order."""
    shift = now - moment.wall
    stretches = sorted(
        (_milliseconds(span.since) + shift, _milliseconds(span.until) + shift) for span in spans
    )
    merged: list[Stretch] = []
    for begin, end in stretches:
        first, last = max(begin, since), min(end, now)
        if merged and first <= merged[-1][1]:
            first, last = merged[-1][0], max(last, merged.pop()[1])
        if first < last:
            merged.append((first, last))
    return merged


def judged_stretches(since: int, until: int, excused: list[Stretch]) -> list[Stretch]:
    """The window without what is excused."""
    edges = [since, *(edge for stretch in excused for edge in stretch), until]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def tally(ledger: Ledger, gpu: str, judged: list[Stretch], excused: list[Stretch]) -> Tally:
    """One GPU's (or the HOST's) milliseconds in a window."""
    parts = [ledger.sums(gpu, since, until) for since, until in judged] or [(0, 0, 0, 0)]
    up, degraded, down, unknown = map(sum, zip(*parts, strict=True))
    return Tally(up, degraded, down, unknown, excused=sum(end - begin for begin, end in excused))


def _milliseconds(at: datetime) -> int:
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
