"""Wrong usage ends with one line and exit code 2, before anything is asked or started."""

import pytest

from gpuping.cli import main

WRONG = [
    ["frobnicate"],
    ["ping"],
    ["ping", "a.b"],
    ["ping", "a" * 64],
    ["ping", "register"],
    ["history", "a b"],
    ["history", "a-1", "--hours", "0"],
    ["history", "a-1", "--hours", "87601"],
    ["history", "a-1", "--limit", "1001"],
    ["report", "a*", "--month", "2026-11"],
    ["report", "a-1", "--month", "2026-13"],
    ["report", "a-1", "--month", "9999-12"],
    ["report", "a-1", "--month", "0000-01"],
    ["report", "a-1", "--month", "2026-11\n"],
    ["report", "a-1", "--month", "\uff12026-11"],
    ["report", "a-1", "--format", "pdf"],
    ["report", "a-1", "--format", "csv", "--json"],
    ["report", "a-1", "--output", "/nowhere/at-all/x.csv"],
    ["report", "a-1", "--threshold", "101"],
    ["replay", "--month", "2026-11"],
    ["replay", "--policy", "livepeer", "--month", "november"],
    ["replay", "--threshold", "98", "--format", "html"],
    ["export"],
    ["export", "everything"],
    ["export", "history", "a b"],
    ["export", "history", "--by", "day"],
    ["export", "fleet", "a-1"],
    ["export", "agents", "--hours", "1", "--month", "2026-11"],
    ["export", "agents", "--month", "2026-13"],
    ["export", "agents", "--threshold", "98"],
    ["export", "agents", "--output", "x.html"],
    ["export", "statement"],
    ["export", "statement", "a-1", "--hours", "3"],
    ["export", "replay"],
    ["export", "replay", "a-1", "--threshold", "98"],
    ["agents", "--status", "splendid"],
    ["up", "--port", "http"],
    ["up", "--register-agents", "-1"],
    ["up", "--no-such-option"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage_ends_with_2_and_one_line(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gpuping: ")
    assert said.err.count("\n") == 1


def test_a_bad_id_is_told_what_an_id_looks_like(capsys):
    assert main(["ping", "not.an.id"]) == 2
    assert "not valid: use 1 to 63 of" in capsys.readouterr().err
    assert main(["history", "register"]) == 2
    assert "is reserved: choose another. Try" in capsys.readouterr().err
