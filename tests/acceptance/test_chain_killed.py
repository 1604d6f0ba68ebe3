"""The chain of a host's reports over SIGKILL of everything, and over a restored backup.

`gpuping verify` believes what it is given: signatures, the chain, windows, and whose each break is.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from system import Program, Up, run, until

from tests.ports import free_port

QUICK = {
    "PING_BASE_INTERVAL_MINUTES": "0.03",
    "PING_MAX_INTERVAL_HOURS": "0.001",
    "PING_RESPONSE_TIMEOUT_SECONDS": "1",
}
HOST = "gpu-1"


def answered(up: Up) -> int:
    return sum(ping["outcome"] == "answered" for ping in up.pings(HOST))


def more(up: Up, count: int = 2) -> None:
    """Waits until so many pings more were answered."""
    before = answered(up)
    until(lambda: answered(up) >= before + count, "it is pinged again", 120)


def statement(up: Up, path: Path, breaks: list[str]) -> dict[str, Any]:
    """Verifies the bundle of this month, which has these breaks; returns the statement."""
    made = run(
        "report", HOST, "--format", "bundle", "-o", str(path), "--data-dir", str(up.data_dir)
    )
    assert made.returncode == 0, made.stderr
    verified = run("verify", str(path), "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    said = [finding["text"] for finding in json.loads(verified.stdout)["findings"]]
    assert [text.partition(".")[0] for text in said] == breaks
    shown = run("report", HOST, "--json", "--data-dir", str(up.data_dir))
    return dict(json.loads(shown.stdout))


@pytest.mark.slow
def test_reports_verify_over_kills_and_a_restored_backup(
    tmp_path: Path, programs: list[Program]
) -> None:
    port = free_port()
    data = tmp_path / "data"

    def up_on(folder: Path) -> Up:
        up = Up(folder, "--no-agent", NATS_PORT=str(port), **QUICK)
        programs.append(up)
        return up.ready()

    def agent_on(*arguments: str) -> Program:
        agent = Program(
            *("agentd", *arguments, "--scenario", "healthy", "--data-dir", str(tmp_path / "host")),
            AGENT_GPU_CHECK_INTERVAL_SECONDS="0.2",
        )
        programs.append(agent)
        return agent

    up = up_on(data)
    made = run("enroll", "new", "--id", HOST, "--data-dir", str(data))
    agent = agent_on("--enroll", made.stdout.split("--enroll ")[1].strip())
    until(lambda: answered(up) >= 2, "its first pings are answered", 120)
    for _ in range(2):
        up.kill()  # scheduler, storage, gateway; the server ends with them
        up = up_on(data)
        more(up)
        agent.kill()
        agent = agent_on()
        more(up)
    before = statement(up, tmp_path / "before.bundle", [])

    folder = tmp_path / "backup"
    saved = run("backup", str(folder), "--keys-to", str(tmp_path / "keys"), "--data-dir", str(data))
    assert saved.returncode == 0, saved.stderr
    more(up)  # what a restored system has never heard of
    up.kill()
    restored = tmp_path / "restored"
    shutil.copytree(tmp_path / "keys", restored / "identity")
    done = run("restore", str(folder), "--data-dir", str(restored), NATS_PORT=str(port))
    assert done.returncode == 0, done.stdout + done.stderr
    up = up_on(restored)
    more(up, 3)
    after = statement(up, tmp_path / "after.bundle", ["ours: the bus was restored from a backup"])
    agent.stop()
    up.stop()
    # No time of the kills and of what the backup lacks is billed as down time.
    for month in (before, after):
        assert month["host"]["seconds"]["down"] == 0
