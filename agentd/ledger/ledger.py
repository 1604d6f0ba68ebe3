"""The uptime ledger: what became of every millisecond of every GPU. Somebody is paid, or not, by this.

Pure: samples and moments come in, records for the file come out; no clock, no file, no bus. Ledger time is
in integer milliseconds since the ledger's first sample. Within a boot it goes with BOOTTIME (a suspend
counts, clock steps do not); across a reboot it goes on by wall time, never backwards. The rules, from
docs/design/uptime-ledger.md:

- a sample holds from when its check began until the next one, but at most 1.5 check intervals; what lies
  beyond is unknown, and so is the time between two processes: nobody watched;
- a probe that hangs is evidence: down from when the check that hung began until it is given up;
- the host is down if any expected GPU is down, up while all are up, degraded while all are up or degraded.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agentd.ledger.records import (
    HOST,
    Began,
    Change,
    Counted,
    Expected,
    Forgot,
    Known,
    Noted,
    Record,
    Resumed,
    Seen,
)
from agentd.ledger.timeline import Kind, Piece, Sums, Timeline
from agentd.samples import Sample

HUNG = "hung"
NO_SAMPLE = Kind("unknown", ("no-sample",), wide=True)
NOT_RUNNING = Kind("unknown", ("not-running",), wide=True)
REBOOT = Kind("unknown", ("reboot",), wide=True)
ABSENT = Kind("unknown", ("absent",), wide=True)  # a GPU that nobody expects has gone: no incident
GOOD_FOR = 1.5  # check intervals that a sample holds
MOST_GPUS = 256  # kept at once; MIG instances get new names each time they are made
MOST_EVENTS = 200
MOST_REASONS, LONGEST_TEXT = 8, 64


class Moment(NamedTuple):
    """Both clocks, read together, in milliseconds: BOOTTIME and the Unix epoch."""

    boot: int
    wall: int


class Label(NamedTuple):
    """What a GPU is called for now."""

    number: int | None
    name: str


class Ledger:
    """Give it its records (`apply`), `resume` it once, then `observe` samples; each returns what to write down."""

    def __init__(self, began: Began, *, interval: float, limit: int) -> None:
        """`interval`: seconds between checks; `limit`: intervals kept per timeline (AGENT_MAX_HISTORY_SIZE)."""
        self.began = began
        self.good_for = int(interval * 1000 * GOOD_FOR)
        self.limit = limit
        self.expected: tuple[str, ...] = ()
        self.labels: dict[str, Label] = {}
        self.timelines: dict[str, Timeline] = {HOST: Timeline()}
        self.events: deque[Noted] = deque(maxlen=MOST_EVENTS)
        self.present: frozenset[str] = frozenset()  # GPUs of the newest sample
        self.session, self.boot = "", ""
        self.offset: int | None = None  # None: no sample yet, so no time yet
        self.known = Known(0, began.wall, 0)
        self.counted: int | None = None
        self.good_until = 0
        self._watched = 0  # how far a check that has not returned was waited for without a break

    # ---- records ---------------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Takes in one record; the same ones in the same order make the same ledger."""
        match record:
            case Change():
                timeline = self.timelines.setdefault(record.gpu, Timeline())
                timeline.set(record.at, Kind(record.state, record.reasons, record.wide), self.limit)
            case Known():
                self.known = record
            case Resumed():
                self.session, self.boot, self.offset = record.session, record.boot, record.offset
            case Expected():
                self.expected = record.uuids
            case Seen():
                self.labels[record.uuid] = Label(record.index, record.name)
            case Forgot():
                self.timelines.pop(record.uuid, None)
                self.labels.pop(record.uuid, None)
            case Noted():
                self.events.append(record)
            case Counted():
                self.counted = record.at
            case Began():
                self.began = record

    def records(self) -> Iterator[Record]:
        """The shortest records that make this ledger again."""
        yield self.began
        if self.offset is not None:
            yield Resumed(self.session, self.boot, self.offset)
        yield Expected(self.expected)
        yield from (Seen(uuid, *label) for uuid, label in self.labels.items())
        for gpu, timeline in self.timelines.items():
            yield from (Change(at, gpu, *kind) for at, kind in timeline.changes())
        yield from self.events
        if self.counted is not None:
            yield Counted(self.counted)
        yield self.known

    def _applied(self, records: Iterable[Record]) -> list[Record]:
        done = []
        for record in records:
            self.apply(record)
            done.append(record)
        return done

    # ---- time ------------------------------------------------------------------------------------------

    def position(self, now: Moment) -> int:
        """Ledger time at this moment; 0 before the first sample."""
        return 0 if self.offset is None else max(self.known.until, now.boot - self.offset)

    def resume(self, session: str, boot: str, now: Moment) -> list[Record]:
        """A process takes the ledger up, on this boot. What passed since the last check, nobody watched."""
        self.session = session
        if self.offset is None:
            self.boot = boot
            return []
        known, reboot = self.known, boot != self.boot
        offset = self.offset
        if (
            reboot or now.boot - offset < known.until
        ):  # BOOTTIME began anew; the wall clock may have been set back
            gap = max(now.wall - known.wall, now.boot if reboot else 0, 0)
            offset = now.boot - max(known.until + gap, self.counted or 0)
        self.good_until = known.until
        return self._applied(
            [Resumed(session, boot, offset), *self._lost(REBOOT if reboot else NOT_RUNNING)]
        )

    def stop(self, now: Moment) -> list[Record]:
        """The process ends in good order: the last sample held until now."""
        until = min(self.position(now), self._holds_until)
        return self._applied([self._known(until, now, self.known.checks)])

    def _known(self, until: int, now: Moment, checks: int) -> Known:
        return Known(until, now.wall - (self.position(now) - until), checks)

    @property
    def _holds_until(self) -> int:
        return max(self.known.until, self.good_until)

    def _lost(self, why: Kind) -> list[Record]:
        """From where the last sample ended nothing is known of anything; an earlier reason stands."""
        gone = [
            gpu for gpu, timeline in self.timelines.items() if timeline.current.state != "unknown"
        ]
        return [Change(self._holds_until, gpu, *why) for gpu in gone]

    # ---- samples ---------------------------------------------------------------------------------------

    def enroll(self, expected: tuple[str, ...]) -> list[Record]:
        """The registry's word on which GPUs are expected. An empty one says that it does not know yet."""
        if not expected or set(expected) == set(self.expected):
            return []
        return self._applied([Expected(expected)])

    def count(self, until: int) -> list[Record]:
        """A counted report covered the time up to `until`."""
        return self._applied([Counted(until)])

    def observe(self, sample: Sample, now: Moment) -> list[Record]:
        """Takes in a sample that arrived now. A sample out of order counts from the last one on."""
        began = min(round(sample.at * 1000), now.boot)
        done: list[Record] = []
        if self.offset is None:
            done += self._applied([Resumed(self.session, self.boot, began)])
        arrived = self.position(now)
        at = max(self.known.until, self.position(Moment(began, now.wall)))
        if at > self._holds_until:
            done += self._applied(self._lost(NO_SAMPLE))
        done += self._applied(self._labels(sample))
        self.present = frozenset(gpu.uuid for gpu in sample.gpus[:MOST_GPUS])
        done += self._applied(self._changes(sample, at))
        done += self._applied(self._notes(sample, now))
        # a check that hung was waited for all the while; any other sample speaks for when it began
        until = self._waited(at, arrived) if _hung(sample) else at
        self.good_until = until + self.good_for
        done += self._applied(self._forgotten())
        return [*done, *self._applied([self._known(until, now, self.known.checks + 1)])]

    def wait(self, began: float, now: Moment) -> None:
        """The check that began then (BOOTTIME, s) has not returned, and this process is there waiting for it."""
        since = self.position(Moment(round(began * 1000), now.wall))
        self._watched = self._waited(since, self.position(now))

    def _waited(self, since: int, now: int) -> int:
        """How far a wait reaches: to now, unless this process itself was stopped meanwhile."""
        reached = max(since, self._watched)
        return now if now - reached <= self.good_for else reached

    def _labels(self, sample: Sample) -> Iterator[Record]:
        if not self.expected and sample.gpus:
            yield Expected(tuple(gpu.uuid for gpu in sample.gpus[:MOST_GPUS]))
        for gpu in sample.gpus[:MOST_GPUS]:
            if self.labels.get(gpu.uuid) != (gpu.index, gpu.name[:LONGEST_TEXT]):
                yield Seen(gpu.uuid, gpu.index, gpu.name[:LONGEST_TEXT])

    def _changes(self, sample: Sample, at: int) -> Iterator[Record]:
        kinds = self._kinds(sample)
        kinds[HOST] = self._host_kind(kinds, sample.failure)
        for gpu, kind in kinds.items():
            timeline = self.timelines.get(gpu)
            if timeline is None or timeline.current != kind or not timeline:
                yield Change(at, gpu, *kind)

    def _kinds(self, sample: Sample) -> dict[str, Kind]:
        """Every GPU that is known or expected. One that is expected and not found is down, not forgotten."""
        kinds = {gpu: ABSENT for gpu in self.timelines if gpu != HOST}
        gone = Kind("down", (sample.failure or "missing",), wide=sample.failure is not None)
        kinds |= dict.fromkeys(self.expected, gone)
        for gpu in sample.gpus[:MOST_GPUS]:
            kinds[gpu.uuid] = Kind(
                gpu.state, tuple(text[:LONGEST_TEXT] for text in gpu.reasons[:MOST_REASONS])
            )
        return kinds

    def _host_kind(self, kinds: dict[str, Kind], failure: str | None) -> Kind:
        reasons = (failure,) if failure else ()
        if not self.expected:  # nothing to be judged by, and nothing that could be up
            return Kind("unknown", reasons or ("no-gpu",), wide=True)
        states = {kinds[gpu].state for gpu in self.expected}
        for state in ("down", "unknown", "degraded"):
            if state in states:
                return Kind(state, reasons, wide=bool(reasons))
        return Kind("up")

    def _forgotten(self) -> Iterator[Record]:
        """GPUs that nobody expects and that have gone, once there are too many of them; the oldest first."""
        gone = [
            gpu
            for gpu in self.timelines
            if gpu not in self.present and gpu not in (HOST, *self.expected)
        ]
        yield from map(Forgot, gone[: max(0, len(self.timelines) - 1 - MOST_GPUS)])

    def _notes(self, sample: Sample, now: Moment) -> Iterator[Record]:
        for event in sample.events[:MOST_EVENTS]:
            at = self.position(Moment(min(round(event.at * 1000), now.boot), now.wall))
            yield Noted(at, event.uuid or HOST, event.reason[:LONGEST_TEXT])

    # ---- reading ---------------------------------------------------------------------------------------

    def pieces(self, gpu: str, since: int, until: int) -> Iterator[Piece]:
        """Exactly `[since, until)` of a GPU or HOST, in order: the timeline, and unknown past its last sample."""
        timeline = self.timelines.get(gpu) or Timeline()
        cut = self._holds(timeline, since, until)
        yield from timeline.pieces(since, cut)
        if cut < until:
            yield Piece(cut, until, NO_SAMPLE)

    def sums(self, gpu: str, since: int, until: int) -> Sums:
        """The same, added up by state."""
        timeline = self.timelines.get(gpu) or Timeline()
        cut = self._holds(timeline, since, until)
        up, degraded, down, unknown = timeline.sums(since, cut)
        return up, degraded, down, unknown + until - cut

    def _holds(self, timeline: Timeline, since: int, until: int) -> int:
        """How far the timeline speaks for `[since, until)`: to where its last sample ran out."""
        return (
            until
            if timeline.current.state == "unknown"
            else min(until, max(since, self._holds_until))
        )

    def now_is(self, gpu: str, at: int) -> Kind:
        """What holds at this very moment."""
        current = self.timelines[gpu].current if gpu in self.timelines else NO_SAMPLE
        return NO_SAMPLE if at > self._holds_until and current.state != "unknown" else current

    def intervals(self) -> int:
        """Intervals kept, of all timelines together."""
        return sum(map(len, self.timelines.values()))


def _hung(sample: Sample) -> bool:
    return sample.failure == HUNG or any(HUNG in gpu.reasons for gpu in sample.gpus)
