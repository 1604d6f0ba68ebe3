"""The uptime ledger: the state of every GPU in every millisecond. Payments depend on it.

Pure: samples and clock readings come in, records for the file come out; no clock, no file, no bus.
Ledger time is in integer milliseconds since the ledger's first sample. Within a boot it follows
BOOTTIME (a suspend counts, steps of the wall clock do not); across a reboot it follows wall time,
and never goes backwards.

The rules, from docs/design/uptime-ledger.md:

- A sample holds from when its check began until the next one, but for at most 1.5 check intervals.
  The time beyond that is unknown, and so is the time between two processes, because nobody watched.
- A probe that hangs is evidence: the GPUs are down from when the check that hung began until it is
  given up.
- The host is down if any expected GPU is down, up while all are up, and degraded while all are up
  or degraded.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from agentd.ledger.records import (
    HOST,
    ConditionChanged,
    CountedUntil,
    EventNoted,
    ExpectedGpus,
    GpuForgotten,
    GpuLabelled,
    LedgerCreated,
    ProcessStarted,
    Progress,
    Record,
)
from agentd.ledger.timeline import Condition, ConditionInterval, Timeline
from agentd.samples import Sample
from bus.contract.durations import Durations
from bus.contract.messages import GpuState

HUNG = "hung"
NO_SAMPLE = Condition("unknown", ("no-sample",), host_wide=True)
NOT_RUNNING = Condition("unknown", ("not-running",), host_wide=True)
REBOOT = Condition("unknown", ("reboot",), host_wide=True)
ABSENT = Condition("unknown", ("absent",), host_wide=True)  # a GPU that is not expected has gone
GOOD_FOR = 1.5  # check intervals for which a sample holds
MOST_GPUS = 256  # kept at once; MIG instances get new names each time they are made
MOST_EVENTS = 200
MOST_REASONS = 8
LONGEST_TEXT = 64

_HOST_STATES_WORST_FIRST: tuple[GpuState, ...] = ("down", "unknown", "degraded")


class ClockReading(NamedTuple):
    """Both clocks, read together, in milliseconds: BOOTTIME and the Unix epoch."""

    boot: int
    wall: int


class Label(Struct, frozen=True):
    """A GPU's present index and name."""

    index: int | None
    name: str


