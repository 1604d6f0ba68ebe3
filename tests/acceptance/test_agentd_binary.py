"""`gpuping-agentd`, the self-contained file: made by `make agentd-binary`, run without a Python."""

import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# of Ubuntu 22.04, the oldest system that the file is for
NEWEST_GLIBC = (2, 35)
NEEDED_GLIBC: dict[str, Any] = runpy.run_path(str(ROOT / "deploy/release/needed_glibc.py"))


@pytest.fixture(scope="module")
def binary(tmp_path_factory) -> Path:
    made = subprocess.run(
        ["make", "agentd-binary"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "dist/gpuping-agentd needs glibc 2." in made.stdout
    # alone in a folder: nothing of the clone is near
    alone = tmp_path_factory.mktemp("alone") / "gpuping-agentd"
    shutil.copy(ROOT / "dist/gpuping-agentd", alone)
    return alone


def run(binary: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [binary, *arguments],
        env={"PATH": "/nowhere", "TMPDIR": str(binary.parent), **environ},
        cwd=binary.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_it_says_its_version_and_teaches(binary):
    assert run(binary, "--version").communicate()[0].strip() == "0.1.0"
    assert "--enroll" in run(binary, "--help").communicate()[0]


@pytest.mark.slow
def test_a_bad_setting_is_one_line(binary):
    ended = run(binary, AGENT_GPU_CHECK_INTERVAL_SECONDS="no", HOME=str(binary.parent))
    assert ended.wait(60) == 2
    assert ended.stdout.read().count("\n") == 1


@pytest.mark.slow
def test_it_runs_and_wants_no_newer_c_library_than_that_of_ubuntu_22_04(binary):
    agent = run(
        binary,
        AGENT_ID="a",
        AGENT_SCENARIO="healthy",
        AGENT_HTTP_PORT="0",
        AGENT_STATE_DIR=str(binary.parent / "state"),
        NATS_URL="nats://127.0.0.1:1",
    )
    try:
        for line in agent.stdout:
            if "http_started" in line:
                break
        (unpacked,) = binary.parent.glob("_MEI*")
        files = [path for path in unpacked.rglob("*") if path.is_file()]
        wanted = [NEEDED_GLIBC["newest_of"](path.read_bytes()) for path in (binary, *files)]
        assert (0, 0) < max(wanted) <= NEWEST_GLIBC
    finally:
        agent.terminate()
        assert agent.wait(20) == 0
    assert not list(binary.parent.glob("_MEI*")), "it leaves nothing behind"


def test_whoever_makes_it_on_a_newer_system_is_told():
    library = b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.38\0GLIBC_PRIVATE\0memcpy\0"
    assert NEEDED_GLIBC["newest_of"](library) == (2, 38)
    assert "Ubuntu 22.04" in NEEDED_GLIBC["too_new"]((2, 38))
    # what a file made by Debian 12's own Python needs, where the advice was to make it on Debian 12
    assert "built there from its source" in NEEDED_GLIBC["too_new"]((2, 36))
    assert NEEDED_GLIBC["too_new"](NEWEST_GLIBC) is None
    assert NEEDED_GLIBC["newest_of"](b"no library") == (0, 0)


@pytest.mark.slow
def test_it_is_small(binary):
    assert binary.stat().st_size < 30e6
