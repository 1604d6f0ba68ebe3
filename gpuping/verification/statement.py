"""Whether a statement's sums follow from the outcomes of its bundle.

A window that crosses an edge of the enrolled time is divided there; how much of each state lies on
which side may follow from incidents, and is checked within bounds: the parts are as long as the
time on each side, and no state has more than the whole window has.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from gpuping.verification.fields import Fields
from gpuping.verification.records import (
    NO_TIME,
    InputError,
    Observation,
    Recorded,
    Times,
    fault,
    note,
)
from gpuping.verification.windows import PERCENT_TOLERANCE

SCHEMA_VERSION = 1
ROUNDED_MS = 3
OUTCOMES = ("answered", "missed", "excused")


class _Span(NamedTuple):
    begin_us: int
    end_us: int

    def overlaps(self, other: "_Span") -> bool:
        """Whether the two have time in common."""
        return self.begin_us < other.end_us and other.begin_us < self.end_us

    def intersection(self, other: "_Span") -> "_Span":
        """What the two have in common; they must overlap."""
        return _Span(max(self.begin_us, other.begin_us), min(self.end_us, other.end_us))


class Account(NamedTuple):
    """What a statement says of the host, or of a GPU."""

    name: str  # for messages
    enrolled_ms: int
    times: Times
    unreported_ms: int
    uptime_percent: float | None


class Statement(NamedTuple):
    """A statement, as far as it is checked. `gpus` are by UUID."""

    agent_id: str
    month: str
    since_us: int
    until_us: int
    enrolled: tuple[_Span, ...]
    history_lost: tuple[_Span, ...]
    host: Account
    gpus: Mapping[str, Account]
    counts: Mapping[str, int]
    remarks: Mapping[str, int]


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
            if not window.overlaps(span):
                continue
            part = window.intersection(span)
            if part == window:
                self.exact = self.exact.plus(times)
            else:
                self.at_edges = self.at_edges.plus(times)
                self.edge_ms += _length_ms(part)
                self.edges += 1

    @property
    def tolerance_ms(self) -> int:
        """How far a sum may be off, because each part was rounded to milliseconds."""
        return ROUNDED_MS * (1 + self.edges)

    def bounds(self, lost_least: int, lost_most: int) -> Iterator[tuple[str, int, int]]:
        """Yields each state with the least and the most milliseconds that a statement may say.

        Time whose outcomes were lost is excused and in no window: it counts between the two that
        are given.
        """
        for state, least, more in zip(Times._fields, self.exact, self.at_edges, strict=True):
            most = least + more
            if state == "excused":
                yield state, least + lost_least, most + lost_most
            else:
                yield state, least, most

    def wrong(self, said: Times, lost_ms: int) -> Iterator[str]:
        """Yields where a sum of the statement cannot come from these windows."""
        for state, least, most in self.bounds(lost_ms, lost_ms):
            said_ms = getattr(said, state)
            if least - self.tolerance_ms <= said_ms <= most + self.tolerance_ms:
                continue
            expected = f"{least / 1000:.3f}"
            if most > least:
                expected += f" to {most / 1000:.3f}"
            yield f"{state} is {said_ms / 1000:.3f} s, the outcomes have {expected} s"
        total = self.exact.total + self.edge_ms + lost_ms
        if abs(said.total - total) > self.tolerance_ms:
            yield f"its seconds are {said.total / 1000:.3f} s, the outcomes {total / 1000:.3f} s"


def read_statement(fields: Fields) -> Statement:
    """Reads a statement. Raises InputError."""
    version = fields.whole("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{fields.place}: its schema_version is {version}, this program knows {SCHEMA_VERSION}"
        )
    enrolled_ms = round(fields.number("enrolled_seconds") * 1000)
    gpus = {}
    for gpu in fields.objects("gpus"):
        uuid = gpu.text("uuid")
        if uuid in gpus:
            raise InputError(f"{gpu.place}: GPU {uuid} is there twice")
        of_gpu = round(gpu.number("enrolled_seconds") * 1000)
        gpus[uuid] = _account(gpu, f"GPU {uuid}", of_gpu)
    remarks = fields.fields("remarks")
    return Statement(
        agent_id=fields.text("agent_id"),
        month=fields.text("month"),
        since_us=fields.microseconds("since"),
        until_us=fields.microseconds("until"),
        enrolled=_spans(fields, "enrolled"),
        history_lost=_spans(fields, "history_lost"),
        host=_account(fields.fields("host"), "host", enrolled_ms),
        gpus=gpus,
        counts={word: fields.whole(word) for word in ("pings", *OUTCOMES)},
        remarks={name: remarks.whole(name) for name in remarks.names()},
    )


def check_statement(
    statement: Statement,
    outcomes: Sequence[Recorded],
) -> Iterator[Observation]:
    """Yields what is to be said of a statement."""
    windows = []
    for one in outcomes:
        if not one.counts or one.times is None or not _can_be(one.pinged_us, one.times):
            continue
        if one.since_us is None:
            yield note("outcomes of versions before have no measured window: no sum is checked")
            return
        windows.append(_Window(_Span(one.since_us, one.pinged_us), one.times, one.gpus))
    yield from _check_spans(statement)
    yield from _check_times(statement, windows)
    yield from _check_gpus(statement, windows)
    yield from _check_counts(statement, outcomes)


def _check_spans(statement: Statement) -> Iterator[Observation]:
    """Yields where enrolled time is counted twice, or lies outside of the month."""
    for what, spans in (
        ("enrolled", statement.enrolled),
        ("history_lost", statement.history_lost),
    ):
        last_us = statement.since_us
        for begin_us, end_us in spans:
            if not last_us <= begin_us <= end_us <= statement.until_us:
                yield fault(f"{what}: its spans overlap, or leave the time of the statement")
                break
            last_us = end_us
    months = {_month(statement.since_us), _month(statement.until_us - 1)}
    if statement.enrolled and months != {statement.month}:
        yield fault("its time is not within its month")


def _check_times(
    statement: Statement,
    windows: Sequence[_Window],
) -> Iterator[Observation]:
    """Yields what is wrong with the enrolled time and with the host's account."""
    spans = statement.enrolled
    lost = statement.history_lost
    enrolled_ms = _total_ms(spans)
    if abs(enrolled_ms - statement.host.enrolled_ms) > ROUNDED_MS * (1 + len(spans)):
        yield fault("enrolled_seconds is not the length of the enrolled spans")
    host = _Sum(spans)
    for window in windows:
        host.add(window.span, window.host)
        if any(window.span.overlaps(span) for span in lost):
            yield fault("time that is said to be lost has a report")
    for text in host.wrong(statement.host.times, _total_ms(lost)):
        yield fault(f"host: {text}")
    yield from _check_account(statement.host)


