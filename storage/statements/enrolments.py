"""The time that a statement accounts for: an agent's enrolments within a month. Pure.

An enrolment that goes on counts to the month's end, or up to the last outcome while the month runs: what follows is not
known yet. One that ended counts up to its last outcome, for nobody asked after it. So does one that the registry has
lost, though history has its outcomes.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from bus.contract.messages import Enrolment
from storage.engine.bounds import FIRST_US
from storage.engine.rows import microseconds
from storage.statements.alignment import AGREES_US
from storage.statements.windows import Window

NEAR_US = (
    AGREES_US + 1_000_000
)  # the first window of an enrolment begins with it, but for a clock's error and a ping's way


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


def periods(
    enrolments: Iterable[Enrolment], known: Known, month: Period, now_us: int
) -> list[Period]:
    """The enrolled parts of the month, the oldest first; none is empty."""
    found = []
    for since_us, until_us in _spans(enrolments, known):
        begins = _begin(since_us, known.windows.values())
        if until_us is not None or now_us < month.until_us:
            ends = min(_last(known, since_us, until_us), now_us)
        else:
            ends = month.until_us
        found.append(Period(begins, ends if until_us is None else min(ends, until_us)))
    return list(_apart(one.overlap(month.since_us, month.until_us) for one in found))


def ended(enrolments: Sequence[Enrolment], month: Period, now_us: int) -> int | None:
    """When the last enrolment that may touch the month ended; None where it goes on, or none is known.

    One that the registry has lost ended when the first that is known began.
    """
    touching = [one.until for one in enrolments if microseconds(one.since) < month.until_us]
    last = touching[-1] if touching else enrolments[0].since if enrolments else None
    return None if last is None or microseconds(last) > now_us else microseconds(last)


def _apart(periods: Iterable[Period]) -> Iterator[Period]:
    """In order, each beginning no earlier than the one before ended, for no time counts twice; none is empty."""
    ended_us = FIRST_US
    for period in sorted(periods, key=lambda one: one.since_us):
        rest = period.overlap(max(period.since_us, ended_us), period.until_us)
        ended_us = max(ended_us, rest.until_us)
        if rest.until_us > rest.since_us:
            yield rest


def _spans(enrolments: Iterable[Enrolment], known: Known) -> list[tuple[int, int | None]]:
    """With one in front where history begins before the first that is known."""
    spans = [
        (_whole(one.since), None if one.until is None else _whole(one.until) + 1000)
        for one in enrolments
    ]
    if known.first_us is not None and (not spans or known.first_us < spans[0][0] - NEAR_US):
        begins = min([known.first_us, *(window.since_us for window in known.windows.values())])
        spans.insert(0, (begins, spans[0][0] if spans else None))
    return spans


def _whole(moment: datetime) -> int:
    """Microseconds, cut to the ledger's grain."""
    return microseconds(moment) // 1000 * 1000


def _begin(since_us: int, windows: Iterable[Window]) -> int:
    """An enrolment's first window begins with it, to the ping's way: that is no time that nobody reported."""
    mine = [window.since_us for window in windows if window.until_us > since_us]
    near = [begins for begins in mine if abs(begins - since_us) <= NEAR_US]
    return min(near, key=lambda begins: abs(begins - since_us), default=since_us)


def _last(known: Known, since_us: int, until_us: int | None) -> int:
    """How far the outcomes of an enrolment tell of it."""
    told = since_us
    for pinged_us in known.pinged_us:
        if since_us <= pinged_us and (until_us is None or pinged_us <= until_us):
            window = known.windows.get(pinged_us)
            told = max(told, pinged_us if window is None else window.until_us)
    return told
