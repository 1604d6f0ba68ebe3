"""Whether a statement's sums follow from the outcomes of its bundle.

A window that crosses an edge of the enrolled time is divided there; how much of each state lies on
which side may follow from incidents, and is checked within bounds: the parts are as long as the
time on each side, and no state has more than the whole window has.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gpuping.verification.records import NO_TIME, Recorded, Times
from gpuping.verification.windows import PERCENT_TOLERANCE, times_of

ROUNDED_MS = 3


class _Span(NamedTuple):
    begin_us: int
    end_us: int

    def overlaps(self, other: "_Span") -> bool:
        """Whether the two have time in common."""
        return self.begin_us < other.end_us and other.begin_us < self.end_us


class _Window(NamedTuple):
    """The window of an answered ping, and the time in it: of the host, and of each GPU."""

    span: _Span
    host: Times
    gpus: Mapping[str, Times]


class _Sum:
    """The time within the enrolled spans: exact where windows lie whole, with bounds at edges."""

    def __init__(self, spans: Sequence[_Span]) -> None:
        self._spans = spans
        self.exact = NO_TIME  # the windows that lie whole within a span
        self.at_edges = NO_TIME  # of each state, the most that the divided windows can add
        self.edge_ms = 0  # how much they add together
        self.edges = 0

    def add(self, window: _Span, times: Times) -> None:
        """Adds a window."""
        for span in self._spans:
            part = _Span(
                max(window.begin_us, span.begin_us),
                min(window.end_us, span.end_us),
            )
            if part.begin_us >= part.end_us:
                continue
            if part == window:
                self.exact = self.exact.plus(times)
            else:
                self.at_edges = self.at_edges.plus(times)
                self.edge_ms += (part.end_us - part.begin_us) // 1000
                self.edges += 1

    def wrong(self, said: Times, excused_besides: int) -> Iterator[str]:
        """Yields where a sum of the statement cannot come from these windows."""
        tolerance = ROUNDED_MS * (1 + self.edges)
        least = self.exact
        for state, mine, low, most in zip(Times._fields, said, least, self.at_edges, strict=True):
            besides = excused_besides if state == "excused" else 0
            if not low + besides - tolerance <= mine <= low + most + besides + tolerance:
                expected = f"{(low + besides) / 1000:.3f}"
                if most:
                    expected += f" to {(low + besides + most) / 1000:.3f}"
                yield f"{state} is {mine / 1000:.3f} s, the outcomes have {expected} s"
        total = least.total + self.edge_ms + excused_besides
        if abs(said.total - total) > tolerance:
            yield f"its seconds are {said.total / 1000:.3f} s, the outcomes {total / 1000:.3f} s"


def check_statement(
    statement: dict[str, Any],
    outcomes: Sequence[Recorded],
) -> Iterator[tuple[str, bool]]:
    """Yields what is to be said of a statement, and whether it is wrong."""
    windows = []
    for one in outcomes:
        if not one.counts or one.times is None or not _can_be(one.pinged_us, one.times):
            continue
        if one.since_us is None:
            yield "outcomes of versions before have no measured window: no sum is checked", False
            return
        windows.append(_Window(_Span(one.since_us, one.pinged_us), one.times, one.gpus))
    try:
        spans = [_span(one) for one in statement["enrolled"]]
        lost = [_span(one) for one in statement["history_lost"]]
        yield from _check_times(statement, spans, lost, windows)
        yield from _check_gpus(statement, spans, lost, windows)
        yield from _check_counts(statement, outcomes)
    except (KeyError, TypeError, ValueError, AttributeError):
        yield "the statement cannot be read", True


def _check_times(
    statement: dict[str, Any],
    spans: Sequence[_Span],
    lost: Sequence[_Span],
    windows: Sequence[_Window],
) -> Iterator[tuple[str, bool]]:
    """Yields what is wrong with the enrolled time and with the host's account."""
    enrolled_ms = sum(_length_ms(span) for span in spans)
    if abs(enrolled_ms - statement["enrolled_seconds"] * 1000) > ROUNDED_MS * (1 + len(spans)):
        yield "enrolled_seconds is not the length of the enrolled spans", True
    host = _Sum(spans)
    for window in windows:
        host.add(window.span, window.host)
        if any(window.span.overlaps(span) for span in lost):
            yield "time that is said to be lost has a report", True
    for text in host.wrong(_times(statement["host"]), sum(map(_length_ms, lost))):
        yield f"host: {text}", True
    yield from _check_account("host", statement["host"], statement["enrolled_seconds"])


