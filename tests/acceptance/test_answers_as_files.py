"""Answers as files: every format of the verbs that give an account, over the bus and over REST."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import duckdb
from system import environment, run, run_here

from bus.contract.exports import TABLES


def asked(*arguments: str) -> str:
    ended = run_here(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_statement_in_every_format(where: list[str], tmp_path: Path) -> None:
    rows = list(csv.DictReader(asked("report", "sim-001", "--format", "csv", *where).splitlines()))
    assert rows[0]["subject"] == "host"
    assert len(rows) == 3
    for suffix in ("csv", "parquet", "html", "json", "txt"):
        asked(
            "report",
            "sim-001",
            "--policy",
            "livepeer",
            "--output",
            str(tmp_path / f"s.{suffix}"),
            *where,
        )
    assert duckdb.read_parquet(str(tmp_path / "s.parquet")).columns == list(rows[0])
    assert "<!doctype html>" in (tmp_path / "s.html").read_text()
    assert "Livepeer" in (tmp_path / "s.html").read_text()
    assert json.loads((tmp_path / "s.json").read_text())["agent_id"] == "sim-001"
    assert "GPU 1" in (tmp_path / "s.txt").read_text()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        ".csv",
        ".html",
        ".json",
        ".parquet",
        ".txt",
    ]


def test_the_fleet_under_other_rules(where: list[str], tmp_path: Path) -> None:
    made = json.loads(asked("replay", "--threshold", "50", "--json", *where))
    assert {agent["agent_id"] for agent in made["agents"]} == {"sim-001", "sim-002"}
    text = asked("replay", "--policy", "livepeer", *where)
    assert "stay the same" in text
    assert "Livepeer" in text
    own = tmp_path / "own.toml"
    own.write_text('name = "half for all"\n[[bands]]\nat_least = 0.0\nrate = 0.5\n')
    rows = list(
        csv.DictReader(
            asked("replay", "--policy", str(own), "--format", "csv", *where).splitlines()
        )
    )
    assert {row["then"] for row in rows} == {"half for all"}
    assert {row["agent_id"] for row in rows} == {"sim-001", "sim-002"}


def test_every_table(where: list[str], tmp_path: Path) -> None:
    for table in TABLES:
        columns = asked("export", table, *where).splitlines()[0].split(",")
        asked("export", table, "--format", "parquet", "--output", str(tmp_path), *where)
        in_parquet = duckdb.read_parquet(str(tmp_path / f"{table}.parquet")).columns
        if table == "history":
            columns += ["report", "signature"]  # evidence, which is no text for a spreadsheet
        assert sorted(in_parquet) == sorted(columns)
    rows = list(
        csv.DictReader(asked("export", "agents", "sim-002", "--hours", "1", *where).splitlines())
    )
    assert [row["agent_id"] for row in rows] == ["sim-002"]
    assert len(asked("export", "statement", "sim-001", *where).splitlines()) == 4
    assert len(asked("export", "replay", "--threshold", "1", *where).splitlines()) == 3
    nobody = run("export", "history", "nobody", *where)
    assert nobody.returncode == 1
    assert "nobody" in nobody.stderr


def test_a_reader_that_has_had_enough_is_no_error(where: list[str]) -> None:
    command = [sys.executable, "-m", "gpuping", "export", "history", *where]
    ended = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert ended.stdout
    assert ended.stderr
    ended.stdout.close()  # before anything came
    assert ended.wait(120) == 0
    assert ended.stderr.read() == b""


def test_a_device_is_written_to_and_stays_one(where: list[str]) -> None:
    asked("export", "fleet", "--output", "/dev/null", *where)
    assert Path("/dev/null").is_char_device()


def test_a_file_that_cannot_be_written_leaves_the_old_one(where: list[str], tmp_path: Path) -> None:
    old = tmp_path / "agents.csv"
    old.write_text("old")
    ended = run("export", "history", "nobody", "--output", str(old), *where)
    assert ended.returncode == 1
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]
