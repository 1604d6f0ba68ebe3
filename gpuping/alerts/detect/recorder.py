"""Records what findings change: conditions and changes together, each change once.

The conditions of a thing and the changes that follow are one atomic batch, on the condition that
nobody has changed those conditions meanwhile. An outcome that is read again, by this process after
a crash or by another one, therefore changes nothing.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from bus.clock import utc_now
from bus.contract import subjects
from bus.transport.batch import MAX_MESSAGES, Write
from gpuping.alerts.board import Board, put
from gpuping.alerts.detect.findings import (
    AT_ONCE,
    Findings,
    Moment,
    Subject,
    Transition,
    advance,
)


class _Pending(NamedTuple):
    subject: Subject
    findings: Findings
    moment: Moment
    delay: timedelta
    writes: list[Write]


class Recorder:
    """Collects findings into batches. Call `flush` at the end of a turn."""

    def __init__(self, board: Board, on_recorded: Callable[[int], None]) -> None:
        self._board = board
        self._on_recorded = on_recorded
        self._pending: dict[str, _Pending] = {}
        self._size = 0

    async def add(
        self,
        subject: Subject,
        findings: Findings,
        moment: Moment,
        delay: timedelta = AT_ONCE,
    ) -> None:
        """Takes findings, in the order in which they were found. Raises BusError."""
        key = subjects.condition_key(subject.source, subject.name)
        if key in self._pending:
            await self.flush()
        writes = self._writes(key, subject, findings, moment, delay)
        if not writes:
            return
        if self._size + len(writes) > MAX_MESSAGES:
            await self.flush()
        self._pending[key] = _Pending(subject, findings, moment, delay, writes)
        self._size += len(writes)

    async def flush(self) -> None:
        """Returns when everything is recorded, by this process or another. Raises BusError."""
        while self._pending:
            batch: list[Write] = []
            for pending in self._pending.values():
                batch += pending.writes
            if await self._board.write(batch):
                self._on_recorded(len(batch) - len(self._pending))
                break
            self._again()
        self._pending.clear()
        self._size = 0

    def drop(self) -> None:
        """Forgets what was not recorded; it is found again."""
        self._pending.clear()
        self._size = 0

    def _again(self) -> None:
        """Another process was first with some of it: what is left is worked out anew."""
        left: dict[str, _Pending] = {}
        for key, pending in self._pending.items():
            writes = self._writes(
                key, pending.subject, pending.findings, pending.moment, pending.delay
            )
            if writes:
                left[key] = pending._replace(writes=writes)
        self._pending = left

    def _writes(
        self,
        key: str,
        subject: Subject,
        findings: Findings,
        moment: Moment,
        delay: timedelta,
    ) -> list[Write]:
        kept = self._board.conditions.get(key)
        before = None
        if kept is not None:
            before = kept.value
            is_old = 0 < subject.position <= before.position
            if is_old and not findings.is_gone:
                return []  # recorded already
        transition: Transition | None = advance(before, subject, findings, moment, delay)
        if transition is None:
            return []
        writes = [put(key, transition.after, kept)]
        for change in transition.changes[: MAX_MESSAGES - 1]:
            writes.append(put(subjects.change_key(change.change_id), change, None))
        return writes


def moment_now() -> Moment:
    """Something that is found now."""
    now = utc_now()
    return Moment(now, now)
