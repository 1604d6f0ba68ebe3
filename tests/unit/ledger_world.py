"""Ground truth for the ledger: a host with a fake clock, the real ledger and file code.

The world knows every true second; agentd knows only what it sampled. Both are compared window by
window.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentd.ledger import reports
from agentd.ledger.ledger import HUNG, ClockReading, Ledger
from agentd.ledger.store import LedgerStore
from agentd.samples import GpuEvent, GpuSample, Sample
from bus import settings
from bus.contract.messages import ExcusedSpan, PingRequest, Seconds, UptimeReport, decode

INTERVAL = 5_000  # ms between checks
LONGEST_GAP = INTERVAL * 3 // 2  # between two samples that credit the time between them
HALF = INTERVAL // 2
HOST = "host"
UNWATCHED = "unknown"


class Segment(NamedTuple):
    """True states from `since` to `until`, true ms; UNWATCHED while no agentd could see them."""

    since: int
    until: int
    states: dict[str, str]


class World:
    """One host. `true` is time as it truly passes; the host's own clocks are `boot` and `wall`."""

    def __init__(
        self,
        folder: Path,
        gpus: int = 2,
        *,
        checkpoint: int = 100,
        history: int = 10_000,
        deadline: int = 2_500,
    ) -> None:
        self.settings = settings.load(
            {},
            AGENT_GPU_CHECK_INTERVAL_SECONDS=INTERVAL / 1000,
            AGENT_CHECKPOINT_INTERVAL=checkpoint,
            AGENT_MAX_HISTORY_SIZE=history,
        )
        self.path = folder / "host.ledger"
        self.true, self.boot, self.wall = 0, 3_600_000, 1_800_000_000_000
        self.boots = 1
        self.opening = 0  # ms from agentd's start to its first look at the GPUs
        self.gpus = {f"GPU-{number}": "up" for number in range(gpus)}
        self.expected = tuple(self.gpus)
        self.store: LedgerStore | None = None
        self.next_check = 0
        self.next_wait = 0  # when agentd next looks at a check that has not returned
        self.hung_until = 0
        self.hung_since: int | None = None  # when the first check began that did not return
        self.deadline = deadline  # of the probe: a check that hangs is given up after it
        self.pending: int | None = None  # true time at which a check began that has not returned
        self.events: list[GpuEvent] = []
        self.truth: list[Segment] = []
        self.tolerances: list[
            tuple[int, int]
        ] = []  # true time, ms by which it may blur the seconds
        self.slack = 0  # ms by which reboots under a stepped clock may have bent ledger time
        self.checked = 0  # true time of the last check
        self.steps: list[tuple[int, int]] = []  # true time, ms by which the wall clock was set
        self.synced = (
            b"",
            0,
        )  # what a power cut leaves of the file, and the true time of its last check

    # ---- the host --------------------------------------------------------------------------------

    @property
    def answers(self) -> bool:
        """agentd answers from its first sample on."""
        return self.store is not None and self.ledger.offset is not None

    @property
    def ledger(self) -> Ledger:
        assert self.store
        return self.store.ledger

    def read_clocks(self) -> ClockReading:
        return ClockReading(self.boot, self.wall)

    def blur(self, milliseconds: int) -> None:
        self.tolerances.append((self.true, milliseconds))

    def start(self) -> None:
        """agentd starts, checks at once, and hears from the registry which GPUs are expected."""
        self.store = LedgerStore(self.path, self.settings)
        self.store.open(self.wall)
        self.store.resume(f"session-{self.true}", f"boot-{self.boots}", self.read_clocks())
        self.next_check = self.true + self.opening
        self.pending = None
        self.pass_time(self.opening)
        if set(self.ledger.expected) != set(self.expected):
            self.blur(INTERVAL)  # a new ledger: its next check acts on the registry's word
        self.store.queue(self.ledger.enroll(self.expected))

    def stop(self) -> None:
        """agentd stops in good order."""
        assert self.store
        self.store.stop(self.read_clocks())
        self.store.close()
        self._remember_synced()
        self.store = None
        self.blur(self._pending_blur() + HALF)

    def kill(self) -> None:
        """kill -9: what was written stays, what was only in memory is gone."""
        assert self.store
        self.store._file.close()
        self.store = None
        self.blur(INTERVAL + self._pending_blur())

    def reboot(self, away: int, *, power_cut: random.Random | None = None) -> None:
        """The machine is gone for `away` ms.

        A power cut takes what was not fsynced, wholly or in part.
        """
        if self.store:
            self.kill()
        if power_cut:
            self._lose_unsynced(power_cut)
        on_disk = self.synced[1] if power_cut else self.checked
        self.slack += sum(abs(step) for at, step in self.steps if at >= on_disk)
        self.pass_time(away)
        self.boots += 1
        self.boot = min(away, 20_000)
        self.hung_until = self.true

    def set_gpu(self, gpu: str, state: str) -> None:
        if self.gpus[gpu] != state:
            self.gpus[gpu] = state
            self.blur(INTERVAL)

    def hang(self, milliseconds: int) -> None:
        """From now on the driver does not return, for so long."""
        self.hung_until = max(self.hung_until, self.true + milliseconds)
        # how late its end is seen; its beginning is dated back
        self.tolerances.append((self.hung_until, max(INTERVAL, self.deadline)))

    def step_clock(self, milliseconds: int) -> None:
        """Wall clock only. Harmless, but for a reboot before the next check is on disk."""
        self.wall += milliseconds
        self.steps.append((self.true, milliseconds))

    def pass_time(self, milliseconds: int, *, asleep: bool = False) -> None:
        """Time passes. Asleep: the process is stopped, or the machine suspended."""
        end = self.true + milliseconds
        if asleep:
            self.blur(LONGEST_GAP + self._pending_blur())
        while True:
            at_work = self.store is not None and not asleep
            due = self._next_event() if at_work else end + 1
            self._elapse(min(end, max(due, self.true)) - self.true, seen=at_work)
            if due > end:
                break
            self._work()

    def _pending_blur(self) -> int:
        return self.deadline if self.pending is not None else 0

    def _next_event(self) -> int:
        if self.pending is None:
            return self.next_check
        return min(
            self.next_wait, max(self.pending, min(self.pending + self.deadline, self.hung_until))
        )

    def _elapse(self, milliseconds: int, *, seen: bool) -> None:
        if milliseconds <= 0:
            return
        until_it_returns = self.hung_until - self.true
        if 0 < until_it_returns < milliseconds:
            self._elapse(until_it_returns, seen=seen)
            self._elapse(milliseconds - until_it_returns, seen=seen)
            return
        states = {gpu: self._truth_of(gpu) if seen else UNWATCHED for gpu in self.gpus}
        states[HOST] = _worst([states[gpu] for gpu in self.expected])
        self.truth.append(Segment(self.true, self.true + milliseconds, states))
        self.true += milliseconds
        self.boot += milliseconds
        self.wall += milliseconds

    def _truth_of(self, gpu: str) -> str:
        state = self.gpus[gpu]
        if self.true >= self.hung_until:
            self.hung_since = None
        return "down" if state == "missing" or self.hung_since is not None else state

    # ---- agentd's loop ---------------------------------------------------------------------------

    def _work(self) -> None:
        """What `agentd/check_loop.py` does when the next thing is due."""
        hung = self.true < self.hung_until
        if self.pending is None:
            self.pending = self.true
            self.next_wait = self.true + INTERVAL
            if hung:
                self.hung_since = self.hung_since or self.true
                return
        elif hung and self.true < self.pending + self.deadline:
            self.ledger.wait((self.boot - (self.true - self.pending)) / 1000, self.read_clocks())
            self.next_wait = self.true + INTERVAL
            return
        began, self.pending = self.pending, None
        self.next_check += (
            INTERVAL + max(0, self.true - self.next_check - INTERVAL) // INTERVAL * INTERVAL
        )
        self._observe(began, HUNG if hung else None)

    def _observe(self, began: int, failure: str | None) -> None:
        assert self.store
        at = (self.boot - (self.true - began)) / 1000
        seen = tuple(
            GpuSample(
                uuid=gpu,
                index=index,
                name="Simulated",
                state=state,
                reasons=() if state == "up" else (state,),
            )
            for index, (gpu, state) in enumerate(self.gpus.items())
            if state != "missing"
        )
        sample = Sample(
            at=at, gpus=() if failure else seen, failure=failure, events=tuple(self.events)
        )
        self.events.clear()
        self.store.queue(self.ledger.observe(sample, self.read_clocks()))
        batch = self.store.take_batch()
        assert batch
        self.store.write(batch)
        self.checked = self.true
        if batch.sync:
            self._remember_synced()

    def _remember_synced(self) -> None:
        self.synced = (self.path.read_bytes(), self.checked)

    def _lose_unsynced(self, dice: random.Random) -> None:
        data, checked = self.synced
        if not self.path.exists():
            return
        rest = self.path.read_bytes()[len(data) :]
        kept = rest[: dice.randrange(len(rest) + 1)] if rest else b""
        self.path.write_bytes(data + kept)
        self.blur(self.true - checked + LONGEST_GAP)

    # ---- answers ---------------------------------------------------------------------------------

    def ask(self, request: PingRequest | None = None) -> UptimeReport:
        """Asks agentd's real report code over the wire; checks what must hold of every report."""
        request = request or PingRequest()
        now = self.read_clocks()
        self.blur(self._pending_blur())  # whether a check hangs is not known before it is given up
        full = reports.report(self.ledger, "host", request, now, "test")
        if request.ping_id is not None:
            assert self.store
            self.store.queue(self.ledger.count(self.ledger.position(now)))
            self.store.save(sync=True)  # as the responder does before it answers
            self._remember_synced()
        report = decode(reports.encoded(full, reports.owed(self.ledger, request)), UptimeReport)
        check_sums(report)
        return report

    def check_against_truth(self, report: UptimeReport, since: int) -> None:
        """Every second of `[since, now)` true time is right, but for the blur of transitions."""
        window = round(report.window.seconds * 1000)
        assert abs(window - (self.true - since)) <= self.slack
        blur = (
            sum(blur for at, blur in self.tolerances if at >= since - LONGEST_GAP - self.deadline)
            + self.slack
        )
        for name, seconds in [
            (HOST, report.seconds),
            *((gpu.uuid, gpu.seconds) for gpu in report.gpus),
        ]:
            for state in ("up", "degraded", "down", "unknown"):
                told = round(getattr(seconds, state) * 1000)
                true = sum(until - begin for begin, until in self._when(name, state, since))
                assert abs(told - true) <= blur, (name, state, told, true, blur)

    def _when(self, name: str, state: str, since: int) -> Iterator[tuple[int, int]]:
        for segment in reversed(self.truth):
            if segment.until <= since:
                return
            if segment.states[name] == state:
                yield max(segment.since, since), segment.until

    def span(self, since: int, until: int) -> ExcusedSpan:
        """An interval of true time, as seconds before now."""
        return ExcusedSpan(
            since_seconds_ago=(self.true - since) / 1000,
            until_seconds_ago=(self.true - until) / 1000,
        )

    def wall_span(self, since: int, until: int) -> ExcusedSpan:
        """The same by the host's present wall clock, as schedulers of before told it."""
        return ExcusedSpan(
            since=reports.label(self.wall + since - self.true),
            until=reports.label(self.wall + until - self.true),
        )