class Ledger:
    """Rebuild it with `apply`, call `resume` once, then `observe` samples.

    `resume` and `observe` return the records to write to the file.
    """

    def __init__(
        self,
        created: LedgerCreated,
        *,
        interval: float,
        limit: int,
    ) -> None:
        """`interval`: seconds between checks. `limit`: intervals kept in each timeline."""
        self.created = created
        self.good_for = int(interval * 1000 * GOOD_FOR)
        self.limit = limit
        self.expected: tuple[str, ...] = ()
        self.labels: dict[str, Label] = {}
        self.timelines: dict[str, Timeline] = {HOST: Timeline()}
        self.events: deque[EventNoted] = deque(maxlen=MOST_EVENTS)
        self.present: frozenset[str] = frozenset()  # GPUs of the newest sample
        self.session = ""
        self.boot = ""
        self.offset: int | None = None  # None before the first sample, when there is no ledger time
        self.progress = Progress(0, created.wall, 0)
        self.counted_until: int | None = None
        self.good_until = 0
        self._waited_until = 0  # how far a check that has not returned was waited for without a gap

    # ---- records ---------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Takes in one record; the same records in the same order make the same ledger."""
        match record:
            case ConditionChanged():
                timeline = self.timelines.setdefault(record.gpu, Timeline())
                condition = Condition(record.state, record.reasons, record.host_wide)
                timeline.set(record.at, condition, self.limit)
            case Progress():
                self.progress = record
            case ProcessStarted():
                self.session = record.session
                self.boot = record.boot
                self.offset = record.offset
            case ExpectedGpus():
                self.expected = record.uuids
            case GpuLabelled():
                self.labels[record.uuid] = Label(record.index, record.name)
            case GpuForgotten():
                self.timelines.pop(record.uuid, None)
                self.labels.pop(record.uuid, None)
            case EventNoted():
                self.events.append(record)
            case CountedUntil():
                self.counted_until = record.at
            case LedgerCreated():
                self.created = record

    def records(self) -> Iterator[Record]:
        """The shortest list of records that makes this ledger again."""
        yield self.created
        if self.offset is not None:
            yield ProcessStarted(self.session, self.boot, self.offset)
        yield ExpectedGpus(self.expected)
        for uuid, label in self.labels.items():
            yield GpuLabelled(uuid, label.index, label.name)
        for gpu, timeline in self.timelines.items():
            for at, condition in timeline.changes():
                yield _change(at, gpu, condition)
        yield from self.events
        if self.counted_until is not None:
            yield CountedUntil(self.counted_until)
        yield self.progress

    def _apply_all(self, records: Iterable[Record]) -> list[Record]:
        """Applies each record before the next one is generated, which may depend on it."""
        applied = []
        for record in records:
            self.apply(record)
            applied.append(record)
        return applied

    # ---- time ------------------------------------------------------------------------------------

    def position(self, now: ClockReading) -> int:
        """Ledger time at this reading of the clocks; 0 before the first sample."""
        if self.offset is None:
            return 0
        return max(self.progress.until, now.boot - self.offset)

    def resume(
        self,
        session: str,
        boot: str,
        now: ClockReading,
    ) -> list[Record]:
        """A process takes over the ledger, in this boot. Nobody watched since the last check."""
        self.session = session
        if self.offset is None:
            self.boot = boot
            return []
        self.good_until = self.progress.until
        rebooted = boot != self.boot
        reason = REBOOT if rebooted else NOT_RUNNING
        started = ProcessStarted(session, boot, self._offset_at_start(now, rebooted))
        return self._apply_all([started, *self._changes_to_unknown(reason)])

    def _offset_at_start(self, now: ClockReading, rebooted: bool) -> int:
        """The offset that carries ledger time on from where the last process left it."""
        assert self.offset is not None  # noqa: S101  # the caller saw to it
        until = self.progress.until
        boottime_carries_on = not rebooted and now.boot - self.offset >= until
        if boottime_carries_on:
            return self.offset
        # BOOTTIME began anew, and the wall clock may have been set back meanwhile
        gap = max(now.wall - self.progress.wall, 0)
        if rebooted:
            gap = max(gap, now.boot)
        position = max(until + gap, self.counted_until or 0)
        return now.boot - position

    def stop(self, now: ClockReading) -> list[Record]:
        """The process ends in good order: the last sample held until now."""
        until = min(self.position(now), self._holds_until)
        return self._apply_all([self._progress_at(until, now, self.progress.checks)])

    def _progress_at(
        self,
        until: int,
        now: ClockReading,
        checks: int,
    ) -> Progress:
        wall_at_until = now.wall - (self.position(now) - until)
        return Progress(until, wall_at_until, checks)

    @property
    def _holds_until(self) -> int:
        return max(self.progress.until, self.good_until)

    def _changes_to_unknown(self, reason: Condition) -> list[Record]:
        """From the end of the last sample on, everything is unknown.

        An earlier reason for unknown stays.
        """
        changes: list[Record] = []
        for gpu, timeline in self.timelines.items():
            if timeline.current.state != "unknown":
                changes.append(_change(self._holds_until, gpu, reason))
        return changes

    # ---- samples ---------------------------------------------------------------------------------

    def enroll(self, expected: tuple[str, ...]) -> list[Record]:
        """The registry names the expected GPUs.

        An empty tuple means that it does not know them yet.
        """
        if not expected or set(expected) == set(self.expected):
            return []
        return self._apply_all([ExpectedGpus(expected)])

    def count(self, until: int) -> list[Record]:
        """A counted report covered the time up to `until`."""
        return self._apply_all([CountedUntil(until)])

    def observe(self, sample: Sample, now: ClockReading) -> list[Record]:
        """Takes in a sample that arrived now.

        A sample older than the last one counts from the last one on.
        """
        began = min(round(sample.at * 1000), now.boot)
        written: list[Record] = []
        if self.offset is None:
            written += self._apply_all([ProcessStarted(self.session, self.boot, began)])
        arrived = self.position(now)
        at = max(self.progress.until, self.position(ClockReading(began, now.wall)))
        if at > self._holds_until:
            written += self._apply_all(self._changes_to_unknown(NO_SAMPLE))
        written += self._apply_all(self._label_records(sample))
        self.present = frozenset(gpu.uuid for gpu in sample.gpus[:MOST_GPUS])
        written += self._apply_all(self._change_records(sample, at))
        written += self._apply_all(self._event_records(sample, now))
        until = at  # a sample says what was when its check began
        if _hung(sample):
            until = self._wait_reaches(at, arrived)  # a check that hung hung all the while
        self.good_until = until + self.good_for
        written += self._apply_all(self._forget_records())
        written += self._apply_all([self._progress_at(until, now, self.progress.checks + 1)])
        return written

    def wait(self, began: float, now: ClockReading) -> None:
        """The check that began at `began` (BOOTTIME, seconds) has not returned; we still wait."""
        since = self.position(ClockReading(round(began * 1000), now.wall))
        self._waited_until = self._wait_reaches(since, self.position(now))

    def _wait_reaches(self, since: int, now: int) -> int:
        """How far a wait reaches: until now, unless this process was stopped meanwhile."""
        reached = max(since, self._waited_until)
        if now - reached <= self.good_for:
            return now
        return reached

    def _label_records(self, sample: Sample) -> Iterator[Record]:
        gpus = sample.gpus[:MOST_GPUS]
        if not self.expected and gpus:
            yield ExpectedGpus(tuple(gpu.uuid for gpu in gpus))
        for gpu in gpus:
            label = Label(gpu.index, gpu.name[:LONGEST_TEXT])
            if self.labels.get(gpu.uuid) != label:
                yield GpuLabelled(gpu.uuid, label.index, label.name)

    def _change_records(self, sample: Sample, at: int) -> Iterator[Record]:
        conditions = self._conditions(sample)
        conditions[HOST] = self._host_condition(conditions, sample.failure)
        for gpu, condition in conditions.items():
            timeline = self.timelines.get(gpu)
            if not timeline or timeline.current != condition:
                yield _change(at, gpu, condition)

    def _conditions(self, sample: Sample) -> dict[str, Condition]:
        """Of every GPU that is known or expected.

        An expected one that was not found is down, not forgotten.
        """
        conditions: dict[str, Condition] = {}
        for gpu in self.timelines:
            if gpu != HOST:
                conditions[gpu] = ABSENT
        not_found = Condition("down", ("missing",))
        if sample.failure is not None:
            not_found = Condition("down", (sample.failure,), host_wide=True)
        for gpu in self.expected:
            conditions[gpu] = not_found
        for seen in sample.gpus[:MOST_GPUS]:
            reasons = tuple(text[:LONGEST_TEXT] for text in seen.reasons[:MOST_REASONS])
            conditions[seen.uuid] = Condition(seen.state, reasons)
        return conditions

    def _host_condition(self, conditions: dict[str, Condition], failure: str | None) -> Condition:
        """The worst state of the expected GPUs; unknown where none is expected."""
        reasons: tuple[str, ...] = ()
        if failure is not None:
            reasons = (failure,)
        if not self.expected:
            return Condition("unknown", reasons or ("no-gpu",), host_wide=True)
        states = {conditions[gpu].state for gpu in self.expected}
        for state in _HOST_STATES_WORST_FIRST:
            if state in states:
                return Condition(state, reasons, host_wide=bool(reasons))
        return Condition("up")

    def _forget_records(self) -> Iterator[Record]:
        """Drops GPUs that are neither expected nor present, oldest first, while too many."""
        too_many = len(self.timelines) - 1 - MOST_GPUS
        if too_many <= 0:
            return
        kept = {HOST, *self.expected, *self.present}
        gone = [gpu for gpu in self.timelines if gpu not in kept]
        for gpu in gone[:too_many]:
            yield GpuForgotten(gpu)

    def _event_records(self, sample: Sample, now: ClockReading) -> Iterator[Record]:
        for event in sample.events[:MOST_EVENTS]:
            happened = min(round(event.at * 1000), now.boot)
            at = self.position(ClockReading(happened, now.wall))
            yield EventNoted(at, event.uuid or HOST, event.reason[:LONGEST_TEXT])

    # ---- reading ---------------------------------------------------------------------------------

    def intervals(
        self,
        gpu: str,
        since: int,
        until: int,
    ) -> Iterator[ConditionInterval]:
        """Exactly `[since, until)` of a GPU or HOST, in order; unknown past its last sample."""
        timeline = self._timeline(gpu)
        cut = self._recorded_until(timeline, since, until)
        yield from timeline.intervals(since, cut)
        if cut < until:
            yield ConditionInterval(cut, until, NO_SAMPLE)

    def durations(
        self,
        gpu: str,
        since: int,
        until: int,
    ) -> Durations:
        """The time of a GPU or HOST in each state within `[since, until)`."""
        timeline = self._timeline(gpu)
        cut = self._recorded_until(timeline, since, until)
        return timeline.durations(since, cut) + Durations(unknown=until - cut)

    def _timeline(self, gpu: str) -> Timeline:
        return self.timelines.get(gpu) or Timeline()

    def _recorded_until(
        self,
        timeline: Timeline,
        since: int,
        until: int,
    ) -> int:
        """How far the timeline covers `[since, until)`: to where its last sample ends."""
        if timeline.current.state == "unknown":
            return until
        return min(until, max(since, self._holds_until))

    def condition_at(self, gpu: str, at: int) -> Condition:
        """The condition at `at`, which must be no earlier than the last change."""
        if gpu not in self.timelines:
            return NO_SAMPLE
        current = self.timelines[gpu].current
        if at > self._holds_until and current.state != "unknown":
            return NO_SAMPLE
        return current

    def interval_count(self) -> int:
        """Intervals kept, of all timelines together."""
        return sum(len(timeline) for timeline in self.timelines.values())


def _change(
    at: int,
    gpu: str,
    condition: Condition,
) -> ConditionChanged:
    return ConditionChanged(
        at,
        gpu,
        condition.state,
        condition.reasons,
        condition.host_wide,
    )


def _hung(sample: Sample) -> bool:
    if sample.failure == HUNG:
        return True
    return any(HUNG in gpu.reasons for gpu in sample.gpus)
