"""The part of ledger time that a ping asks for, and the sum of its milliseconds by state.

Pure, in whole milliseconds.

Windows tile: each begins at the mark of the last answered report, so a lost reply makes the next
window longer, and no millisecond is lost or counted twice. In one window `up + degraded + down +
unknown + excused` is exactly the window.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from agentd.ledger.ledger import ClockReading, Ledger
from agentd.ledger.records import HOST
from bus.contract.durations import Durations, Interval
from bus.contract.messages import PingRequest

# Longer than any window. It keeps labels within the years that a datetime can hold.
LONGEST_WINDOW_MS = 100 * 365 * 86_400_000
_LONGEST_POSITION_DIGITS = 15


def mark(ledger: Ledger, at: int) -> str:
    """The name of a ledger position, opaque to everybody else."""
    return f"{ledger.created.ledger}.{at}"


class Phase(NamedTuple):
    """A part of a window in which the same GPUs were expected.

    `expected` is None where the request does not say: the host's own timeline is then used.
    """

    interval: Interval
    expected: tuple[str, ...] | None


class AskedWindow(NamedTuple):
    """The window that a request asks for, `[since, now)` of ledger time, in its two parts.

    `judged` and `excused` divide it by what the request excuses; `phases` divide the same time
    again, by the GPUs that were expected.
    """

    since: int
    now: int
    judged: list[Interval]
    excused: list[Interval]
    phases: list[Phase]

    def durations(self, ledger: Ledger, gpu: str) -> Durations:
        """The time of one GPU, or of the HOST, in each state within the window."""
        total = Durations(excused=sum(interval.length for interval in self.excused))
        for interval in self.judged:
            total += ledger.durations(gpu, interval, self.now)
        return total

    def host_durations(self, ledger: Ledger) -> Durations:
        """The time of the host in each state, by the GPUs that were expected at each moment."""
        total = Durations(excused=sum(interval.length for interval in self.excused))
        for phase in self.phases:
            for judged in self.judged:
                interval = judged.intersection(phase.interval)
                if phase.expected is None:
                    total += ledger.durations(HOST, interval, self.now)
                else:
                    total += ledger.worst_durations(phase.expected, interval, self.now)
        return total


class _AgeConverter:
    """Converts ages, which a request gives in milliseconds before its ping, to ledger positions.

    After a reboot within the window, a moment before that reboot is measured from the window's
    begin and not back from now. A boot with a wrong clock makes the ledger time of the reboot too
    long or too short, and an age that includes it would be wrong by as much.
    """

    def __init__(
        self,
        ledger: Ledger,
        request: PingRequest,
        since: int,
        now: int,
    ) -> None:
        self._since = since
        self._now = now
        self._rebooted_at = ledger.rebooted_at(since, now)
        self._length: int | None = None
        if request.window_seconds is not None:
            self._length = round(min(request.window_seconds * 1000, LONGEST_WINDOW_MS))

    def position(self, age: int) -> int:
        """Returns the ledger position. It lies outside of the window where the age does."""
        by_age = self._now - age
        if self._rebooted_at is None or self._length is None:
            return by_age
        from_begin = self._since + self._length - age
        if from_begin < self._rebooted_at:
            return from_begin
        return max(by_age, self._rebooted_at)


def asked_window(
    ledger: Ledger,
    request: PingRequest,
    clocks: ClockReading,
) -> AskedWindow:
    """The window that the request asks for, as of this reading of the clocks."""
    now = ledger.position(clocks)
    since = _window_start(ledger, request, now)
    ages = _AgeConverter(
        ledger,
        request,
        since,
        now,
    )
    excused = _excused_intervals(
        request,
        ages,
        Interval(since, now),
        clocks,
    )
    judged = _judged_intervals(since, now, excused)
    return AskedWindow(
        since,
        now,
        judged,
        excused,
        _phases(request, ages, Interval(since, now)),
    )


def _phases(
    request: PingRequest,
    ages: _AgeConverter,
    window: Interval,
) -> list[Phase]:
    """The window cut where a GPU came to be expected, or ceased to be. Read from its end back."""
    expected = request.expected_gpus
    if not request.expected_changes or expected is None:
        return [Phase(window, None)]
    phases: list[Phase] = []
    end = window.end
    # Of changes that took effect at one moment the last one is undone first.
    newest_first = reversed(request.expected_changes)
    for change in sorted(newest_first, key=lambda change: change.seconds_ago):
        at = ages.position(_bounded_ms(change.seconds_ago))
        begin = min(end, max(window.begin, at))
        phases.append(Phase(Interval(begin, end), expected))
        end = begin
        others = tuple(uuid for uuid in expected if uuid != change.uuid)
        expected = others if change.expected else (*others, change.uuid)
    phases.append(Phase(Interval(window.begin, end), expected))
    return phases


def _window_start(
    ledger: Ledger,
    request: PingRequest,
    now: int,
) -> int:
    """Returns the ledger position at which the window begins.

    It is the position of `since_mark`. A mark that is of another ledger or ahead of `now` is not
    used, and the window is then `window_seconds` long. Without either, it begins where the last
    counted report ended.
    """
    position = _marked_position(ledger, request.since_mark)
    if position is not None and position <= now:
        return position
    if request.window_seconds is not None:
        length = min(request.window_seconds * 1000, LONGEST_WINDOW_MS)
        return now - round(length)
    return ledger.counted_until or 0


def _marked_position(ledger: Ledger, since_mark: str | None) -> int | None:
    """Returns None for a mark of another ledger, and for a text that is no mark."""
    if since_mark is None:
        return None
    name, _, digits = since_mark.partition(".")
    if name != ledger.created.ledger:
        return None
    is_number = digits.isascii() and digits.isdigit()
    if not is_number or len(digits) > _LONGEST_POSITION_DIGITS:
        return None
    return int(digits)


def _excused_intervals(
    request: PingRequest,
    ages: _AgeConverter,
    window: Interval,
    clocks: ClockReading,
) -> list[Interval]:
    """The excused time as ledger time within the window, in order, with overlaps merged."""
    excused: list[Interval] = []
    for span in request.excused:
        begin = ages.position(_age_ms(span.since_seconds_ago, span.since, clocks))
        end = ages.position(_age_ms(span.until_seconds_ago, span.until, clocks))
        within = Interval(begin, end).intersection(window)
        if within.length > 0:
            excused.append(within)
    return _merged(excused)


def _age_ms(
    seconds_ago: float | None,
    at: datetime | None,
    clocks: ClockReading,
) -> int:
    """How long ago the end of a span is, in milliseconds; negative where it is yet to come.

    The wall time `at` is used only where there is no age: it depends on this host's clock.
    """
    if seconds_ago is not None:
        return _bounded_ms(seconds_ago)
    if at is not None:
        return clocks.wall - _milliseconds(at)
    return 0


def _bounded_ms(seconds: float) -> int:
    return round(max(-LONGEST_WINDOW_MS, min(seconds * 1000, LONGEST_WINDOW_MS)))


def _merged(intervals: list[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda interval: interval.begin):
        begin, end = interval.begin, interval.end
        if merged and begin <= merged[-1].end:
            last = merged.pop()
            begin = last.begin
            end = max(last.end, end)
        merged.append(Interval(begin, end))
    return merged


def _judged_intervals(
    since: int,
    until: int,
    excused: list[Interval],
) -> list[Interval]:
    """The window without its excused intervals, which are in order and do not overlap."""
    judged: list[Interval] = []
    begin = since
    for interval in excused:
        if begin < interval.begin:
            judged.append(Interval(begin, interval.begin))
        begin = interval.end
    if begin < until:
        judged.append(Interval(begin, until))
    return judged


def _milliseconds(at: datetime) -> int:
    """Milliseconds of the Unix epoch. A time without a zone is taken as UTC."""
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)
