"""What gpuping keeps is its user's alone, and nothing is written through somebody else's links."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.system import Up, environment, run

IS_ROOT = os.geteuid() == 0
AS_IF_CARELESS = "import os, sys; os.umask(0); from gpuping.cli import main; sys.exit(main())"
VICTIM = "what only its owner may write"


def modes(folder: Path) -> dict[str, str]:
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o077:
            found[str(path.relative_to(folder.parent))] = oct(mode)
    return found


def test_all_of_a_data_dir_is_its_users_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    up = Up(data, "--register-agents", "1")
    try:
        up.ready()
        up.printed("first answered ping")
        run("doctor", "--data-dir", str(data))
        assert modes(data) == {}
    finally:
        up.stop()
    assert modes(data) == {}


def attack(folder: Path, victim: Path) -> None:
    """Somebody else's folder, whose names lead to a file that only we may write."""
    (folder / "nats").mkdir(parents=True)
    (folder / "storage").mkdir()
    for name in (
        "up.lock",
        "bus.json",
        ".doctor",
        "nats/nats-server.conf",
        "nats/nats-server.log",
        "nats/nats-server.out",
        "nats/nats-server.pid",
        "storage/storage.duckdb",
    ):
        (folder / name).symlink_to(victim)


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="only root can make somebody else's folder")
@pytest.mark.parametrize("verb", ["up", "agentd", "doctor"])
def test_a_foreign_data_dir_is_one_line_and_nothing_is_overwritten(
    tmp_path: Path, verb: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text(VICTIM)
    data = tmp_path / "data"
    attack(data, victim)
    for path in [data, *data.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    variables = {"AGENT_STATE_DIR": str(data), "AGENT_SCENARIO": "healthy", "NATS_PORT": "0"}
    done = run(verb, "--data-dir", str(data), **variables)
    assert victim.read_text() == VICTIM
    if verb != "doctor":
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 + (verb == "agentd")  # it says where it connects
        assert "belongs to another user" in done.stderr


def test_links_in_a_data_dir_of_ones_own_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for name in ("up.lock", "nats/nats-server.conf", "nats/nats-server.log", "nats/jetstream"):
        victim.write_text(VICTIM)
        data = tmp_path / name.replace("/", "-")
        (data / "nats").mkdir(parents=True)
        (data / name).symlink_to(victim)
        done = run("up", "--port", "0", "--data-dir", str(data), NATS_PORT="0")
        assert done.returncode in {1, 2}, name
        assert "Traceback" not in done.stderr
        assert victim.read_text() == VICTIM, name


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    done = run("up", "--port", "0", "--data-dir", str(data), NATS_PORT="0")
    assert done.returncode == 2
    assert "can be written by everybody" in done.stderr
    assert list(data.iterdir()) == []


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o000])
def test_the_containers_user_can_read_a_tokens_file(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "tokens.toml"
    code = f"import os; os.umask({umask}); " + AS_IF_CARELESS.replace("os.umask(0); ", "")
    for name in ("ada", "eve"):
        command = [sys.executable, "-c", code, "token", name, "--file", str(file)]
        subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.read_text().count("[[token]]") == 2


def test_a_tokens_file_is_not_committed(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (Path(__file__).parents[2] / ".git").exists():
        pytest.skip("no git checkout here")
    command = ["git", "check-ignore", "deploy/tokens.toml"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True)
    assert done.returncode == 0