def _check_gpus(
    statement: dict[str, Any],
    spans: Sequence[_Span],
    lost: Sequence[_Span],
    windows: Sequence[_Window],
) -> Iterator[tuple[str, bool]]:
    """Yields what is wrong with the accounts of the GPUs."""
    sums: dict[str, _Sum] = {}
    for window in windows:
        if any(window.span.overlaps(span) for span in spans):
            for uuid, times in window.gpus.items():
                sums.setdefault(uuid, _Sum(spans)).add(window.span, times)
    lost_ms = sum(map(_length_ms, lost))
    for gpu in statement["gpus"]:
        name = f"GPU {gpu['uuid']}"
        yield from _check_account(name, gpu, gpu["enrolled_seconds"])
        found = sums.get(gpu["uuid"])
        if found is not None:
            for text in _gpu_wrong(found, _times(gpu), lost_ms):
                yield f"{name}: {text}", True
    if {gpu["uuid"] for gpu in statement["gpus"]} != set(sums):
        yield "its GPUs are not those of the outcomes", True


def _gpu_wrong(found: _Sum, said: Times, lost_ms: int) -> Iterator[str]:
    """Yields what is wrong with a GPU's sums. It need not have been expected in lost time.

    A row that does not fill its window is of a GPU that came or went, so at an edge of the month
    only the most that it can add is known.
    """
    least = found.exact
    tolerance = ROUNDED_MS * (1 + found.edges)
    for state, mine, low, most in zip(Times._fields, said, least, found.at_edges, strict=True):
        besides = lost_ms if state == "excused" else 0
        if not low - tolerance <= mine <= low + most + besides + tolerance:
            yield f"{state} is {mine / 1000:.3f} s, the outcomes have {low / 1000:.3f} s"


def _check_account(
    name: str,
    account: dict[str, Any],
    enrolled_seconds: float,
) -> Iterator[tuple[str, bool]]:
    """Yields where an account contradicts itself."""
    times = _times(account)
    unreported_ms = round(account["unreported_seconds"] * 1000)
    if abs(times.total + unreported_ms - enrolled_seconds * 1000) > ROUNDED_MS:
        yield f"{name}: reported and unreported seconds are not the enrolled ones", True
    judged = times.judged + unreported_ms
    percent = 100.0 * times.good / judged if judged > 0 else None
    said = account["uptime_percent"]
    if (percent is None) != (said is None):
        yield f"{name}: uptime_percent is {said}, its seconds say {percent}", True
    elif percent is not None and abs(percent - said) > PERCENT_TOLERANCE:
        yield f"{name}: uptime_percent is {said:.3f}, its seconds say {percent:.3f}", True


def _check_counts(
    statement: dict[str, Any],
    outcomes: Sequence[Recorded],
) -> Iterator[tuple[str, bool]]:
    month = statement["month"]
    of_month = [one for one in outcomes if _month(one.pinged_us) == month]
    counted = Counter(one.outcome for one in of_month)
    expected = {"pings": len(of_month)}
    for word in ("answered", "missed", "excused"):
        expected[word] = counted[word]
    for word, number in expected.items():
        if statement[word] != number:
            yield f"{word} is {statement[word]}, the outcomes have {number}", True
    remarks = Counter(remark for one in of_month for remark in set(one.remarks))
    if statement["remarks"] != dict(remarks):
        yield "its remarks are not those of the outcomes", True


def _can_be(pinged_us: int, times: Times) -> bool:
    """Whether the window could have been: one that began before 1970 is in no sum."""
    return times.total * 1000 <= pinged_us


def _length_ms(span: _Span) -> int:
    return (span.end_us - span.begin_us) // 1000


def _times(account: dict[str, Any]) -> Times:
    times = times_of(account["seconds"])
    if times is None:
        raise ValueError
    return times


def _span(fields: list[str] | dict[str, str]) -> _Span:
    since, until = (fields["since"], fields["until"]) if isinstance(fields, dict) else fields
    return _Span(microseconds(since), microseconds(until))


def microseconds(text: str) -> int:
    """Returns microseconds since 1970 of an RFC 3339 time."""
    at = datetime.fromisoformat(text)
    since_1970 = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_1970.days * 86_400 + since_1970.seconds) * 1_000_000 + since_1970.microseconds


def _month(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us // 1_000_000, UTC):%Y-%m}"
