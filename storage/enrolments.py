"""The time that a statement accounts for: an agent's enrolments within a month. Pure.

An enrolment that goes on counts to the month's end, or up to the last outcome while the month runs: what follows is not
known yet. One that ended counts up to its last outcome, for nobody asked after it. So does one that the registry has
lost, though history has its outcomes.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from bus.messages import Enrolment
from storage.rows import microseconds
from storage.windows import Window

NEAR_US = 15_000_000  # the first window of an enrolment begins with it, but for a ping's way and a clock's error


class Period(Struct, frozen=True):
    """`[since, until)` in microseconds."""

    since_us: int
    until_us: int

    @property
    def length_ms(self) -> int:
        """Whole milliseconds."""
        return max(0, self.until_us - self.since_us) // 1000

    def __contains__(self, moment_us: int) -> bool:
        return self.since_us <= moment_us < self.until_us

    def overlap(self, since_us: int, until_us: int) -> "Period":
        """The part within `[since, until)`, perhaps empty."""
        begins = max(self.since_us, since_us)
        return Period(begins, max(begins, min(self.until_us, until_us)))


class Known(Struct, frozen=True):
    """What history has of an agent around a month: when it was pinged, its windows, and the very first ping of all."""

    pinged_us: Sequence[int]
    windows: dict[int, Window]  # by pinged_us
    first_us: int | None


def periods(enrolments: Iterable[Enrolment], known: Known, month: Period, now_us: int) -> list[Period]:
    """The enrolled parts of the month, the oldest first; none is empty."""
    found = []
    for since_us, until_us in _spans(enrolments, known):
        begins = _begin(since_us, known.windows.values())
        if until_us is not None or now_us < month.until_us:
            ends = min(_last(known, since_us, until_us), now_us)
        else:
            ends = month.until_us
        found.append(Period(begins, ends if until_us is None else min(ends, until_us)))
    within = [one.overlap(month.since_us, month.until_us) for one in found]
    return [one for one in within if one.until_us > one.since_us]


def ended(enrolments: Sequence[Enrolment], month: Period, now_us: int) -> int | None:
    """When the last enrolment that touches the month ended; None where it goes on, or none is known."""
    touching = [one for one in enrolments if microseconds(one.since) < month.until_us]
    if not touching or (last := touching[-1].until) is None:
        return None
    return microseconds(last) if microseconds(last) <= now_us else None


def _spans(enrolments: Iterable[Enrolment], known: Known) -> list[tuple[int, int | None]]:
    """With one in front where history begins before the first that is known."""
    spans = [(_whole(one.since), None if one.until is None else _whole(one.until)) for one in enrolments]
    if known.first_us is not None and (not spans or known.first_us < spans[0][0]):
        begins = min([known.first_us, *(window.since_us for window in known.windows.values())])
        spans.insert(0, (begins, spans[0][0] if spans else None))
    return spans


def _whole(moment: datetime) -> int:
    """Microseconds, cut to the ledger's grain."""
    return microseconds(moment) // 1000 * 1000


def _begin(since_us: int, windows: Iterable[Window]) -> int:
    """An enrolment's first window begins with it, to the ping's way: that is no time that nobody reported."""
    near = [window.since_us for window in windows if abs(window.since_us - since_us) <= NEAR_US]
    return min(near, key=lambda begins: abs(begins - since_us), default=since_us)


def _last(known: Known, since_us: int, until_us: int | None) -> int:
    """How far the outcomes of an enrolment tell of it."""
    told = since_us
    for pinged_us in known.pinged_us:
        if since_us <= pinged_us and (until_us is None or pinged_us <= until_us):
            window = known.windows.get(pinged_us)
            told = max(told, pinged_us if window is None else window.until_us)
    return told
