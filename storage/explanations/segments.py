"""When one GPU, or the host, was in which state: pieces of one state, or sums of short ones.

Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from bus.contract.durations import Durations, Interval
from bus.contract.remarks import STOOD_STILL
from storage.engine.rows import EXCUSED
from storage.explanations.losses import EXPLAINING_REMARKS
from storage.statements.gaps import Gap
from storage.statements.windows import (
    STATES,
    NotUp,
    ReportWindow,
    is_explained,
    not_up_intervals,
)

MOST_REASONS = 4  # of one piece


class Piece(Struct, frozen=True, gc=False):
    """Time within an interval (microseconds) by state, in milliseconds, and why it was not up."""

    interval: Interval
    durations: Durations
    unreported_ms: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Returns whether the piece has one state throughout."""
        states = 0
        if self.unreported_ms:
            states += 1
        for state in STATES:
            if getattr(self.durations, state):
                states += 1
        return states <= 1

    def joined(self, other: "Piece") -> "Piece":
        """Returns both as one."""
        return Piece(
            interval=Interval(self.interval.begin, other.interval.end),
            durations=self.durations + other.durations,
            unreported_ms=self.unreported_ms + other.unreported_ms,
            reasons=_first_reasons(self.reasons + other.reasons),
        )

    def within(self, period: Interval) -> "Piece":
        """Returns the part within a period. Several states are divided in proportion."""
        if period.covers(self.interval):
            return self
        inside = self.interval.intersection(period)
        whole_us = self.interval.length
        shares = {}
        for state in STATES:
            value_ms = getattr(self.durations, state)
            shares[state] = value_ms * inside.length // whole_us
        unreported_ms = self.unreported_ms * inside.length // whole_us
        return Piece(inside, Durations(**shares), unreported_ms, self.reasons)


def _first_reasons(reasons: Iterable[str]) -> tuple[str, ...]:
    """Returns each reason once, and no more of them than a piece may have."""
    distinct = tuple(dict.fromkeys(reasons))
    return distinct[:MOST_REASONS]


class _Kind(NamedTuple):
    """What two pieces have in common that are drawn as one."""

    states: tuple[bool, ...]
    reasons: tuple[str, ...]


class Noted(NamedTuple):
    """What the scheduler noted about a ping: its reason, and remarks about the report."""

    reason: str | None = None
    remarks: Sequence[str] = ()


def window_pieces(window: ReportWindow, gpu: str | None, noted: Noted) -> Iterator[Piece]:
    """Yields the pieces of a window; None stands for the host.

    A window whose incidents do not say when its states were is one piece.
    """
    timeline = not_up_intervals(window, gpu)
    whole = _whole_window(window, gpu, timeline, noted)
    if whole.is_plain or not timeline or not is_explained(window, gpu):
        yield whole
        return
    reached_us = window.interval.begin
    for one in timeline:
        if one.begin_us > reached_us:
            yield _plain(reached_us, one.begin_us, "up", ())
        yield _plain(one.begin_us, one.end_us, one.state, (one.incident.reason,))
        reached_us = one.end_us
    if window.interval.end > reached_us:
        yield _plain(reached_us, window.interval.end, "up", ())


def _whole_window(
    window: ReportWindow,
    gpu: str | None,
    timeline: Sequence[NotUp],
    noted: Noted,
) -> Piece:
    """Returns the window as one piece, with every reason for which it was not up."""
    durations = window.host
    if gpu is not None:
        durations = window.gpus[gpu]
    reasons = [one.incident.reason for one in timeline]
    if gpu is not None and not reasons:
        reasons += window.gpu_reasons.get(gpu, ())
    if not reasons and (durations.down or durations.unknown):
        for remark in EXPLAINING_REMARKS:
            if remark in noted.remarks:
                reasons.append(remark)
    if durations.excused:
        reasons += _excuses(window, noted)
    return Piece(window.interval, durations, 0, _first_reasons(reasons))


def _excuses(window: ReportWindow, noted: Noted) -> list[str]:
    """Returns why time of a window was excused, as far as anything says so."""
    excuses = []
    for incident in window.incidents:
        if incident.state == EXCUSED:
            excuses.append(incident.reason)
    if STOOD_STILL in noted.remarks:
        excuses.append(STOOD_STILL)
    if noted.reason is not None:
        excuses.append(noted.reason)
    return excuses