def check_sums(report: UptimeReport) -> None:
    """What holds of every report whatever happened."""
    window = round(report.window.seconds * 1000)
    assert window >= 0
    assert report.window.until >= report.window.since
    for seconds, percent in [(report.seconds, report.uptime_percent)] + [
        (g.seconds, g.uptime_percent) for g in report.gpus
    ]:
        parts = milliseconds(seconds)
        assert sum(parts.values()) == window
        assert min(parts.values()) >= 0
        judged = window - parts["excused"]
        if judged == 0:
            assert percent is None
        else:
            assert percent is not None
            assert 0.0 <= percent <= 100.0
            assert abs(percent - 100.0 * (parts["up"] + parts["degraded"]) / judged) < 1e-9
    assert len(report.incidents) <= 50


def milliseconds(seconds: Seconds) -> dict[str, int]:
    """Seconds of a report as whole milliseconds; they must be whole."""
    parts = {
        name: getattr(seconds, name) * 1000
        for name in ("up", "degraded", "down", "unknown", "excused")
    }
    assert all(abs(value - round(value)) < 1e-6 for value in parts.values())
    return {name: round(value) for name, value in parts.items()}


def _worst(states: list[str]) -> str:
    return next((state for state in ("down", "unknown", "degraded") if state in states), "up")
