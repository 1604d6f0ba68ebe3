"""The uptime ledger: the state of every GPU in every millisecond. Payments depend on it.

Pure: samples and clock readings come in, records for the file come out; no clock, no file, no bus.
Ledger time is in integer milliseconds since the first process opened the ledger. Within a boot it
follows BOOTTIME (a suspend counts, steps of the wall clock do not); across a reboot it follows wall
time, and never goes backwards.

The rules, from docs/design/uptime-ledger.md:

- Samples at most 1.5 check intervals apart credit the time between them. Otherwise the time from
  half an interval after the last sample is unknown.
- The time between two processes is unknown, because nobody watched, and so is the time until a
  process has its first sample.
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
    Anchored,
    ConditionChanged,
    CountedUntil,
    Distrusted,
    EventNoted,
    ExpectedGpus,
    GpuForgotten,
    GpuLabelled,
    LedgerCreated,
    ProcessStarted,
    Progress,
    Record,
)
from agentd.ledger.timeline import Condition, ConditionInterval, Timeline, in_state
from agentd.samples import Sample
from bus.contract.durations import Durations, Interval
from bus.contract.messages import GpuState, UnopenedGpu

HUNG = "hung"
STARTING = Condition("unknown", ("starting",), host_wide=True)
NO_SAMPLE = Condition("unknown", ("no-sample",), host_wide=True)
NOT_RUNNING = Condition("unknown", ("not-running",), host_wide=True)
REBOOT = Condition("unknown", ("reboot",), host_wide=True)
UNPROVEN = Condition("unknown", ("ledger-unproven",), host_wide=True)
ABSENT = Condition("unknown", ("absent",), host_wide=True)  # a GPU that is not expected has gone
LONGEST_GAP = 1.5  # check intervals between two samples that credit the time between them
# These failures say that nothing could be looked at, which is no evidence against the GPUs.
FAILURES_WITHOUT_EVIDENCE = frozenset({"permission", "probe-starting", "probe-died"})
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
        self.longest_gap = int(interval * 1000 * LONGEST_GAP)
        self._half_interval = int(interval * 1000 / 2)
        self.limit = limit
        self.expected: tuple[str, ...] = ()
        self.labels: dict[str, Label] = {}
        self.timelines: dict[str, Timeline] = {HOST: Timeline()}
        self.events: deque[EventNoted] = deque(maxlen=MOST_EVENTS)
        self.present: frozenset[str] = frozenset()  # GPUs of the newest sample
        self._sample: Sample | None = None  # the newest of this process
        self.session = ""
        self.boot = ""
        self._resumed_at = 0  # where this process began
        self._proven_from: int | None = None  # what is before it was found unproven
        self.offset: int | None = None  # None before `resume`, when there is no ledger time
        self.progress = Progress(0, created.wall, 0)  # `until` is where the last sample stands
        self.counted_until: int | None = None
        self._waited_until = 0  # how far a check that has not returned was waited for without a gap

    # ---- records ---------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:  # noqa: C901  # one case a kind of record
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
            case Distrusted():
                self._distrust_before(record.at)
            case LedgerCreated():
                self.created = record
            case Anchored():
                pass  # it is for the chain

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
        """Ledger time at this reading of the clocks."""
        if self.offset is None:
            return 0
        return max(self.progress.until, now.boot - self.offset)

    def resume(
        self,
        session: str,
        boot: str,
        now: ClockReading,
    ) -> list[Record]:
        """A process takes over the ledger, in this boot.

        Nobody watched since the last check, and nothing is known until this process has a sample.
        """
        written = self._resume(session, boot, now)
        self._resumed_at = self.position(now)
        return written

    def _resume(
        self,
        session: str,
        boot: str,
        now: ClockReading,
    ) -> list[Record]:
        if self.offset is None:
            started = ProcessStarted(session, boot, now.boot)
            return self._apply_all([started, _change(0, HOST, STARTING)])
        rebooted = boot != self.boot
        reason = REBOOT if rebooted else NOT_RUNNING
        started = ProcessStarted(session, boot, self._offset_at_start(now, rebooted))
        changes = self._changes_to_unknown(self.progress.until, reason)
        written = self._apply_all([started, *changes])
        written += self._apply_all(self._changes_to_starting(self.position(now)))
        progress = self._progress_at(self.position(now), now, self.progress.checks)
        return written + self._apply_all([progress])

    def _changes_to_starting(self, at: int) -> list[Record]:
        changes: list[Record] = []
        for gpu, timeline in self.timelines.items():
            if timeline.current in (NOT_RUNNING, REBOOT):
                changes.append(_change(at, gpu, STARTING))
        return changes

    def _offset_at_start(self, now: ClockReading, rebooted: bool) -> int:
        """The offset that carries ledger time on from where the last process left it."""
        assert self.offset is not None  # noqa: S101  # the caller saw to it
        until = self.progress.until
        boottime_carries_on = not rebooted and now.boot - self.offset >= until
        if boottime_carries_on:
            return self.offset
        # BOOTTIME began anew, and the wall clock may have been set back meanwhile. It is certain
        # that time went on from the last mark by what the new boot has seen.
        by_wall_clock = until + max(now.wall - self.progress.wall, 0)
        certain = max(until, self.counted_until or 0)
        if rebooted:
            certain += now.boot
        return now.boot - max(by_wall_clock, certain)

    def stop(self, now: ClockReading) -> list[Record]:
        """The process ends in good order. The last sample counts for half an interval at most."""
        until = min(self.position(now), self.progress.until + self._half_interval)
        return self._apply_all([self._progress_at(until, now, self.progress.checks)])

    def _progress_at(
        self,
        until: int,
        now: ClockReading,
        checks: int,
    ) -> Progress:
        wall_at_until = now.wall - (self.position(now) - until)
        return Progress(until, wall_at_until, checks)

    def _credited_until(self, now: int) -> int:
        """How far the last sample speaks, when there is no other one until `now`."""
        last_sample = self.progress.until
        if now - last_sample <= self.longest_gap:
            return max(now, last_sample)
        return last_sample + self._half_interval

    def _changes_to_unknown(self, at: int, reason: Condition) -> list[Record]:
        """From `at` on, everything is unknown. An earlier reason for unknown stays."""
        changes: list[Record] = []
        for gpu, timeline in self.timelines.items():
            if timeline.current.state != "unknown":
                changes.append(_change(at, gpu, reason))
        return changes

    def distrust(self) -> list[Record]:
        """What was recorded before this process began cannot be proven, and is unknown from now on.

        What this process saw itself stays.
        """
        if self._proven_from == self._resumed_at:
            return []
        return self._apply_all([Distrusted(self._resumed_at)])

    def _distrust_before(self, at: int) -> None:
        self._proven_from = at
        for gpu, timeline in self.timelines.items():
            self.timelines[gpu] = timeline.since(at, UNPROVEN, self.limit)
        proven = [event for event in self.events if event.at >= at]
        self.events = deque(proven, maxlen=MOST_EVENTS)

    # ---- samples ---------------------------------------------------------------------------------

    def enroll(self, expected: tuple[str, ...]) -> list[Record]:
        """The operator's registry names the expected GPUs; the last sample is judged by them anew.

        An empty tuple means that it does not know them yet.
        """
        if not expected or set(expected) == set(self.expected):
            return []
        written = self._apply_all([ExpectedGpus(expected)])
        if self._sample is not None:
            changes = self._change_records(self._sample, self.progress.until)
            written += self._apply_all(changes)
        return written

    def count(self, until: int) -> list[Record]:
        """A counted report covered the time up to `until`."""
        return self._apply_all([CountedUntil(until)])

    def observe(self, sample: Sample, now: ClockReading) -> list[Record]:
        """Takes in a sample that arrived now.

        A sample older than the last one counts from the last one on.
        """
        began = min(round(sample.at * 1000), now.boot)
        written: list[Record] = []
        arrived = self.position(now)
        at = max(self.progress.until, self.position(ClockReading(began, now.wall)))
        credited_until = self._credited_until(at)
        if credited_until < at:
            written += self._apply_all(self._changes_to_unknown(credited_until, NO_SAMPLE))
        self._sample = sample
        written += self._apply_all(self._label_records(sample))
        self.present = frozenset(gpu.uuid for gpu in sample.gpus[:MOST_GPUS])
        written += self._apply_all(self._change_records(sample, at))
        written += self._apply_all(self._event_records(sample, now))
        until = at  # a sample says what was when its check began
        if _hung(sample):
            until = self._wait_reaches(at, arrived)  # a check that hung hung all the while
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
        if now - reached <= self.longest_gap:
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

        An expected one that was not found is down, not forgotten. Where nothing was looked at, no
        GPU is absent.
        """
        of_expected = Condition("down", ("missing",))
        of_others = ABSENT
        if sample.failure is not None:
            of_expected = _condition_by_failure(sample.failure)
            of_others = Condition("unknown", (sample.failure,), host_wide=True)
        conditions: dict[str, Condition] = {}
        for gpu in self.timelines:
            if gpu != HOST:
                conditions[gpu] = of_others
        for gpu in self.expected:
            conditions[gpu] = of_expected
        for seen in sample.gpus[:MOST_GPUS]:
            reasons = tuple(text[:LONGEST_TEXT] for text in seen.reasons[:MOST_REASONS])
            conditions[seen.uuid] = Condition(seen.state, reasons)
        return conditions

    def _host_condition(
        self,
        conditions: dict[str, Condition],
        failure: str | None,
    ) -> Condition:
        """The worst state of the expected GPUs; unknown where none is expected."""
        reasons: tuple[str, ...] = ()
        if failure is not None:
            reasons = (failure,)
        if not self.expected:
            return Condition("unknown", reasons or ("no-gpu",), host_wide=True)
        state = _worst_state(conditions[gpu].state for gpu in self.expected)
        if state == "up":
            return Condition("up")
        return Condition(state, reasons, host_wide=bool(reasons))

    def _forget_records(self) -> Iterator[Record]:
        """Drops GPUs that are neither expected nor present, oldest first, while too many."""
        too_many = len(self.timelines) - 1 - MOST_GPUS
        if too_many <= 0:
            return
        kept = {HOST, *self.expected, *self.present}
        gone = [gpu for gpu in self.timelines if gpu not in kept]
        for gpu in gone[:too_many]:
            yield GpuForgotten(gpu)

    def _event_records(
        self,
        sample: Sample,
        now: ClockReading,
    ) -> Iterator[Record]:
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
        """Exactly `[since, until)` of a GPU or HOST, in order, as of the time `until`."""
        timeline = self._timeline(gpu)
        cut = self._recorded_until(timeline, Interval(since, until), until)
        yield from timeline.intervals(since, cut)
        if cut < until:
            yield ConditionInterval(cut, until, NO_SAMPLE)

    def durations(
        self,
        gpu: str,
        interval: Interval,
        now: int,
    ) -> Durations:
        """The time of a GPU or HOST in each state within the interval, as of the time `now`."""
        timeline = self._timeline(gpu)
        cut = self._recorded_until(timeline, interval, now)
        unknown = Durations(unknown=interval.end - cut)
        return timeline.durations(interval.begin, cut) + unknown

    def worst_durations(
        self,
        gpus: Iterable[str],
        interval: Interval,
        now: int,
    ) -> Durations:
        """The time in which the worst of these GPUs was in each state, as of the time `now`.

        For a time in which other GPUs were expected than now; all of it is unknown for no GPU.
        """
        changes: list[tuple[int, str, GpuState]] = [(interval.end, "", "unknown")]
        states: dict[str, GpuState] = {}
        for gpu in gpus:
            states[gpu] = "unknown"
            timeline = self._timeline(gpu)
            cut = self._recorded_until(timeline, interval, now)
            for known in timeline.intervals(interval.begin, cut):
                changes.append((known.since, gpu, known.condition.state))
            changes.append((cut, gpu, "unknown"))
        total = Durations()
        at = interval.begin
        for changed_at, gpu, state in sorted(changes):
            total += in_state(_worst_state(states.values()), changed_at - at)
            at = changed_at
            if gpu:
                states[gpu] = state
        return total

    def _timeline(self, gpu: str) -> Timeline:
        return self.timelines.get(gpu) or Timeline()

    def _recorded_until(
        self,
        timeline: Timeline,
        interval: Interval,
        now: int,
    ) -> int:
        """How far the timeline speaks for the interval, when there is no sample until `now`."""
        if timeline.current.state == "unknown":
            return interval.end
        return min(interval.end, max(interval.begin, self._credited_until(now)))

    def condition_at(self, gpu: str, now: int) -> Condition:
        """The present condition, when there is no sample until `now`."""
        if gpu not in self.timelines:
            return NO_SAMPLE
        current = self.timelines[gpu].current
        if self._credited_until(now) < now and current.state != "unknown":
            return NO_SAMPLE
        return current

    def rebooted_at(self, since: int, now: int) -> int | None:
        """Where in `[since, now)` the first time begins that is unknown for a reboot, if any."""
        for interval in self._timeline(HOST).intervals(since, now):
            if interval.condition == REBOOT:
                return interval.since
        return None

    def failure_at(self, now: int) -> str | None:
        """Why no GPU can be looked at; None when the newest sample looked and still holds."""
        if self._sample is None:
            return STARTING.reasons[0]
        if self._credited_until(now) < now:
            return NO_SAMPLE.reasons[0]
        return self._sample.failure

    @property
    def unopened(self) -> tuple[UnopenedGpu, ...]:
        """The GPUs of the newest sample that have no UUID to read."""
        if self._sample is None:
            return ()
        return self._sample.unopened

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


def _worst_state(states: Iterable[GpuState]) -> GpuState:
    """The state of a host with GPUs in these states; unknown where there is none."""
    found = set(states)
    for state in _HOST_STATES_WORST_FIRST:
        if state in found:
            return state
    return "up" if found else "unknown"


def _condition_by_failure(failure: str) -> Condition:
    """The condition of an expected GPU while no GPU can be looked at."""
    if failure in FAILURES_WITHOUT_EVIDENCE:
        return Condition("unknown", (failure,), host_wide=True)
    return Condition("down", (failure,), host_wide=True)


def _hung(sample: Sample) -> bool:
    if sample.failure == HUNG:
        return True
    return any(HUNG in gpu.reasons for gpu in sample.gpus)