class PiecesByRow:
    """The pieces of the host (None) and of each GPU, while windows are added in order of time.

    Nearly all windows are up throughout, and of all GPUs alike. Such windows that follow each other
    are one piece, which the rows share; a month of 44,640 pings is then quickly gone through.
    """

    def __init__(self) -> None:
        self._rows: dict[str | None, list[Piece]] = {None: []}
        self._run: ReportWindow | None = None

    def add(self, window: ReportWindow, noted: Noted) -> None:
        """Adds a window, and what was noted about its ping."""
        if _is_up_throughout(window):
            if self._run is not None and _continues(self._run, window):
                self._run = _joined_windows(self._run, window)
            else:
                self._end_run()
                self._run = window
            return
        self._end_run()
        self._rows[None] += window_pieces(window, None, noted)
        for uuid in window.gpus:
            self._rows.setdefault(uuid, []).extend(window_pieces(window, uuid, noted))

    def finished(self) -> dict[str | None, list[Piece]]:
        """Returns the pieces of every row."""
        self._end_run()
        return self._rows

    def _end_run(self) -> None:
        run = self._run
        self._run = None
        if run is None:
            return
        piece = Piece(run.interval, run.host)
        self._rows[None].append(piece)
        for uuid in run.gpus:
            self._rows.setdefault(uuid, []).append(piece)


def _is_up_throughout(window: ReportWindow) -> bool:
    host = window.host
    if window.incidents or host.up != host.window:
        return False
    return all(own is host for own in window.gpus.values())


def _continues(run: ReportWindow, window: ReportWindow) -> bool:
    return run.interval.end == window.interval.begin and run.gpus.keys() == window.gpus.keys()


def _joined_windows(run: ReportWindow, window: ReportWindow) -> ReportWindow:
    return ReportWindow(
        ping_seq=run.ping_seq,
        interval=Interval(run.interval.begin, window.interval.end),
        host=Durations(up=run.host.up + window.host.up),
        gpus=run.gpus,
    )


def gap_piece(gap: Gap) -> Piece:
    """Returns the piece of time that no window accounts for."""
    length_ms = gap.interval.length // 1000
    if gap.kind == "history_lost":
        return Piece(gap.interval, Durations(excused=length_ms), 0, ("history_lost",))
    return Piece(gap.interval, Durations(), length_ms, ("unreported",))


def _plain(begin_us: int, end_us: int, state: str, reasons: tuple[str, ...]) -> Piece:
    durations = Durations(**{state: (end_us - begin_us) // 1000})
    return Piece(Interval(begin_us, end_us), durations, 0, reasons)


def drawn_pieces(pieces: Iterable[Piece], period: Interval, grain_us: int) -> list[Piece]:
    """Returns the pieces of a period, so that few are shorter than the grain.

    Pieces that meet and have one state and the same reasons are one. Pieces shorter than the grain
    are summed with their neighbours, until the sum is as long as the grain.
    """
    drawn: list[Piece] = []
    for piece in _alike_joined(pieces, period):
        if drawn and _are_summed(drawn[-1], piece, grain_us):
            drawn[-1] = drawn[-1].joined(piece)
        else:
            drawn.append(piece)
    return drawn


def _are_summed(last: Piece, piece: Piece, grain_us: int) -> bool:
    """Returns whether two pieces meet and both are shorter than the grain."""
    if last.interval.end != piece.interval.begin:
        return False
    return last.interval.length < grain_us and piece.interval.length < grain_us


def _alike_joined(pieces: Iterable[Piece], period: Interval) -> Iterator[Piece]:
    last: Piece | None = None
    for whole in pieces:
        if not whole.interval.overlaps(period):
            continue
        piece = whole.within(period)
        if last is None:
            last = piece
        elif last.interval.end == piece.interval.begin and _are_alike(last, piece):
            last = last.joined(piece)
        else:
            yield last
            last = piece
    if last is not None:
        yield last


def _are_alike(one: Piece, other: Piece) -> bool:
    return one.is_plain and other.is_plain and _kind(one) == _kind(other)


def _kind(piece: Piece) -> _Kind:
    states = [bool(getattr(piece.durations, state)) for state in STATES]
    return _Kind((*states, bool(piece.unreported_ms)), piece.reasons)


def in_order(pieces: Iterable[Piece]) -> Sequence[Piece]:
    """Returns pieces in order of time."""
    return sorted(pieces, key=_begin)


def _begin(piece: Piece) -> int:
    return piece.interval.begin
