"""Answers when each GPU of a host was in which state within a period."""

from typing import NamedTuple

from bus.contract.durations import Interval
from bus.contract.explanations import (
    PingMark,
    Stretch,
    Timeline,
    TimelineRequest,
    TimelineRow,
)
from bus.errors import RefusedError
from storage.engine.partitions import DAY_US
from storage.engine.rows import from_microseconds, microseconds
from storage.explanations.outcome_rows import ExplainedOutcome, read_explained
from storage.explanations.segments import (
    Noted,
    Piece,
    PiecesByRow,
    drawn_pieces,
    gap_piece,
    in_order,
)
from storage.statements.account import UNNAMED
from storage.statements.outcomes import AFTER_US, BEFORE_US, AgentOutcomes, read_outcomes
from storage.statements.windows import PingKey
from storage.store.store import Reader

LONGEST_US = 92 * DAY_US


class _RowKey(NamedTuple):
    """A GPU, or None for the host, and what orders the rows."""

    is_gpu: bool
    has_no_index: bool
    place: int
    uuid: str | None


def timeline(reader: Reader, agent_id: str, request: TimelineRequest) -> Timeline:
    """Returns the timelines.

    Raises RefusedError 400 for a period that is empty or longer than 92 days.
    """
    period = Interval(microseconds(request.since), microseconds(request.until))
    if not 0 < period.length <= LONGEST_US:
        raise RefusedError(400, "until must be after since, and at most 92 days after it")
    agent = reader.names.agents.find(agent_id)
    if agent is None:
        return Timeline(
            agent_id=agent_id,
            since=request.since,
            until=request.until,
            rows=(),
            pings_total=0,
            agent_known=False,
        )
    read = Interval(period.begin - BEFORE_US, period.end + AFTER_US)
    outcomes = read_outcomes(reader, agent, read)
    explained = read_explained(reader, agent, read)
    pings = [one for one in explained if one.pinged_us in period]
    marks: tuple[PingMark, ...] = ()
    if len(pings) <= request.points:
        marks = tuple(map(_mark, pings))
    return Timeline(
        agent_id=agent_id,
        since=request.since,
        until=request.until,
        rows=_rows(outcomes, explained, period, -(-period.length // request.points)),
        pings_total=len(pings),
        pings=marks,
    )


def _rows(
    outcomes: AgentOutcomes,
    explained: list[ExplainedOutcome],
    period: Interval,
    grain_us: int,
) -> tuple[TimelineRow, ...]:
    noted = {PingKey(one.pinged_us, one.ping_seq): Noted(one.reason) for one in explained}
    for outcome in outcomes.rows:
        if outcome.remarks is not None:
            reason = noted.get(outcome.key(), Noted()).reason
            noted[outcome.key()] = Noted(reason, outcome.remark_words())
    collected = PiecesByRow()
    for ping, window in outcomes.windows.items():
        if window.interval.overlaps(period):
            collected.add(window, noted.get(ping, Noted()))
    pieces = collected.finished()
    missing = [gap_piece(gap) for gap in outcomes.gaps()]
    rows = []
    for key in sorted(_key(uuid, outcomes) for uuid in pieces):
        drawn = drawn_pieces(in_order(pieces[key.uuid] + missing), period, grain_us)
        named = outcomes.gpu_names.get(key.uuid or "", UNNAMED)
        row = TimelineRow(
            gpu=key.uuid,
            index=named.index,
            name=named.name,
            stretches=tuple(_stretch(piece, period) for piece in drawn),
        )
        rows.append(row)
    return tuple(rows)


def _key(uuid: str | None, outcomes: AgentOutcomes) -> _RowKey:
    """Orders the host first, then GPUs by index, those without one last."""
    index = outcomes.gpu_names.get(uuid or "", UNNAMED).index
    return _RowKey(uuid is not None, index is None, index or 0, uuid)


def _stretch(piece: Piece, period: Interval) -> Stretch:
    durations = piece.durations
    return Stretch(
        begin_seconds=(piece.interval.begin - period.begin) / 1e6,
        end_seconds=(piece.interval.end - period.begin) / 1e6,
        up=durations.up / 1000,
        degraded=durations.degraded / 1000,
        down=durations.down / 1000,
        unknown=durations.unknown / 1000,
        excused=durations.excused / 1000,
        unreported=piece.unreported_ms / 1000,
        reasons=piece.reasons,
    )


def _mark(one: ExplainedOutcome) -> PingMark:
    return PingMark(
        at=from_microseconds(one.pinged_us),
        ping_seq=one.ping_seq,
        outcome=one.outcome,
        verdict=one.verdict,
        reason=one.reason,
        uptime_percent=one.uptime_percent,
    )
