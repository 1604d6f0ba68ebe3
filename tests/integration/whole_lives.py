"""Lives of hosts from the ledger of agentd to the statement, against an oracle.

A life is lived with agentd's real ledger and the scheduler's real windows, by
tests/unit/host_lives.py.
The oracle reads the outcomes that history keeps and paints the time line that
docs/design/uptime-ledger.md describes; it shares no arithmetic with the product.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bus.contract.messages import AgentState, Enrolment, GpuChange
from tests.unit.host_lives import Findings, Kind, LifeRun

MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATES = ("up", "degraded", "down", "unknown", "excused")
_SHM = Path("/dev/shm")  # noqa: S108  # mkdtemp makes names there that nobody can guess
MEMORY = _SHM if _SHM.is_dir() else None
# Lives begin shortly before an edge of a month, a leap day, or a change of the hour in some zone.
EDGES = (
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
    datetime(2027, 3, 1, tzinfo=UTC),
    datetime(2027, 3, 28, 1, tzinfo=UTC),
    datetime(2028, 2, 29, tzinfo=UTC),
    datetime(2028, 3, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
)


class WholeLife(NamedTuple):
    """What the scheduler wrote of an agent, what of it reaches history, and the enrolments."""

    agent_id: str
    kind: Kind
    states: list[AgentState]
    kept: list[AgentState]
    enrolments: list[Enrolment]
    gpu_changes: tuple[GpuChange, ...]


class Stretch(NamedTuple):
    """Time on the oracle's line, in milliseconds since 1970.

    `row` has the five durations of a window, `gpus` those of each GPU; None where no window
    accounts for the time, which is `lost` on our side, or else unreported.
    """

    begin: int
    end: int
    row: tuple[int, ...] | None = None
    lost: bool = False
    gpus: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    def within(self, begin: int, end: int) -> int:
        """How much of it lies within a time."""
        return max(0, min(self.end, end) - max(self.begin, begin))


def lived(kind: Kind, seed: int, lost_share: float) -> WholeLife:
    """A life that begins within its own length before one of the edges."""
    agent_id = f"host-{seed}"
    name = f"{kind.name} {seed}"
    dice = random.Random(name)
    length = timedelta(milliseconds=kind.windows * sum(kind.pause) // 2)
    begin = dice.choice(EDGES) - dice.random() * length
    placed = kind._replace(calendar=begin - timedelta(microseconds=begin.microsecond))
    folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="gpuping-life-"))
    try:
        run = LifeRun(placed, name, folder, Findings(), agent_id)
        run.live()
    finally:
        shutil.rmtree(folder)
    assert run.findings.refused == 0, run.findings.refused_where
    assert run.findings.worst <= 0, run.findings.worst_where
    kept = [state for state in run.states if dice.random() >= lost_share]
    assert run.tracked.entry
    changes = run.tracked.entry.gpu_changes
    return WholeLife(agent_id, placed, run.states, kept, run.enrolments, changes)


def ms(at: datetime) -> int:
    return (at - EPOCH) // MILLISECOND


def painted(life: WholeLife, awaited_until: int | None = None) -> list[Stretch]:
    """The enrolled time that history tells of, in order and without overlap.

    The outcomes of pings at `awaited_until` or later are left out.
    """
    line: list[Stretch] = []
    for enrolment in life.enrolments:
        line += _of_enrolment(life, enrolment, awaited_until)
    return line


def _of_enrolment(
    life: WholeLife, enrolment: Enrolment, awaited_until: int | None
) -> Iterator[Stretch]:
    begin = ms(enrolment.since)
    missed = begin
    for state in life.kept:
        last = state.last
        is_late = awaited_until is not None and ms(last.pinged_at) >= awaited_until
        if last.enrolled_at != enrolment.since or is_late:
            continue
        assert last.since is not None
        since, pinged = ms(last.since), ms(last.pinged_at)
        if since > begin:  # the answer at which this window begins never reached history
            yield Stretch(begin, since, lost=True)
            begin = missed = since
        if last.outcome == "answered":
            assert last.seconds is not None
            row = milliseconds_of(last.seconds)
            gpus = {gpu.uuid: milliseconds_of(gpu.seconds) for gpu in last.gpus}
            if not gpus:  # all are as the host
                told = json.loads(bytes(last.report))
                gpus = {gpu["uuid"]: row for gpu in told["gpus"]}
            yield Stretch(begin, pinged, row, gpus=gpus)
            begin = missed = pinged
        elif last.outcome == "missed":
            missed = max(missed, pinged)
    if missed > begin:
        yield Stretch(begin, missed)


def milliseconds_of(seconds: object) -> tuple[int, ...]:
    """The five durations of a message."""
    return tuple(round(getattr(seconds, state) * 1000) for state in STATES)


def expected_ms(life: WholeLife, uuid: str, begin: int, end: int) -> int:
    """How long a GPU was expected between two moments, by the operator's changes."""
    changes = [change for change in life.gpu_changes if change.uuid == uuid]
    is_expected = not changes or not changes[0].expected
    total = 0
    for change in changes:
        at = min(max(ms(change.since), begin), end)
        total += at - begin if is_expected else 0
        begin = at
        is_expected = change.expected
    return total + (end - begin if is_expected else 0)


def months_of(line: list[Stretch]) -> dict[str, tuple[int, int]]:
    """The calendar months that a line touches: begin and end of each."""
    months = {}
    if line:
        at = (EPOCH + line[0].begin * MILLISECOND).replace(day=1, hour=0, minute=0, second=0)
        at = at.replace(microsecond=0)
        while ms(at) < line[-1].end:
            following = (at + timedelta(days=32)).replace(day=1)
            months[f"{at:%Y-%m}"] = (ms(at), ms(following))
            at = following
    return months