def _check_gpus(
    statement: Statement,
    windows: Sequence[_Window],
) -> Iterator[Observation]:
    """Yields what is wrong with the accounts of the GPUs."""
    spans = statement.enrolled
    sums: dict[str, _Sum] = {}
    for window in windows:
        if any(window.span.overlaps(span) for span in spans):
            for uuid, times in window.gpus.items():
                sums.setdefault(uuid, _Sum(spans)).add(window.span, times)
    lost_ms = _total_ms(statement.history_lost)
    for uuid, gpu in statement.gpus.items():
        yield from _check_account(gpu)
        found = sums.get(uuid)
        if found is not None:
            for text in _gpu_wrong(found, gpu.times, lost_ms):
                yield fault(f"{gpu.name}: {text}")
        elif gpu.times.judged > 0 or gpu.times.excused > lost_ms + ROUNDED_MS:
            # Without such time it may have been expected only while the host was not answered.
            yield fault(f"{gpu.name}: no outcome has it")
    if sums.keys() - statement.gpus.keys():
        yield fault("its GPUs are not those of the outcomes")


def _gpu_wrong(found: _Sum, said: Times, lost_ms: int) -> Iterator[str]:
    """Yields what is wrong with a GPU's sums. It need not have been expected in lost time.

    A row that does not fill its window is of a GPU that came or went, so at an edge of the month
    only the most that it can add is known.
    """
    for state, least, most in found.bounds(0, lost_ms):
        said_ms = getattr(said, state)
        if not least - found.tolerance_ms <= said_ms <= most + found.tolerance_ms:
            yield f"{state} is {said_ms / 1000:.3f} s, the outcomes have {least / 1000:.3f} s"


def _check_account(account: Account) -> Iterator[Observation]:
    """Yields where an account contradicts itself."""
    times = account.times
    if abs(times.total + account.unreported_ms - account.enrolled_ms) > ROUNDED_MS:
        yield fault(f"{account.name}: reported and unreported seconds are not the enrolled ones")
    percent = None
    judged_ms = times.judged + account.unreported_ms
    if judged_ms > 0:
        percent = 100.0 * times.good / judged_ms
    said = account.uptime_percent
    if percent is None or said is None:
        if percent is not said:
            text = f"uptime_percent is {said}, its seconds say {percent}"
            yield fault(f"{account.name}: {text}")
    elif abs(percent - said) > PERCENT_TOLERANCE:
        text = f"uptime_percent is {said:.3f}, its seconds say {percent:.3f}"
        yield fault(f"{account.name}: {text}")


def _check_counts(
    statement: Statement,
    outcomes: Sequence[Recorded],
) -> Iterator[Observation]:
    of_month = [one for one in outcomes if _month(one.pinged_us) == statement.month]
    counted = Counter(one.outcome for one in of_month)
    expected = {"pings": len(of_month)}
    for word in OUTCOMES:
        expected[word] = counted[word]
    for word, number in expected.items():
        said = statement.counts[word]
        if said != number:
            yield fault(f"{word} is {said}, the outcomes have {number}")
    remarks: Counter[str] = Counter()
    for one in of_month:
        remarks.update(set(one.remarks))
    if statement.remarks != dict(remarks):
        yield fault("its remarks are not those of the outcomes")


def _can_be(pinged_us: int, times: Times) -> bool:
    """Whether the window could have been: one that began before 1970 is in no sum."""
    return times.total * 1000 <= pinged_us


def _length_ms(span: _Span) -> int:
    return (span.end_us - span.begin_us) // 1000


def _total_ms(spans: Iterable[_Span]) -> int:
    return sum(_length_ms(span) for span in spans)


def _account(fields: Fields, name: str, enrolled_ms: int) -> Account:
    return Account(
        name=name,
        enrolled_ms=enrolled_ms,
        times=fields.seconds("seconds"),
        unreported_ms=round(fields.number("unreported_seconds") * 1000),
        uptime_percent=fields.optional_number("uptime_percent"),
    )


def _spans(fields: Fields, name: str) -> tuple[_Span, ...]:
    """Reads spans, each a list of two times or an object."""
    found = []
    for place, value in enumerate(fields.values(name)):
        named = value
        if isinstance(value, list) and len(value) == len(_Span._fields):
            named = dict(zip(("since", "until"), value, strict=True))
        span = Fields(named, f"{fields.place}.{name}[{place}]")
        found.append(_Span(span.microseconds("since"), span.microseconds("until")))
    return tuple(found)


def _month(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us // 1_000_000, UTC):%Y-%m}"
