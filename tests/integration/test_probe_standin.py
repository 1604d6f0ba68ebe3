"""The whole probe, with the real pynvml, against the C stand-in for NVML in every state."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentd.health.rules import DEFAULT_XIDS
from agentd.nvml.probe import NvmlProbe
from bus.clock import boottime
from tests import standin

needs_cc = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler to build the stand-in with"
)
pytestmark = needs_cc

UUIDS = [f"GPU-5ca1ab1e-0000-4000-8000-{gpu:012}" for gpu in range(8)]


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    return standin.build(tmp_path_factory.mktemp("standin"))


class Gpus:
    """Opens probes on GPUs to which something happens; `now` says when in the scenario it is."""

    def __init__(self, library, folder):
        self._library, self._folder = library, folder
        self.opened = []

    def __call__(self, events="", *, count=2, at=0.0, interval=2.0, first_opening=30.0, **more):
        self.stage = standin.Stage(self._library, self._folder, f"gpus = {count}\n{events}")
        self.now(at)
        memory = self._folder / "health.json"
        environ = self.stage.environ(**more)
        probe = NvmlProbe(interval, DEFAULT_XIDS, memory, environ, first_opening)
        self.opened.append(probe)
        return self.opened[-1]

    def now(self, seconds):
        self.stage.to(seconds)


@pytest.fixture
async def gpus(library, tmp_path):
    gpus = Gpus(library, tmp_path)
    yield gpus
    for probe in gpus.opened:
        await probe.close()


def event(state, gpu=0, at=0.0, **more):
    lines = {"at": at, "gpu": f'"{gpu}"' if gpu == "all" else gpu, "state": f'"{state}"'} | more
    return "[[event]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def seen(sample):
    return {gpu.index: (gpu.state, gpu.reasons) for gpu in sample.gpus}


async def until(probe, wanted, expected=(), within=60.0):
    """Checks until the sample is as wanted; fails with the last one."""
    deadline = time.monotonic() + within
    while not wanted(sample := await probe.check(expected)):
        assert time.monotonic() < deadline, sample
        await asyncio.sleep(0.05)
    return sample


async def test_healthy_gpus(gpus):
    sample = await gpus(count=8).check(())
    assert sample.failure is None
    assert [gpu.uuid for gpu in sample.gpus] == UUIDS
    assert {(gpu.name, gpu.state, gpu.reasons) for gpu in sample.gpus} == {
        ("NVIDIA Stand-in", "up", ())
    }


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ok", ("up", ())),
        ("ecc", ("down", ("ecc",))),
        ("remap-pending", ("degraded", ("remap-pending",))),
        ("remap-failed", ("down", ("remap-failed",))),
        ("not-supported", ("up", ())),
        (
            "thermal",
            ("up", ()),
        ),  # degraded only after six minutes of it: tests/unit/test_health_rules.py
    ],
)
async def test_states_of_one_gpu_leave_the_other_alone(gpus, word, expected):
    assert seen(await gpus(event(word), at=1).check(())) == {0: expected, 1: ("up", ())}


async def test_lost_while_running_and_back(gpus):
    probe = gpus(event("lost", at=1, **{"for": 1}))
    assert seen(await probe.check(()))[0] == ("up", ())
    gpus.now(1)
    lost = await probe.check(tuple(UUIDS[:2]))
    assert seen(lost)[0] == ("down", ("lost",))
    assert (lost.gpus[0].uuid, lost.gpus[0].name, seen(lost)[1]) == (
        UUIDS[0],
        "NVIDIA Stand-in",
        ("up", ()),
    )
    assert seen(await probe.check(tuple(UUIDS[:2])))[0] == (
        "down",
        ("lost",),
    )  # NVML was opened anew in between
    gpus.now(2)
    await until(probe, lambda s: seen(s)[0] == ("up", ()), UUIDS[:2])


async def test_a_gpu_that_is_lost_at_start_is_known_by_the_enrolment(gpus):
    sample = await gpus(event("lost"), at=1).check(tuple(UUIDS[:2]))
    assert {gpu.uuid: gpu.reasons for gpu in sample.gpus} == {UUIDS[0]: ("lost",), UUIDS[1]: ()}


async def test_a_gpu_that_cannot_be_opened_at_enrolment_is_told_by_its_place(gpus):
    """Nobody knows its UUID yet: it is no GPU of the host's, but it is not hidden either."""
    sample = await gpus(event("lost", gpu=1), at=1).check(())
    assert [gpu.uuid for gpu in sample.gpus] == [UUIDS[0]]
    # The address in it is this machine's own, where that has a GPU.
    assert [(gpu.index, gpu.reason) for gpu in sample.unopened] == [(1, "lost")]


