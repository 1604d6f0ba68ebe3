"""Whole lives of hosts, with agentd's real ledger and the scheduler's real windows.

Only the clocks and the hardware are simulated. True time is in whole milliseconds from the begin of
a life. A life knows what truly happened in it; `Audit` compares each admitted window with that.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import astuple, replace

from agentd.ledger import reports, windows
from agentd.ledger.ledger import ClockReading
from agentd.ledger.store import LedgerStore
from agentd.samples import GpuSample, Sample
from bus import settings
from bus.contract import subjects
from bus.contract.durations import Durations, Interval
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    Enrolment,
    GpuChange,
    PingRequest,
    Span,
    decode,
)
from bus.contract.questions import ExpectGpusRequest
from bus.transport.bus_clock import TOLERANCE_SECONDS, BusClock
from bus.transport.connection import Client
from scheduler.fleet.rules import expected_gpus as gpu_rules
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.admission import OTHER_CLOCK_MS, SAME_CLOCK_MS
from scheduler.ping.accounting.timestamps import milliseconds
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import next_state, writes
from scheduler.ping.outages.bus_monitor import BusMonitor
from scheduler.ping.outages.server_monitor import ServerMonitor
from scheduler.ping.pinger import Pinger, PingLimits
from scheduler.policy import Answered, Missed, PingResult, Policy

TIMEOUT = 10_000
HOUR = 3_600_000
DRIFT = 100e-6
CALENDAR = datetime(2026, 11, 1, tzinfo=UTC)
STATES = ("up", "degraded", "down", "unknown")
BEST_FIRST = ("up", "degraded", "unknown", "down")
KEPT, OLD, NEW = "GPU-kept", "GPU-old", "GPU-new"
Row = list[int]
POLICY = Policy(
    base_seconds=900.0,
    max_seconds=86_400.0,
    multiplier=1.3,
    threshold_percent=95.0,
    recovery_pings=3,
    grace=True,
)


class Kind(NamedTuple):
    """One kind of life. Times are milliseconds, shares are from 0 to 1."""

    name: str
    pause: tuple[int, int] = (60_000, 60_000)  # between two pings
    check: int = 5_000  # between two looks at the GPUs
    slow: float = 0.05  # the share of answers that take up to the time-out, and beyond
    lost: float = 0.02
    troubles: tuple[str, ...] = ("kill", "stop", "reboot", "suspend", "wipe")
    schedulers: int = 1
    step: int = 0  # by which the schedulers' clock is set, once
    server_step: int = 0  # by which the server's clock is set, at the same moment
    outage: bool = False  # of the bus
    booked: bool = False  # maintenance windows
    replaced: bool = False  # a GPU is exchanged, with the operator's word
    toggled: bool = False  # a GPU is forgotten and expected again, several times in a window
    windows: int = 14
    calendar: datetime = CALENDAR  # when lives begin

    def on_calendar(self, at: int) -> datetime:
        """A moment of a life, in milliseconds from its begin, as the operator dates it."""
        return self.calendar + timedelta(milliseconds=at)

    def since_begin(self, at: datetime) -> int:
        """The reverse, rounded down to the millisecond."""
        return milliseconds(at) - milliseconds(self.calendar)


class Trouble(NamedTuple):
    """Nobody watches in `[begin, end)`. `opening` is how long the first look takes afterwards."""

    begin: int
    end: int
    what: str
    opening: int
    clock_error: int  # of the wall clock at the boot that ends it


class Piece(NamedTuple):
    """True states in `[begin, end)`: of the host, the kept, the old and the new GPU."""

    begin: int
    end: int
    states: tuple[str, str, str, str]


class Life:
    """What truly happens, fixed beforehand."""

    def __init__(self, dice: random.Random, kind: Kind) -> None:
        self.kind = kind
        self.pause = sum(kind.pause) // 2
        self.end = kind.windows * self.pause
        self.swap = self.end // 2 if kind.replaced else 4 * self.end
        self.troubles = self._draw_troubles(dice)
        self.changes = [self._draw_changes(dice) for _ in range(3)]
        # When the operator forgets the old GPU, and expects it again, in turn.
        self.toggles = self._draw_toggles(dice) if kind.toggled else []
        self.wall_steps = self._draw_wall_steps(dice)
        self.pieces = list(self._true_pieces())
        self._begins = [piece.begin for piece in self.pieces]

    def _draw_troubles(self, dice: random.Random) -> list[Trouble]:
        troubles = []
        at = dice.randrange(4 * self.pause)
        while self.kind.troubles and at < self.end:
            share = dice.choice((0.02, 0.2, 2.5)) * dice.uniform(0.5, 1.5)
            length = round(self.pause * share) + dice.choice(
                (1, self.kind.check, 2 * self.kind.check)
            )
            what = dice.choice(self.kind.troubles)
            troubles.append(self._trouble(dice, at, at + length, what))
            at += length + dice.randrange(4 * self.pause, 16 * self.pause)
        if self.kind.replaced:
            begin = self.swap - self.pause // 3
            end = self.swap + self.pause // 4
            away = [t for t in troubles if t.end < begin - self.pause or t.begin > end + self.pause]
            troubles = sorted([*away, self._trouble(dice, begin, end, "reboot")])
        return troubles

    def _trouble(self, dice: random.Random, begin: int, end: int, what: str) -> Trouble:
        opening = 0
        if what != "suspend":
            opening = dice.choice((0, 0, 300, 3_000))
        clock_error = 0
        if what == "reboot":
            clock_error = dice.choice((0, 0, -8 * HOUR, 8 * HOUR, -4_000, 4_000))
        return Trouble(begin, end, what, opening, clock_error)

    def _draw_changes(self, dice: random.Random) -> list[tuple[int, str]]:
        """When one GPU changes, and to which state."""
        gap = 6 * self.pause
        at = -HOUR
        changes = [(at, "up")]
        at = 0
        while at < self.end:
            at += dice.randrange(max(1, gap // 20), 2 * gap)
            state = dice.choice(("up", "up", "degraded", "down"))
            if state != changes[-1][1]:
                changes.append((at, state))
        return changes

    def _draw_toggles(self, dice: random.Random) -> list[int]:
        toggles = []
        at = 10_000 + dice.randrange(self.pause)  # after the enrolment
        while at < self.end:
            toggles.append(at)
            at += dice.randrange(1, self.pause // dice.choice((1, 2, 5)))
        return toggles

    def expects_old(self, at: int) -> bool:
        """Whether the old GPU is expected; where GPUs are exchanged, `swap` tells."""
        return bisect_right(self.toggles, at) % 2 == 0

    def _draw_wall_steps(self, dice: random.Random) -> list[tuple[int, int]]:
        """When the host's wall clock is set, and by how much."""
        steps = []
        for trouble in self.troubles:
            if trouble.clock_error:  # NTP puts it right after a while
                at = trouble.end + dice.randrange(3 * self.kind.check)
                steps.append((at, -trouble.clock_error))
        if dice.random() < 0.3:
            steps.append((dice.randrange(self.end), dice.choice((-HOUR, HOUR, -700))))
        return sorted(steps)

    def _true_pieces(self) -> Iterator[Piece]:
        edges = {-HOUR, self.swap, 4 * self.end, *self.toggles}
        for changes in self.changes:
            edges.update(at for at, _ in changes)
        for trouble in self.troubles:
            edges.update((trouble.begin, trouble.end + trouble.opening))
        ordered = sorted(edges)
        for begin, end in pairwise(ordered):
            yield Piece(begin, end, self._states_at(begin))

    def _states_at(self, at: int) -> tuple[str, str, str, str]:
        for trouble in self.troubles:
            if trouble.begin <= at < trouble.end + trouble.opening:
                return ("unknown", "unknown", "unknown", "unknown")
        kept = self.hardware(0, at)
        old = self.hardware(1, at)
        new = self.hardware(2, at)
        second = new if at >= self.swap else old
        host = max(kept, second, key=BEST_FIRST.index)
        if not self.expects_old(at):
            host = kept
        return (host, kept, old, new)

    def hardware(self, gpu: int, at: int) -> str:
        """The state of a GPU, whether or not anybody looks."""
        changes = self.changes[gpu]
        return changes[bisect_right(changes, at, key=lambda change: change[0]) - 1][1]

    def truth(self, since: int, until: int, excused: list[Interval], lost_before: int) -> list[Row]:
        """The milliseconds of up, degraded, down and unknown, and of what is excused, of each row.

        What was before `lost_before` is unknown: the host's disk was wiped then.
        """
        rows = [[0, 0, 0, 0, 0] for _ in range(4)]
        first = max(0, bisect_right(self._begins, since) - 1)
        for piece in self.pieces[first:]:
            if piece.begin >= until:
                break
            for begin, end, is_lost in _split(piece, since, until, lost_before):
                out = sum(span.intersection(Interval(begin, end)).length for span in excused)
                for row, state in zip(rows, piece.states, strict=True):
                    row[3 if is_lost else STATES.index(state)] += end - begin - out
                    row[4] += out
        return rows

    def transitions(self, since: int, until: int) -> int:
        """How many times something changed that a look at the GPUs shows late."""
        return sum(since <= piece.begin <= until for piece in self.pieces)


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """The same time in order, each moment once."""
    found: list[Interval] = []
    for span in sorted(spans, key=lambda span: span.begin):
        if found and span.begin <= found[-1].end:
            found[-1] = Interval(found[-1].begin, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def _split(
    piece: Piece, since: int, until: int, lost_before: int
) -> Iterator[tuple[int, int, bool]]:
    begin = max(piece.begin, since)
    end = min(piece.end, until)
    middle = min(max(begin, lost_before), end)
    if begin < middle:
        yield begin, middle, True
    if middle < end:
        yield middle, end, False


class Host:
    """A machine with agentd on it, advanced from moment to moment of true time."""

    def __init__(
        self, dice: random.Random, life: Life, folder: Path, agent_id: str = "host"
    ) -> None:
        self._life = life
        self._wall_begin = milliseconds(life.kind.calendar)
        self._agent_id = agent_id
        self._settings = settings.load(
            {},
            AGENT_GPU_CHECK_INTERVAL_SECONDS=life.kind.check / 1000,
            AGENT_CHECKPOINT_INTERVAL=100,
        )
        self._path = folder / "host.ledger"
        self._rate = 1 + dice.uniform(-DRIFT, DRIFT)
        self._boot_began = -HOUR
        self._wall_error = dice.choice((0, 0, -30_000, 9 * HOUR))
        self.boots = 1
        self.now = 0
        self._asleep = False
        self._script = sorted(self._scripted())
        self._next_in_script = 0
        self._next_check = 0
        self.looked = False
        self.wiped_at = -1
        self.store: LedgerStore | None = None
        self._start(0)

    def _scripted(self) -> Iterator[tuple[int, int, str, int]]:
        """What happens and when; the second number orders what happens at one moment."""
        for number, trouble in enumerate(self._life.troubles):
            yield trouble.begin, 0, "begin", number
            yield trouble.end, 1, "end", number
        for at, step in self._life.wall_steps:
            yield at, 2, "wall", step

    def clocks(self) -> ClockReading:
        boot = round((self.now - self._boot_began) * self._rate)
        wall = round(self._wall_begin + self.now * self._rate) + self._wall_error
        return ClockReading(boot, wall)

    @property
    def answers(self) -> bool:
        return self.store is not None and not self._asleep

    def first_look_at(self) -> int:
        """When the first look of this process ends; now, where it has ended."""
        return self.now if self.looked else self._next_check

    def advance(self, until: int) -> None:
        """Lets true time pass."""
        while True:
            check = self._next_check if self.answers else until + 1
            scripted = until + 1
            if self._next_in_script < len(self._script):
                scripted = self._script[self._next_in_script][0]
            if min(check, scripted) > until:
                break
            if scripted <= check:
                at, _, what, detail = self._script[self._next_in_script]
                self._next_in_script += 1
                self.now = max(self.now, at)
                self._happen(what, detail)
            else:
                self.now = check
                self._look()
        self.now = max(self.now, until)

    def _happen(self, what: str, detail: int) -> None:
        if what == "wall":
            self._wall_error += detail
            return
        trouble = self._life.troubles[detail]
        if what == "begin":
            self._go_away(trouble)
        else:
            self._come_back(trouble)

    def _go_away(self, trouble: Trouble) -> None:
        if trouble.what == "suspend":
            self._asleep = True
            return
        assert self.store
        if trouble.what == "stop":
            self.store.stop(self.clocks())
            self.store.close()
        else:
            self.store._file.close()  # kill -9: what was only in memory is gone
        self.store = None
        if trouble.what == "wipe":
            self._path.unlink(missing_ok=True)
            self.wiped_at = trouble.begin

    def _come_back(self, trouble: Trouble) -> None:
        if trouble.what == "suspend":
            self._asleep = False
            self._next_check = max(self._next_check, self.now)
            return
        if trouble.what == "reboot":
            self.boots += 1
            self._boot_began = self.now - min(20_000, trouble.end - trouble.begin)
            self._wall_error += trouble.clock_error
        self._start(trouble.opening)

    def _start(self, opening: int) -> None:
        self.store = LedgerStore(self._path, self._settings)
        self.store.open(self.clocks().wall)
        self.store.resume(f"session-{self.now}", f"boot-{self.boots}", self.clocks())
        self.store.save(sync=True)
        self._next_check = self.now + opening
        self.looked = False

    def _look(self) -> None:
        assert self.store
        clocks = self.clocks()
        present = [(KEPT, 0), (NEW, 2) if self.now >= self._life.swap else (OLD, 1)]
        gpus = []
        for index, (uuid, gpu) in enumerate(present):
            state = self._life.hardware(gpu, self.now)
            gpus.append(GpuSample(uuid=uuid, index=index, name="Simulated", state=state))
        sample = Sample(at=clocks.boot / 1000, gpus=tuple(gpus))
        self.store.queue(self.store.ledger.observe(sample, clocks))
        self.store.save()
        self.looked = True
        self._next_check = self.now + self._life.kind.check

    def mark(self) -> str:
        assert self.store
        return windows.mark(self.store.ledger, self.store.ledger.position(self.clocks()))

    def answer(self, request: PingRequest) -> bytes:
        """What agentd's responder does: a report that counts, on the disk before it leaves."""
        assert self.store
        ledger = self.store.ledger
        if request.expected_gpus is not None:
            self.store.queue(ledger.enroll(request.expected_gpus))
        clocks = self.clocks()
        report = reports.report(ledger, self._agent_id, request, clocks, "test")
        self.store.queue(ledger.count(ledger.position(clocks)))
        self.store.save(sync=True)
        return reports.encoded(report, reports.owed(ledger, request))


class SchedulerClock:
    """The clocks of one scheduler: its wall clock may be wrong and set, its BOOTTIME is neither."""

    def __init__(
        self, dice: random.Random, kind: Kind, number: int, step_at: int, server_error: int
    ) -> None:
        self._kind = kind
        self._rate = 1 + dice.uniform(-DRIFT, DRIFT)
        self._error = 0
        if kind.schedulers > 1:
            self._error = (-900, 900)[number]
        self._step_at = step_at
        self._server_error = server_error
        self.boot_id = f"scheduler-{number}"

    def wall(self, at: int) -> int:
        """Milliseconds of true time as this scheduler's calendar says it, from the life's begin.

        Where the clock is more than the tolerance ahead of the server's, which is measured every
        10 s, the server's is used instead (bus/transport/bus_clock.py).
        """
        own = self._own(at)
        if self.follows_server(at):
            return own + self._offset(at)
        return own

    def clamped(self, at: int) -> int:
        """By how much this clock is ahead of the calendar that it uses."""
        return -self._offset(at) if self.follows_server(at) else 0

    def follows_server(self, at: int) -> bool:
        """Whether this clock is so far ahead of the server's that it is not believed."""
        return self._offset(at) < -TOLERANCE_SECONDS * 1000

    def _offset(self, at: int) -> int:
        measured_at = at // 10_000 * 10_000
        return self.server(measured_at) - self._own(measured_at)

    def boottime(self, at: int) -> float:
        return (at * self._rate + 86_400_000) / 1000

    def reading(self, at: int) -> AnsweredPing:
        return AnsweredPing(
            boot_id=self.boot_id,
            boottime=self.boottime(at),
            bus_time=self._kind.on_calendar(self.server(at)),
        )

    def server(self, at: int) -> int:
        stepped = at >= self._step_at
        return at + self._server_error + (self._kind.server_step if stepped else 0)

    def _own(self, at: int) -> int:
        stepped = at >= self._step_at
        return round(at * self._rate) + self._error + (self._kind.step if stepped else 0)


def make_pinger(*, believes_unheard: bool) -> Pinger:
    """The real one, never run: only its judgement of answers is used."""
    client = Client("test")
    return Pinger(
        client,
        "me",
        BusMonitor(client, 10.0),
        ServerMonitor(client),
        BusClock(client),
        PingLimits(1, timeout_seconds=TIMEOUT / 1000, believes_unheard=believes_unheard),
        lambda _attempt, _result: None,
        lambda _message: None,
    )


class Findings:
    """What the audit of many lives found. `worst` is the largest error beyond what is allowed."""

    def __init__(self) -> None:
        self.lives = 0
        self.windows = 0
        self.refused = 0
        self.refused_where = ""
        self.worst = -(2**60)
        self.worst_where = ""
        self.remarks: dict[str, int] = {}


class Sent(NamedTuple):
    """The ping, or the registration, at which a window begins."""

    at: int  # true time
    wall: int  # on the calendar
    answer: int  # how long its answer took
    follows_server: bool  # by whose clock the calendar was read


class LifeRun:
    """One life from its enrolment to its end, audited window by window."""

    def __init__(
        self,
        kind: Kind,
        seed: str,
        folder: Path,
        findings: Findings,
        agent_id: str = "host",
    ) -> None:
        self.dice = random.Random(seed)
        self.kind = kind
        self.seed = seed
        self.agent_id = agent_id
        self.states: list[AgentState] = []  # as they are written, oldest first
        self.enrolments: list[Enrolment] = []
        self.life = Life(self.dice, kind)
        self.host = Host(self.dice, self.life, folder, agent_id)
        step_at = 4 * self.life.end
        if kind.step or kind.server_step:
            step_at = self.dice.randrange(self.life.end)
        server_error = self.dice.choice((0, -1_000, 1_000))
        self.clocks = []
        for number in range(kind.schedulers):
            clock = SchedulerClock(self.dice, kind, number, step_at, server_error)
            self.clocks.append(clock)
        self.believes = self.dice.random() < 0.5
        self.pinger = make_pinger(believes_unheard=self.believes)
        self.findings = findings
        self.tracked = Tracked()
        self.sent: Sent
        self.booked: list[Interval] = []
        self.excused: list[Interval] = []
        self.accounted = 0  # ms of the windows of the present enrolment
        self.enrolled_at = 0  # on the calendar, ms of the epoch
        self.pings = 0
        self._toggled = 0  # how many of the life's toggles the registry knows

    # ---- the registry ----------------------------------------------------------------------------

    def register(self, *, by_operator: bool) -> None:
        """The agent registers itself with its mark, or the operator registers it without one."""
        host = self.host
        mark = None
        if not by_operator:
            host.advance(host.first_look_at())
            mark = host.mark()
        scheduler = self.dice.randrange(len(self.clocks))
        at = host.now
        host.advance(at + self.dice.randrange(40))
        wall = max(self.clocks[scheduler].wall(host.now), self._last_wall())
        microseconds = timedelta(microseconds=self.dice.randrange(1000))
        enrolled_at = self.kind.on_calendar(wall) + microseconds
        self.enrolments.append(Enrolment(enrolled_at))
        before = self.tracked.entry
        expected_gpus: tuple[str, ...] = (KEPT, OLD) if self.kind.toggled else ()
        entry = AgentEntry(
            agent_id=self.agent_id,
            registered_at=enrolled_at,
            enrolled_at=enrolled_at,
            mark=mark,
            enrolled_clocks=self.clocks[scheduler].reading(host.now),
            expected_gpus=before.expected_gpus if before else expected_gpus,
            maintenance=tuple(
                Span(self.kind.on_calendar(span.begin), self.kind.on_calendar(span.end))
                for span in self.booked
            ),
        )
        self._set_entry(entry)
        self.sent = Sent(host.now, wall, 0, self.clocks[scheduler].follows_server(host.now))
        self.enrolled_at = milliseconds(enrolled_at)
        self.accounted = 0

    def _last_wall(self) -> int:
        state = self.tracked.state
        if state is None or state.last_answered_at is None:
            return -HOUR
        return self.kind.since_begin(state.last_answered_at)

    def _set_entry(self, entry: AgentEntry) -> None:
        self.tracked.entry = entry
        self.tracked.entry_revision += 1

    def _replace_gpu(self, wall: int) -> None:
        """The operator says that the new GPU stands for the old one from now on."""
        entry = self.tracked.entry
        assert entry
        since = self.kind.on_calendar(wall)
        changes = (
            GpuChange(uuid=OLD, expected=False, since=since, author="test", at=since),
            GpuChange(uuid=NEW, expected=True, since=since, author="test", at=since),
        )
        self._set_entry(replace(entry, expected_gpus=(KEPT, NEW), gpu_changes=changes))

    def _toggle_gpus(self, until: int) -> None:
        """The operator says when the old GPU was no longer expected, and when it was again."""
        self.host.advance(until)
        while self._toggled < len(self.life.toggles):
            at = self.life.toggles[self._toggled]
            if at > until:
                return
            self._toggled += 1
            asked = ExpectGpusRequest(
                expected_gpus=(KEPT, OLD) if self.life.expects_old(at) else (KEPT,),
                author="test",
                since=self.kind.on_calendar(self.clocks[0].wall(at)),
            )
            now = self.kind.on_calendar(self.clocks[0].wall(until))
            self._set_entry(gpu_rules.changed(self.tracked, asked, now))

    # ---- the life --------------------------------------------------------------------------------

    def live(self) -> None:
        life = self.life
        kind = self.kind
        if kind.booked:
            for begin in range(kind.pause[0], life.end, life.end // 4):
                length = self.dice.randrange(max(1, kind.pause[0] // 9), kind.pause[1] * 2)
                self.booked.append(Interval(begin, begin + length))
        # On the calendar they may overlap. True time is excused once.
        self.excused = merged(self.booked)
        self.register(by_operator=False)
        outage = Interval(0, 0)
        if kind.outage:
            outage = Interval(life.end // 3, life.end // 3 + 3 * kind.pause[1])
        enrols_again_at = life.end * 2 // 3
        if (
            kind.step
            or kind.server_step
            or kind.replaced
            or kind.toggled
            or self.dice.random() < 0.7
        ):
            enrols_again_at = 4 * life.end
        swapped = False
        due = self.host.now + self.dice.randrange(kind.pause[0])
        while due < life.end:
            if due >= enrols_again_at:
                self._remove_and_enrol_again(due)
                enrols_again_at = 4 * life.end
                due = self.host.now + self.dice.randrange(kind.pause[0])
                continue
            if kind.replaced and not swapped and due >= life.swap:
                self._replace_gpu(self.clocks[0].wall(life.swap))
                swapped = True
            self._toggle_gpus(due)
            at = due
            if at in outage:
                at = outage.end
            due = self._ping(at)
        if self.host.store is not None:
            self.host.store.close()
        self.findings.lives += 1

    def _remove_and_enrol_again(self, due: int) -> None:
        """A removal pings for the last time; then time passes in which nobody is billed."""
        self._ping(due)
        removed_at = self.kind.on_calendar(
            max(self.clocks[0].wall(self.host.now), self._last_wall())
        )
        *earlier, last = self.enrolments
        removed_at = max(removed_at, self.states[-1].last.pinged_at)
        self.enrolments = [*earlier, Enrolment(last.since, removed_at)]
        self.host.advance(self.host.now + self.dice.randrange(self.kind.pause[1]))
        by_operator = self.dice.random() < 0.5 or not self.host.answers
        self.register(by_operator=by_operator)

    def _ping(self, at: int) -> int:
        """Pings once, and returns when the next one is due."""
        dice = self.dice
        host = self.host
        host.advance(at)
        scheduler = dice.randrange(len(self.clocks))
        clock = self.clocks[scheduler]
        self.pings += 1
        attempt = PingAttempt(self.agent_id, self.tracked, f"ping-{self.pings}", None)
        sent = clock.reading(at)
        attempt.start(
            self.kind.on_calendar(clock.wall(at)), f"nonce-{self.pings}", sent, TIMEOUT / 1000
        )
        attempt.clamped_ms = clock.clamped(at)
        pause = dice.randrange(self.kind.pause[0], self.kind.pause[1] + 1)
        answer = dice.randrange(1, 50)
        if dice.random() < self.kind.slow:
            answer = dice.randrange(TIMEOUT * 11 // 10)
        host.advance(at + dice.choice((0, answer, dice.randrange(answer + 1))))
        if not host.answers or dice.random() < self.kind.lost:
            self._missed(attempt, at)
            return max(at + 2 * pause, at + TIMEOUT, host.now)
        waits_until = host.first_look_at()
        if waits_until > host.now:  # the responder waits for the first look, within the time-out
            host.advance(min(waits_until, at + TIMEOUT - 1_000))
            if not host.answers:
                self._missed(attempt, at)
                return max(at + 2 * pause, at + TIMEOUT, host.now)
        data = host.answer(decode(attempt.request, PingRequest))
        answer = max(answer, host.now - at)
        if answer > TIMEOUT:
            attempt.may_be_answered_late = True
            self._missed(attempt, at)
            self.tracked.late_ping_id = attempt.ping_id
            return max(at + 2 * pause, at + answer, host.now)
        now_sent = Sent(at, clock.wall(at), answer, clock.follows_server(at))
        self._answered(attempt, data, now_sent)
        return max(at + pause, at + answer, host.now)

    def _missed(self, attempt: PingAttempt, at: int) -> None:
        self._record(attempt, Missed("timeout"), at + TIMEOUT)

    def _record(self, attempt: PingAttempt, result: PingResult, at: int) -> None:
        """What the committer does with the outcome, and the directory with what was written."""
        state = next_state(attempt, result, self.kind.on_calendar(self.clocks[0].wall(at)), POLICY)
        agent_key = subjects.agent_key(self.agent_id)
        for write in writes(attempt, state):
            if write.subject == agent_key:
                self._set_entry(decode(write.payload, AgentEntry))
        self.tracked.state = state
        self.tracked.state_revision += 1
        self.states.append(state)

    def _answered(self, attempt: PingAttempt, data: bytes, sent: Sent) -> None:
        attempt.response_ms = float(sent.answer)
        silence = self.tracked.state.silence if self.tracked.state else None
        result = self.pinger._result_of(attempt, data)
        assert result is not None, self.seed
        unheard = 0
        if silence is not None and not self.believes:
            # The calendar may have run backwards between the two.
            unheard = max(0, milliseconds(silence.last) - milliseconds(silence.first))
            unheard += round(silence.earlier_seconds * 1000)
        self._record(attempt, result, sent.at + sent.answer)
        self.findings.windows += 1
        if not isinstance(result, Answered):
            self.findings.refused += 1
            self.findings.refused_where = f"{self.seed}: {result} at ping {attempt.seq}"
            return
        self._audit(attempt, sent, unheard)
        wall = self.kind.since_begin(attempt.pinged_at)
        self.sent = sent._replace(wall=wall)

    # ---- the audit -------------------------------------------------------------------------------

    def _audit(self, attempt: PingAttempt, sent: Sent, unheard: int) -> None:
        admitted = attempt.admitted
        assert admitted
        for remark in admitted.remarks:
            self.findings.remarks[remark] = self.findings.remarks.get(remark, 0) + 1
        window = self._exact_length(attempt)
        truly = sent.at - self.sent.at
        lost_before = self.host.wiped_at if self.host.wiped_at > self.sent.at else -1
        excuses_a_step = admitted.host.excused > sum(span.length for span in self.excused)
        if excuses_a_step or abs(window - truly) > self._calendar_error(sent, truly):
            self._nobody_is_billed_more(admitted.host, sent, truly, lost_before, unheard)
            return
        excused = [self._in_true_time(span, sent) for span in self.excused]
        truth = self.life.truth(self.sent.at, sent.at, excused, lost_before)
        allowed = self._allowed(sent, window) + unheard
        is_mark_unknown = lost_before >= 0 or b'"since_mark":null' in attempt.request
        if self._rebooted_wrongly(sent) and is_mark_unknown:
            # Without a mark a host finds the window's begin by its own clock, and finds it wrong.
            allowed += window
        self._compare("host", admitted.host, truth[0], allowed)
        if not admitted.gpus:  # the host never had time to look, so that none is expected yet
            assert self.tracked.entry
            assert not self.tracked.entry.expected_gpus, self.seed
            assert admitted.host.good == 0, self.seed
            return
        self._compare(KEPT, admitted.gpus[KEPT], truth[1], allowed)
        if self.kind.toggled:
            self._check_expected_length(attempt)
            return
        if not self.kind.replaced:
            self._compare(OLD, admitted.gpus[OLD], truth[2], allowed)
            return
        for uuid, row, begin, end in (
            (OLD, 2, self.sent.at, min(sent.at, self.life.swap)),
            (NEW, 3, max(self.sent.at, self.life.swap), sent.at),
        ):
            if uuid in admitted.gpus and begin < end:
                part = self.life.truth(begin, end, excused, lost_before)[row]
                good = part[0] + part[1]
                self._note(uuid, abs(admitted.gpus[uuid].good - good) - allowed, part)

    def _check_expected_length(self, attempt: PingAttempt) -> None:
        """The old GPU's row is as long as it was expected, by the scheduler's clock."""
        assert attempt.admitted
        assert attempt.pinged_at
        begin = since = self.sent.wall
        until = self.kind.since_begin(attempt.pinged_at)
        expected_ms = 0
        is_expected = True
        for toggle in self.life.toggles:
            at = min(max(self.clocks[0].wall(toggle), since), until)
            expected_ms += at - begin if is_expected else 0
            begin = at
            is_expected = not is_expected
        expected_ms += until - begin if is_expected else 0
        row = attempt.admitted.gpus.get(OLD, Durations())
        assert row.window == expected_ms, self.seed

    def _calendar_error(self, sent: Sent, truly: int) -> int:
        """How far a window may be from what truly passed, where no clock of ours was set in it."""
        error = SAME_CLOCK_MS + truly // 5_000
        if self.kind.schedulers > 1 or sent.follows_server != self.sent.follows_server:
            error += OTHER_CLOCK_MS
        return error

    def _exact_length(self, attempt: PingAttempt) -> int:
        """Every row adds up to the window, and the windows to the enrolled time."""
        state = self.tracked.state
        assert state
        assert attempt.admitted
        last = state.last
        assert last.since is not None
        assert last.seconds is not None
        assert last.window_seconds is not None
        window = milliseconds(last.pinged_at) - milliseconds(last.since)
        told = [value * 1000 for value in astuple(last.seconds)]
        assert sum(round(value) for value in told) == window, self.seed
        assert round(last.window_seconds * 1000) == window, self.seed
        entry = self.tracked.entry
        assert entry
        changed = {change.uuid for change in entry.gpu_changes}
        for uuid, row in attempt.admitted.gpus.items():
            assert min(astuple(row)) >= 0, self.seed
            assert uuid in changed or row.window == window, self.seed
            assert uuid in changed or attempt.admitted.host.good <= row.good, self.seed
        self.accounted += window
        enrolled = milliseconds(last.pinged_at) - self.enrolled_at
        assert self.accounted == enrolled, self.seed
        return window

    def _in_true_time(self, span: Interval, sent: Sent) -> Interval:
        """A booked span, which is on the calendar, by the clock that sent the ping."""
        ahead = sent.wall - sent.at
        return Interval(span.begin - ahead, span.end - ahead)

    def _allowed(self, sent: Sent, window: int) -> int:
        """One check a transition, both answers, the clocks' drift, and rounding.

        Two seconds where two schedulers alternate, or where the host rebooted with a clock that is
        only a little wrong: what the tolerance covers is shared out.
        """
        check = self.kind.check
        margin = check * 3 // 2
        transitions = self.life.transitions(self.sent.at - margin, sent.at + margin)
        allowed = check * transitions + self.sent.answer + sent.answer
        allowed += round(2 * DRIFT * window) + 50
        if self.kind.schedulers > 1 or sent.follows_server != self.sent.follows_server:
            allowed += OTHER_CLOCK_MS
        if self._rebooted_wrongly(sent):
            allowed += OTHER_CLOCK_MS + self.sent.answer + sent.answer + window // 1000
        return allowed

    def _rebooted_wrongly(self, sent: Sent) -> bool:
        for trouble in self.life.troubles:
            if trouble.what == "reboot" and trouble.begin < sent.at and trouble.end > self.sent.at:
                return True
        return False

    def _compare(self, name: str, row: Durations, truth: Row, allowed: int) -> None:
        for told, true in zip(astuple(row), truth, strict=True):
            self._note(name, abs(told - true) - allowed, truth)

    def _note(self, name: str, beyond: int, truth: Iterable[int]) -> None:
        if beyond > self.findings.worst:
            self.findings.worst = beyond
            state = self.tracked.state
            assert state
            self.findings.worst_where = (
                f"{self.seed}: {name} is off by {beyond} ms more than allowed at ping "
                f"{state.ping_seq}: truth {list(truth)}, admitted {state.last.seconds}, "
                f"{state.last.gpus}, {state.last.remarks}"
            )

    def _nobody_is_billed_more(
        self, host: Durations, sent: Sent, truly: int, lost_before: int, unheard: int
    ) -> None:
        """The schedulers' clock was set within this window: at most what was bad is billed."""
        truth = self.life.truth(self.sent.at, sent.at, [], lost_before)[0]
        bad = truth[2] + truth[3]
        allowed = self._allowed(sent, truly) + OTHER_CLOCK_MS + truly // 1000 + unheard
        self._note("billed", host.down + host.unknown - bad - allowed, truth)
