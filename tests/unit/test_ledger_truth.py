"""Thousands of random lives of a host, each compared with what truly happened in it."""

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ledger_world import INTERVAL, World

from bus.contract.messages import PingRequest

_SHM = Path("/dev/shm")  # noqa: S108  # mkdtemp makes names there that nobody can guess
MEMORY = _SHM if _SHM.is_dir() else None  # fsync costs nothing there; the code is the same

short = st.integers(0, 4 * INTERVAL)
long = st.integers(0, 40 * INTERVAL)
gpu_names = st.sampled_from(["GPU-0", "GPU-1"])
op = st.one_of(
    st.tuples(st.just("pass"), long),
    st.tuples(st.just("gpu"), gpu_names, st.sampled_from(["up", "degraded", "down", "missing"])),
    st.tuples(
        st.just("ping"), st.sampled_from(["answered", "lost", "late", "twice", "two schedulers"])
    ),
    st.tuples(st.just("look")),
    st.tuples(st.just("restart"), short, st.booleans()),
    st.tuples(
        st.just("reboot"), long, st.sampled_from(["clean", "crash", "power cut"]), st.integers()
    ),
    st.tuples(st.just("step"), st.sampled_from([-3_600_000, 3_600_000, -1, 700, -86_400_000])),
    st.tuples(st.just("sleep"), long),
    st.tuples(st.just("hang"), long),
    st.tuples(st.just("wipe"), short),
)
lives = st.lists(st.tuples(short, op), min_size=1, max_size=25)

checkpoints = st.sampled_from([1, 4, 100])
deadlines = st.sampled_from([100, INTERVAL // 2, 2 * INTERVAL + 700])
BLUNDER = 13
GONE = ("gpu", "GPU-0", "missing")


class Scheduler:
    """Asks with the mark of the last answer it took, as the real one does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mark: str | None = None
        self.since = 0  # true time of the last answer taken; the ledger's beginning before that
        self.asked = 0
        self.blunder = (
            0  # ms by which its own clock misjudges a window; a mark that is known makes up for it
        )

    def request(self) -> PingRequest:
        self.asked += 1
        return PingRequest(
            ping_id=f"ping-{self.asked}",
            since_mark=self.mark,
            window_seconds=(self.world.true - self.since + self.blunder) / 1000,
        )

    def ping(self, fate: str) -> None:
        if not self.world.answers:
            return  # a miss: the next window is longer
        request = self.request()
        report = self.world.ask(request)
        if self.mark and self._is_known(self.mark):
            length = _position(report.window.mark) - _position(self.mark)
            assert round(report.window.seconds * 1000) == length  # windows tile, exactly
        else:
            self.world.slack += self.blunder
        self.world.check_against_truth(report, self.since)
        if fate == "two schedulers":
            other = self.world.ask(self.request())
            assert other.window == report.window
            assert other.seconds == report.seconds
        if fate in ("answered", "twice", "two schedulers"):
            self.mark, self.since, self.blunder = report.window.mark, self.world.true, BLUNDER
            self.world.slack = 0

    def _is_known(self, mark: str) -> bool:
        ledger, now = self.world.ledger, self.world.read_clocks()
        return mark.startswith(ledger.created.ledger) and _position(mark) <= ledger.position(now)


def _position(mark: str | None) -> int:
    assert mark
    return int(mark.split(".")[1])


def live(world: World, life: list[tuple[int, tuple]]) -> None:
    world.start()
    scheduler = Scheduler(world)
    for wait, (what, *details) in life:
        world.pass_time(wait)
        act(world, scheduler, what, details)
        if world.store is None:
            world.start()
    world.pass_time(2 * INTERVAL)
    scheduler.ping("answered")
    world.stop()


# A table of what happens.
def act(world: World, scheduler: Scheduler, what: str, details: list) -> None:  # noqa: C901
    match what, details:
        case "pass", [milliseconds]:
            world.pass_time(milliseconds)
        case "gpu", [gpu, state]:
            world.set_gpu(gpu, state)
        case "ping", [fate]:
            scheduler.ping(fate)
        case "look", []:
            before = list(world.ledger.records())
            world.ask()
            assert list(world.ledger.records()) == before
        case "restart", [away, in_good_order]:
            world.stop() if in_good_order else world.kill()
            world.pass_time(away)
        case "reboot", [away, how, seed]:
            if how == "clean":
                world.stop()
            world.reboot(away, power_cut=random.Random(seed) if how == "power cut" else None)
        case "step", [milliseconds]:
            world.step_clock(milliseconds)
        case "sleep", [milliseconds]:
            world.pass_time(milliseconds, asleep=True)
        case "hang", [milliseconds]:
            world.hang(milliseconds)
        case "wipe", [away]:
            wipe(world, away)


def wipe(world: World, away: int) -> None:
    """The disk is wiped: a new ledger, which knows nothing of the time before it."""
    world.kill()
    world.path.unlink(missing_ok=True)
    world.synced = (b"", world.true)
    world.pass_time(away)
    for index, segment in enumerate(world.truth):
        world.truth[index] = segment._replace(states=dict.fromkeys(segment.states, "unknown"))


def run(life: list[tuple[int, tuple]], checkpoint: int, deadline: int) -> None:
    folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="gpuping-ledger-"))
    try:
        live(World(folder, checkpoint=checkpoint, deadline=deadline), life)
        assert not list(folder.glob("*.corrupt-*")) or any(
            what == "reboot" for _, (what, *_) in life
        )
    finally:
        shutil.rmtree(folder)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives, checkpoints, deadlines)
@example([(0, GONE), (0, ("wipe", 2602)), (4999, ("ping", "answered"))], 1, 100)
@example(
    [(0, GONE), (0, ("wipe", 0)), (0, ("restart", 2602, False)), (4999, ("ping", "answered"))],
    1,
    100,
)
def test_any_life_is_accounted_truly(life, checkpoint, deadline):
    run(life, checkpoint, deadline)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives, checkpoints, deadlines)
def test_any_of_very_many_lives_is_accounted_truly(life, checkpoint, deadline):
    run(life, checkpoint, deadline)
