"""What holds for any sequence of readings, and for any scenario in both of its players."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.health.judgement import HealthMemory, Xid, judge
from agentd.health.rules import DEFAULT_XIDS, Reading
from agentd.scenario import parse
from bus.clock import boottime
from tests import standin

maybe = st.none() | st.booleans()
readings = st.builds(
    Reading,
    uuid=st.sampled_from(["GPU-0", "GPU-1", "GPU-1/1/0", "GPU-1/2/0"]),
    error=st.none() | st.sampled_from([9, 10, 15, 16, 999]),
    hung=st.booleans(),
    unread=st.none() | st.just("probe-starting"),
    suspended=st.booleans(),
    recovery_action=st.none() | st.integers(0, 9),
    remap_failed=maybe,
    remap_pending=maybe,
    ecc_uncorrected=st.none() | st.integers(0, 3),
    throttle=st.none() | st.integers(0, 0x1FF),
    fabric_state=st.none() | st.integers(0, 3),
    fabric_status=st.none() | st.sampled_from([0, 999]),
    energy_mj=st.none() | st.integers(0, 9),
)
checks = st.tuples(
    st.floats(0.0, 700.0),
    st.lists(readings, max_size=4, unique_by=lambda r: r.uuid),
    st.lists(
        st.tuples(st.none() | st.sampled_from(["GPU-0", "GPU-1"]), st.integers(1, 150)), max_size=4
    ),
    st.none() | st.sampled_from(["hung", "driver-not-loaded"]),
)


@settings(deadline=None)
@given(st.lists(checks, max_size=12))
def test_every_reading_gets_one_verdict_with_its_reasons_and_memory_stays_small(turns):
    memory, now = HealthMemory(), 1000.0
    for after, found, told, failure in turns:
        now += after
        given_readings = [] if failure else found
        judged = judge(
            given_readings, [Xid(u, n, now) for u, n in told], memory, now, DEFAULT_XIDS, failure
        )
        memory = judged.memory
        assert [gpu.uuid for gpu in judged.gpus] == [reading.uuid for reading in given_readings]
        for gpu in judged.gpus:
            assert (gpu.state == "up") == (gpu.reasons == ())
            assert len(set(gpu.reasons)) == len(gpu.reasons)
        assert len({(latch.uuid, latch.xid) for latch in memory.latches}) == len(memory.latches)
        for spans in memory.heat.values():
            assert all(since < until <= now for since, until in spans)
            assert sum(until - since for since, until in spans) <= 600.0 + 1e-6


@settings(deadline=None, max_examples=50)
@given(st.lists(readings, min_size=2, max_size=4, unique_by=lambda r: r.gpu_uuid))
def test_a_gpu_is_judged_the_same_alone_and_in_company(found):
    together = judge(found, [], HealthMemory(), 1.0, DEFAULT_XIDS).gpus
    alone = [judge([reading], [], HealthMemory(), 1.0, DEFAULT_XIDS).gpus[0] for reading in found]
    assert list(together) == alone


_ASK = """
import ctypes, json, sys
class Now(ctypes.Structure):
    _fields_ = [("state", ctypes.c_int), ("xid", ctypes.c_int)]
library = ctypes.CDLL(sys.argv[1])
library.scenario_now.restype = Now
found = [library.scenario_now(gpu) for gpu in range(library.scenario_gpus())]
print(json.dumps([[now.state, now.xid] for now in found]))
"""
WORDS = [
    "ok",
    "lost",
    "missing",
    "hang",
    "ecc",
    "xid:79",
    "remap-pending",
    "remap-failed",
    "thermal",
    "not-supported",
]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to build the stand-in with")
def test_the_player_and_the_stand_in_read_a_scenario_alike(tmp_path):
    source = Path(standin.__file__).with_name("scenario.c")
    library = tmp_path / "scenario.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    for seed in range(12):
        chance = random.Random(seed)
        text = "gpus = 4  # any\n" + "".join(_event(chance) for _ in range(10))
        elapsed = (
            chance.randrange(0, 400, 4) + 2.0
        )  # all else happens at multiples of four: no race with the clock
        (tmp_path / "any.toml").write_text(text)
        environ = {"NVML_STANDIN_SCENARIO": str(tmp_path / "any.toml")}
        environ |= {"NVML_STANDIN_STARTED": f"{boottime() - elapsed:.6f}"}
        answer = subprocess.run(
            [sys.executable, "-S", "-c", _ASK, str(library)],
            env=os.environ | environ,
            capture_output=True,
            check=True,
        )
        played = [parse(text).state(gpu, elapsed)[0] for gpu in range(4)]
        assert [WORDS[state] for state, _ in json.loads(answer.stdout)] == played, text


def _event(chance):
    lines = ["[[event]]", f"at = {chance.randrange(0, 200, 4)}.0"]
    lines.append(f"gpu = {chance.choice([0, 1, 2, 3, chr(34) + 'all' + chr(34)])}")
    lines.append(f'state = "{chance.choice(WORDS)}"   # a comment')
    if chance.random() < 0.7:
        lines.append(f"for = {chance.randrange(4, 80, 4)}")
    if chance.random() < 0.5:
        lines.append(f"every = {chance.randrange(4, 120, 4)}.0")
    return "\n".join(lines) + "\n\n"
