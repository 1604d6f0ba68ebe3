"""`gpuping alerts` as a person uses it, on a running system and without one."""

import json
from pathlib import Path

import pytest
from system import Up, run


def alerts(up: Up, *arguments: str, code: int = 0) -> str:
    done = run("alerts", *arguments, "--data-dir", str(up.data_dir))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_silence_is_made_listed_and_ended(fleet: Up) -> None:
    options = ("--label", "site=FRA*", "--rule", "missing", "--for", "2h", "--reason", "works")
    made = json.loads(alerts(fleet, "silence", *options, "--json"))
    assert made["match"] == {"site": "FRA*", "rule": "missing"}
    listed = json.loads(alerts(fleet, "list", "--json"))
    assert [silence["silence_id"] for silence in listed["silences"]] == [made["silence_id"]]
    assert listed["targets"] == []
    assert "nobody is told" in alerts(fleet, "list")
    over_rest = json.loads(run("alerts", "list", "--json", "--server-url", fleet.url).stdout)
    assert over_rest["silences"] == listed["silences"]
    assert "ended" in alerts(fleet, "unsilence", made["silence_id"])
    assert "there is no target" in alerts(fleet, "test")
    alerts(fleet, "test", "pager", code=1)


def test_help_teaches_and_wrong_use_is_one_line(tmp_path: Path) -> None:
    shown = run("alerts", "--help").stdout
    for word in ("[[target]]", "webhook", "silence", "unsilence", "GPUPING_ALERTS_FILE"):
        assert word in shown
    for arguments in (
        ("silence", "--for", "2h", "--reason", "x"),
        ("silence", "a", "--for", "soon", "--reason", "x"),
        ("silence", "--label", "site", "--for", "2h", "--reason", "x"),
    ):
        done = run("alerts", *arguments)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("mode", "text"), [(0o644, ""), (0o600, "[[target]]\nname = 'x'\n")])
def test_a_file_that_cannot_be_used_ends_up_at_once(tmp_path: Path, mode: int, text: str) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(text)
    file.chmod(mode)
    done = run(
        *("up", "--port", "0", "--no-agent", "--data-dir", str(tmp_path / "data")),
        GPUPING_ALERTS_FILE=str(file),
        NATS_PORT="0",
        timeout=120,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "GPUPING_ALERTS_FILE" in done.stderr
