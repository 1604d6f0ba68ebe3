"""A GPU host joins a fleet by one command, and is answered for under its own keys from then on."""

import json
import time
from pathlib import Path

from system import Program, Up, run, until

HOST = {"AGENT_GPU_CHECK_INTERVAL_SECONDS": "1", "LOG_LEVEL": "info"}


def command_of(fleet: Up, *arguments: str) -> list[str]:
    """The command that `gpuping enroll new` prints, without the word `gpuping`."""
    ended = run("enroll", "new", *arguments, "--data-dir", str(fleet.data_dir))
    assert ended.returncode == 0, ended.stderr
    assert "until" in ended.stderr
    program, *command = ended.stdout.split()
    assert program == "gpuping"
    return command


def host(programs: list[Program], folder: Path, *command: str, **variables: str) -> Program:
    """A host of its own: another data dir, and nothing else of the fleet's."""
    agent = Program(
        *command, "--scenario", "healthy", "--data-dir", str(folder), **(HOST | variables)
    )
    programs.append(agent)
    return agent


def test_one_command_and_the_first_ping_is_answered_at_once(
    fleet: Up, programs: list[Program], tmp_path: Path
) -> None:
    command = command_of(fleet, "--id", "gpu-7")
    agent = host(programs, tmp_path / "host", *command)
    until(lambda: fleet.pings("gpu-7"), "its first ping is in the history")
    # Seconds on an idle machine; never an interval, however busy it is.
    assert time.monotonic() - agent.started < 90.0
    assert fleet.pings("gpu-7")[0]["outcome"] == "answered"
    secret = command[-1].split(".")[0]
    assert secret not in agent.output
    state = tmp_path / "host" / "agentd"
    kept = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}
    assert kept["gpu-7.creds"] == 0o600
    assert kept["gpu-7.signing.seed"] == 0o600
    assert not [name for name in kept if name.startswith("enrolling")]
    assert not [path for path in state.iterdir() if path.is_file() and secret in _text(path)]

    agent.stop()
    again = host(programs, tmp_path / "host", "agentd")
    again.printed("agent gpu-7 .* on the bus at")
    until(lambda: fleet.agents()["gpu-7"]["connected"], "it came back by itself")

    used = run(*command, "--scenario", "healthy", "--data-dir", str(tmp_path / "thief"))
    assert used.returncode == 1
    assert "was used" in used.stderr
    assert secret not in used.stderr


def test_a_host_that_is_enrolled_again_takes_the_place_of_the_earlier_one(
    fleet: Up, programs: list[Program], tmp_path: Path
) -> None:
    host(programs, tmp_path / "old", *command_of(fleet, "--id", "gpu-8"))
    until(lambda: fleet.pings("gpu-8"), "the first host is pinged")
    new = host(programs, tmp_path / "new", *command_of(fleet, "--id", "gpu-8"))
    new.printed("agent_registered")
    listed = json.loads(run("creds", "list", "--json", "--data-dir", str(fleet.data_dir)).stdout)
    standings = [user["standing"] for user in listed if user["name"] == "gpu-8"]
    assert standings == ["revoked", "valid"]
    assert fleet.ping_by_hand("gpu-8")["outcome"] == "answered"


def test_a_token_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    for word in ("x", "x@127.0.0.1:4222", "@127.0.0.1:4222"):
        ended = run("agentd", "--enroll", word, "--data-dir", str(tmp_path))
        assert ended.returncode in {1, 2}
        assert "Traceback" not in ended.stderr
        assert "enroll" in ended.stderr


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def test_the_history_of_an_agent_is_verified_offline(fleet: Up, tmp_path: Path) -> None:
    # within a second of an outcome, a ping by hand is answered with that outcome
    until(lambda: fleet.ping_by_hand("sim-001")["ping_seq"] >= 2, "it is pinged once more")
    # the server dropped deliveries to storage while it took the account that changed before
    until(lambda: len(fleet.pings("sim-001")) >= 2, "both pings are in the history")
    asked = ("history", "sim-001", "--evidence", "--json", "--data-dir", str(fleet.data_dir))
    kept = run(*asked)
    assert kept.returncode == 0, kept.stderr
    file = tmp_path / "reports.json"
    file.write_text(kept.stdout)
    verified = run("verify", str(file), "--data-dir", str(fleet.data_dir))
    assert verified.returncode == 0, verified.stdout
    assert "every signature, chain and sum is right" in verified.stdout
    _verified_as_bundle_and_parquet(fleet, tmp_path)

    # within a report, which stands in the file as text
    changed = kept.stdout.replace('Simulated GPU\\"', 'Simulated GPu\\"', 1)
    assert changed != kept.stdout
    file.write_text(changed)
    refused = run("verify", str(file), "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert "the signature is wrong" in refused.stdout


def _verified_as_bundle_and_parquet(fleet: Up, folder: Path) -> None:
    for words, name in (
        (("report", "sim-001"), "month.bundle"),
        (("export", "history", "sim-001"), "history.parquet"),
    ):
        file = folder / name
        made = run(*words, "--output", str(file), "--data-dir", str(fleet.data_dir))
        assert made.returncode == 0, made.stderr
        verified = run("verify", str(file), "--json", "--data-dir", str(fleet.data_dir))
        found = json.loads(verified.stdout)
        assert (verified.returncode, found["problems"]) == (0, 0), found
        assert found["agents"][0]["signed"] >= 2