async def test_a_gpu_that_is_known_is_not_told_twice(gpus):
    sample = await gpus(event("lost", gpu=1), at=1).check(tuple(UUIDS[:2]))
    assert [gpu.uuid for gpu in sample.gpus] == UUIDS[:2]
    assert sample.unopened == ()


async def test_missing_at_start_is_absent_and_indices_shift(gpus):
    sample = await gpus(event("missing"), at=1).check(tuple(UUIDS[:2]))
    assert [(gpu.uuid, gpu.index) for gpu in sample.gpus] == [(UUIDS[1], 0)]


async def test_missing_while_running_and_back(gpus):
    probe = gpus(event("missing", at=1, **{"for": 1}))
    await until(probe, lambda s: len(s.gpus) == 2, UUIDS[:2])
    gpus.now(1)
    await until(probe, lambda s: [gpu.uuid for gpu in s.gpus] == [UUIDS[1]], UUIDS[:2])
    gpus.now(2)
    await until(probe, lambda s: len(s.gpus) == 2, UUIDS[:2])


async def test_xids_come_by_the_event_set(gpus):
    probe = gpus(
        "".join(event(f"xid:{xid}", gpu, 1) for gpu, xid in enumerate([79, 94, 31, 8])), count=4
    )
    await probe.check(())
    gpus.now(1)
    sample = await probe.check(())
    assert seen(sample) == {
        0: ("down", ("recovery-reset", "xid:79")),
        1: ("degraded", ("recovery-drain-p2p", "xid:94")),
        2: ("up", ()),
        3: ("up", ()),
    }
    assert [(e.uuid, e.reason) for e in sample.events] == [(UUIDS[3], "xid:8")]
    assert [one["xids"] for one in await probe.details()] == [
        {"79": 1},
        {"94": 1},
        {"31": 1},
        {"8": 1},
    ]


async def test_an_xid_outlives_a_restart_of_agentd_and_ends_with_recovery(gpus):
    events = event("xid:79", at=1, **{"for": 5})
    first = gpus(events)
    await first.check(())
    gpus.now(1)
    assert "xid:79" in seen(await first.check(()))[0][1]
    await first.close()
    second = gpus(events, at=2)
    assert "xid:79" in seen(await second.check(()))[0][1]
    gpus.now(6)
    await until(second, lambda s: seen(s)[0] == ("up", ()))


async def test_details(gpus):
    details = await (probe := gpus()).details()
    assert details == []  # who there is, is known after a check
    await probe.check(())
    details = await probe.details()
    assert len(details) == 2
    told = {
        "uuid": UUIDS[1],
        "index": 1,
        "name": "NVIDIA Stand-in",
        "serial": "standin-1",
        "driver": "570.00-standin",
        "temperature_celsius": 41,
        "power_watts": 150.5,
        "power_limit_watts": 700.0,
        "utilization_percent": 37,
        "memory_total_bytes": 80 << 30,
        "memory_used_bytes": 10 << 30,
        "pcie_generation": 4,
        "pcie_width": 16,
        "throttle_reasons": ["software-power-cap"],
        "ecc_uncorrected_volatile": 0,
        "processes": 1,
        "xids": {},
        "simulated": False,
    }
    assert details[1] | told == details[1]


