"""`gpuping` in a shell: its reader may leave early, and it edits no file that nobody named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from system import Up, environment, run, until


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
            timeout=30,
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
            env=environment(NATS_PORT="0"),
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
            assert up.wait(20) == 0
        finally:
            up.kill()
            up.wait()
    assert "Traceback" not in (tmp_path / "errors").read_text()


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
