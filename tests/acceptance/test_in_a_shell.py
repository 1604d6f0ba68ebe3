"""`gpuping` in a shell: its reader may leave early, and it edits no file that nobody named."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from system import Up, environment, run, until

from tests.ports import free_port


def pipe_without_reader() -> int:
    """The end of a pipe to write to, whose other end is closed."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end


def run_without_reader(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose standard output nobody reads any more, as after `| head` has seen enough."""
    write_end = pipe_without_reader()
    try:
        return subprocess.run(
            [sys.executable, "-m", "gpuping", *arguments],
            env=environment(),
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(write_end)


@pytest.mark.parametrize(
    "command",
    [
        ["history", "sim-001"],
        ["history", "sim-001", "--json"],
        ["agents"],
        ["ping", "sim-001"],
        ["top"],
        ["report", "sim-001"],
        ["report", "sim-001", "--json"],
        ["export", "history", "sim-001"],
        ["doctor"],
        ["doctor", "--json"],
    ],
    ids=" ".join,
)
def test_a_reader_that_leaves_early_is_no_error(fleet: Up, command: list[str]) -> None:
    ended = run_without_reader(*command, "--data-dir", str(fleet.data_dir))
    assert ended.stderr == ""
    assert ended.returncode == 0


@pytest.mark.parametrize(
    "command", [["agents"], ["agents", "--json"], ["doctor"], ["export", "history", "sim-001"]]
)
def test_a_full_disk_under_an_answer_is_one_line(fleet: Up, command: list[str]) -> None:
    """`gpuping agents > FILE` on a full disk."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "gpuping", *command, "--data-dir", str(fleet.data_dir)],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("gpuping: standard output cannot be written: No space left")
    assert len(ended.stderr.splitlines()) == 1


def test_an_answer_that_nobody_wants_is_no_error(fleet: Up) -> None:
    """With all three streams closed, as some supervisors and cron jobs start their programs."""
    words = [sys.executable, "-m", "gpuping", "agents", "--data-dir", str(fleet.data_dir)]
    command = f"{shlex.join(words)} <&- >&- 2>&-"
    ended = subprocess.run(["sh", "-c", command], env=environment(), timeout=120, check=False)
    assert ended.returncode == 0


def test_help_may_be_cut_short(tmp_path: Path) -> None:
    ended = run_without_reader("--help")
    assert ended.stderr == ""
    assert ended.returncode == 0


def test_up_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    write_end = pipe_without_reader()
    command = ["up", "--no-agent", "--register-agents", "1", "--port", "0"]
    with (tmp_path / "errors").open("w+") as errors:
        up = subprocess.Popen(
            [sys.executable, "-m", "gpuping", *command, "--data-dir", str(tmp_path / "data")],
            env=environment(NATS_PORT=str(free_port())),
            stdout=write_end,
            stderr=errors,
        )
        os.close(write_end)
        try:

            def is_pinged() -> bool:
                assert up.poll() is None, (tmp_path / "errors").read_text()
                asked = run("history", "sim-001", "--data-dir", str(tmp_path / "data"))
                return "1 ping (1 first)" in asked.stdout

            until(is_pinged, "the test agent is pinged")
            up.terminate()
            assert up.wait(60) == 0
        finally:
            up.kill()
            up.wait()
    assert "Traceback" not in (tmp_path / "errors").read_text()


@pytest.mark.parametrize("streams", ["> /dev/full 2> /dev/full", "<&- >&- 2>&-"])
def test_a_service_goes_on_whatever_its_streams_are(tmp_path: Path, streams: str) -> None:
    """A full disk under the log, and streams that a supervisor closed."""
    folder = tmp_path / "data"
    words = ["up", "--no-agent", "--register-agents", "1", "--port", "0", "--data-dir", str(folder)]
    command = shlex.join([sys.executable, "-m", "gpuping", *words])
    up = subprocess.Popen(
        ["sh", "-c", f"exec {command} {streams}"],
        env=environment(
            NATS_PORT=str(free_port()), LOG_LEVEL="debug", PING_BASE_INTERVAL_MINUTES="0.02"
        ),
    )
    try:

        def is_pinged_again() -> bool:
            assert up.poll() is None
            return "(1 first, " in run("history", "sim-001", "--data-dir", str(folder)).stdout

        until(is_pinged_again, "the test agent is pinged a second time")
        up.terminate()
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.wait()


def test_completion_into_a_file_edits_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = tmp_path / "gpuping.bash"
    ended = run("completion", "--shell", "bash", "-o", str(script), HOME=str(home))
    assert ended.returncode == 0, ended.stderr
    assert "gpuping" in script.read_text()
    assert str(script) in ended.stdout
    assert list(home.iterdir()) == []


def test_completion_is_installed_for_the_next_shell(tmp_path: Path) -> None:
    ended = run("completion", "--shell", "bash", HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    installed = tmp_path / ".local/share/bash-completion/completions/gpuping"
    assert "gpuping" in installed.read_text()
    assert str(installed) in (tmp_path / ".bashrc").read_text()