async def test_details_that_are_not_supported_are_none(gpus):
    probe = gpus(event("not-supported"), at=1)
    await probe.check(())
    first, second = await probe.details()
    assert (first["temperature_celsius"], first["processes"], first["name"]) == (
        None,
        None,
        "NVIDIA Stand-in",
    )
    assert second["temperature_celsius"] == 41


async def test_a_name_that_is_not_utf_8_takes_no_gpu_away(gpus):
    """Under WSL2 every GPU was gone, and there was a traceback a check."""
    probe = gpus(NVML_STANDIN_ODD_NAME="0")
    sample = await probe.check(())
    assert [(gpu.uuid, gpu.state) for gpu in sample.gpus] == [(uuid, "up") for uuid in UUIDS[:2]]
    assert sample.failure is None
    assert sample.gpus[0].name == "NVIDIA \\xf8\\xd1\\xc2"
    assert sample.gpus[1].name == "NVIDIA Stand-in"


async def test_an_odd_answer_to_an_optional_call_takes_no_gpu_away(gpus):
    """A GPU with MIG on answered 4 to how many devices it may have: the whole host was at 0 %."""
    sample = await gpus(NVML_STANDIN_MIG="1", NVML_STANDIN_ODD_MIG="1").check(())
    assert [(gpu.uuid, gpu.state) for gpu in sample.gpus] == [(uuid, "up") for uuid in UUIDS[:2]]
    assert sample.failure is None


async def test_a_counter_that_is_not_available_is_no_count(gpus):
    sample = await gpus(NVML_STANDIN_ODD_ECC="1").check(())
    assert [gpu.state for gpu in sample.gpus] == ["up", "up"]
    assert [gpu.reasons for gpu in sample.gpus] == [(), ()]


async def test_mig_devices(gpus):
    sample = await gpus(NVML_STANDIN_MIG="1").check(())
    assert [gpu.uuid for gpu in sample.gpus] == [UUIDS[0], f"{UUIDS[1]}/1/0", f"{UUIDS[1]}/2/0"]


async def test_xid_on_a_mig_gpu_counts_for_its_devices(gpus):
    probe = gpus(event("xid:79", 1, 1), NVML_STANDIN_MIG="1")
    await probe.check(())
    gpus.now(1)
    sample = await probe.check(())
    assert ["xid:79" in gpu.reasons for gpu in sample.gpus] == [False, True, True]
    assert [gpu.state for gpu in sample.gpus] == ["up", "down", "down"]


@pytest.mark.parametrize(
    ("code", "reason"), [(4, "permission"), (12, "library-absent"), (18, "driver-mismatch")]
)
async def test_where_nothing_can_be_looked_at_the_reason_is_told(gpus, code, reason):
    sample = await gpus(NVML_STANDIN_INIT=str(code)).check(())
    assert (sample.failure, sample.gpus) == (reason, ())


@pytest.mark.parametrize("expected", [(), (UUIDS[0], UUIDS[1])])
async def test_gpus_that_may_not_be_opened_are_not_told_as_no_gpus(gpus, expected):
    sample = await gpus(NVML_STANDIN_DENIED="-1").check(expected)
    assert (sample.failure, sample.gpus) == ("permission", ())


async def test_an_expected_gpu_that_may_not_be_opened_is_unknown(gpus):
    sample = await gpus(NVML_STANDIN_DENIED="1").check(UUIDS[:2])
    assert {gpu.uuid: (gpu.state, gpu.reasons) for gpu in sample.gpus} == {
        UUIDS[0]: ("up", ()),
        UUIDS[1]: ("unknown", ("permission",)),
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [(9, "driver-not-loaded"), (999, "unknown-error"), (18, "driver-mismatch"), (15, "lost")],
)
async def test_a_library_that_does_not_open(gpus, code, reason):
    sample = await gpus(NVML_STANDIN_INIT=str(code)).check((UUIDS[0],))
    assert (sample.failure, sample.gpus) == (reason, ())


async def test_no_library(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(standin.unloadable(tmp_path / "none")))
    probe = NvmlProbe(1.0, DEFAULT_XIDS, tmp_path / "health.json")
    assert (await probe.check(())).failure == "library-absent"
    assert await probe.details() == []
    await probe.close()


class TestHang:
    """A call that never returns is seen within one check, hides no other GPU, and stops nothing."""

    async def test_one_gpu_hangs_and_comes_back(self, gpus):
        probe = gpus(event("hang", 1, 1, **{"for": 1}), count=3, interval=2.0)
        await probe.check(())
        gpus.now(1)
        assert seen(await probe.check(())) == {0: ("up", ()), 1: ("down", ("hung",)), 2: ("up", ())}
        assert seen(await probe.check(()))[1] == ("down", ("hung",))  # until a check of it succeeds
        gpus.now(2)
        await until(probe, lambda s: seen(s)[1] == ("up", ()))

    async def test_a_check_takes_two_seconds_at_most(self, gpus):
        probe = gpus(event("hang", "all", 1), count=8, interval=5.0)
        await probe.check(())
        gpus.now(1)
        begun = time.monotonic()
        sample = await probe.check(tuple(UUIDS))
        assert time.monotonic() - begun < 10.0  # one after the other they would take 16 s
        assert {(gpu.state, gpu.reasons) for gpu in sample.gpus} == {("down", ("hung",))}
        assert {gpu.uuid for gpu in sample.gpus} == set(UUIDS)

    async def test_all_hang_and_come_back(self, gpus):
        probe = gpus(event("hang", "all", 1, **{"for": 1}), interval=1.0)
        await probe.check(())
        gpus.now(1)
        await until(probe, lambda s: {gpu.reasons for gpu in s.gpus} == {("hung",)})
        gpus.now(2)
        await until(probe, lambda s: {gpu.state for gpu in s.gpus} == {"up"})

    async def test_a_library_that_opens_slowly_is_waited_for_once(self, gpus):
        probe = gpus(event("hang", "all", **{"for": 1}), interval=1.0)
        first = asyncio.create_task(probe.check(()))
        done, _ = await asyncio.wait({first}, timeout=1.5)
        assert not done  # longer than a silence that would be a hang later on
        gpus.now(1)
        assert {gpu.state for gpu in (await first).gpus} == {"up"}

    async def test_a_library_that_never_opens_is_a_hang(self, gpus):
        probe = gpus(event("hang", "all"), first_opening=4.0)
        begun = time.monotonic()
        sample = await probe.check(())
        assert (sample.failure, sample.gpus) == ("hung", ())
        assert time.monotonic() - begun > 3.0
        assert {gpu.reasons for gpu in (await probe.check((UUIDS[0],))).gpus} == {("hung",)}

    async def test_eight_gpus_that_open_for_five_seconds_are_never_hung(self, gpus):
        probe = gpus(count=8, NVML_STANDIN_OPENING="5")
        began = boottime()
        sample = await probe.check(())
        assert seen(sample) == dict.fromkeys(range(8), ("up", ()))
        assert sample.at >= began + 5.0  # what was before the opening's end, nobody saw

    async def test_close_while_hung_is_quick_and_leaves_nobody(self, gpus):
        probe = gpus(event("hang", "all", 1), interval=1.0)
        await probe.check(())
        gpus.now(1)
        await until(probe, lambda s: {gpu.reasons for gpu in s.gpus} == {("hung",)})
        child = probe._supervisor._child
        begun = time.monotonic()
        await probe.close()
        assert time.monotonic() - begun < 10.0
        assert child is None or child.dead()

    async def test_a_cancelled_check_does_no_harm(self, gpus):
        probe = gpus(event("hang", 0, 1, **{"for": 1}))
        await probe.check(())
        gpus.now(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await probe.check(())
        gpus.now(2)
        await until(probe, lambda s: seen(s) == {0: ("up", ()), 1: ("up", ())})

    async def test_a_crash_of_the_library_is_unknown_not_down(self, gpus):
        probe = gpus(NVML_STANDIN_CRASH="0")
        sample = await probe.check((UUIDS[0],))
        assert [(gpu.state, gpu.reasons) for gpu in sample.gpus] == [("unknown", ("probe-died",))]

    async def test_a_killed_child_is_replaced_within_the_check(self, gpus):
        probe = gpus(interval=5.0)
        await probe.check(())
        os.kill(probe._supervisor._child.pid, signal.SIGKILL)
        assert {gpu.state for gpu in (await probe.check(())).gpus} == {"up"}


def test_a_suspended_gpu_is_not_woken(library, tmp_path):
    """Asked for its health, this one would hang: sysfs alone may tell."""
    power = tmp_path / "sysfs/0000:f0:00.0/power"
    power.mkdir(parents=True)
    (power / "runtime_status").write_text("suspended\n")
    stage = standin.Stage(library, tmp_path, "gpus = 2\n" + event("hang"))
    asking = (
        "import pathlib, sys\nfrom agentd.nvml.library import Nvml\n"
        "nvml = Nvml(pathlib.Path(sys.argv[1]))\nnvml.open()\nfound, _ = nvml.enumerate([])\n"
        "print(nvml.read(found[0], energy=False)[0]['suspended'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asking, str(tmp_path / "sysfs")],
        timeout=60,
        check=True,
        capture_output=True,
        env=stage.environ(),
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == b"True\n"


class Undead:
    """A child that not even SIGKILL ended, as one in an uninterruptible call is."""

    def dead(self):
        return False


async def test_children_that_cannot_be_killed_do_not_pile_up(gpus):
    probe = gpus()
    await probe.check(())
    supervisor = probe._supervisor
    supervisor._kill_child()
    supervisor._stuck += [Undead()] * 3
    supervisor._child_started_at = time.monotonic()
    assert {gpu.reasons for gpu in (await probe.check(())).gpus} == {("hung",)}
    assert supervisor._child is None
    supervisor._child_started_at -= 60.0
    assert {gpu.state for gpu in (await probe.check(())).gpus} == {"up"}


_PARENT = """
import asyncio, pathlib, sys
from agentd.health.rules import DEFAULT_XIDS
from agentd.nvml.probe import NvmlProbe

async def main():
    probe = NvmlProbe(60.0, DEFAULT_XIDS, pathlib.Path(sys.argv[1]))
    await probe.check(())
    print(probe._supervisor._child.pid, flush=True)
    sys.stdin.readline()
    asking = asyncio.create_task(probe.check(()))
    await asyncio.sleep(0.2)  # a child that hangs cannot say so
    print("asked into the hang", flush=True)
    await asking

asyncio.run(main())
"""


async def test_the_child_dies_with_its_parent_even_in_a_hang(library, tmp_path):
    """A parent that is killed cannot tidy up; the kernel does it."""
    stage = standin.Stage(library, tmp_path, "gpus = 1\n" + event("hang", "all", 1))
    process = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs in this test
        [sys.executable, "-c", _PARENT, str(tmp_path / "health.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=stage.environ(),
        cwd=Path(__file__).parents[2],
    )
    child = int(process.stdout.readline())
    descriptor = os.pidfd_open(child)
    stage.to(1)
    assert process.stdin.write(b"go on\n")
    assert process.stdout.readline() == b"asked into the hang\n"
    process.kill()
    process.wait()
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    async with asyncio.timeout(60):
        await gone.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)
