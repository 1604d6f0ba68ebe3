"""A bad setting ends at once with exit code 2 and one line: name, value, what was expected."""

import pytest
from system import run

from gpuping.cli import main

# Where the program finds out after it has begun, it is run as a process of its own.
FOUND_LATER = frozenset({"GATEWAY_HOST", "NATS_CONTEXT", "AGENT_SCENARIO"})
BAD = [
    ("PING_UPTIME_THRESHOLD", "101", "float <= 100.0"),
    ("PING_UPTIME_THRESHOLD", "nan", "finite"),
    ("PING_BASE_INTERVAL_MINUTES", "0", "float > 0.0"),
    ("PING_BASE_INTERVAL_MINUTES", "soon", "a number"),
    ("PING_MAX_INTERVAL_HOURS", "0.1", "at least the base interval"),
    ("PING_ESCALATION_MULTIPLIER", "0.5", "float >= 1.0"),
    ("PING_RECOVERY_THRESHOLD_PINGS", "2.5", "a whole number"),
    ("PING_FIRST_PING_GRACE_PERIOD", "perhaps", "true or false"),
    ("PING_MAX_CONCURRENT_AGENTS", "0", "int >= 1"),
    ("AGENT_ID", "agent.001", "regex"),
    ("AGENT_ID", "register", "reserved"),
    ("NATS_URL", "http://127.0.0.1:4222", "an address like nats://"),
    ("AGENT_SCENARIO", "no-such-scenario", "healthy"),
    ("GATEWAY_PORT", "70000", "int <= 65535"),
    ("GATEWAY_HOST", "0.0.0.0", "GPUPING_TOKENS_FILE"),  # noqa: S104  # refused is the point
    ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ("PING_BASE_INTERVALL_MINUTES", "15", "did you mean PING_BASE_INTERVAL_MINUTES?"),
    ("GPUPING_COLOUR", "red", "no such setting"),
    ("NATS_CONTEXT", "nowhere", "a saved context"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_bad_setting_is_one_line_and_exit_code_2(
    tmp_path, name, value, expected, monkeypatch, capsys
) -> None:
    arguments = ["up", "--data-dir", str(tmp_path)]
    if name != "GATEWAY_PORT":
        arguments += ["--port", "0"]
    if name in FOUND_LATER:
        ended = run(*arguments, **{name: value})
        code, said = ended.returncode, ended.stderr
    else:
        monkeypatch.setenv(name, value)
        code, said = main(arguments), capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1, said
    assert name in said
    assert value in said
    assert expected.lower() in said.lower()


def test_a_data_dir_that_reads_as_a_pattern_is_one_line_and_exit_code_2(tmp_path) -> None:
    folder = tmp_path / "what?"
    ended = run("storage", "--data-dir", str(folder))
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert str(folder) in ended.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["upp"], 'Did you mean "up"?'),
        (["up", "--colour"], "--colour"),
        (["up", "--port", "eighty"], "--port"),
        (["up", "--register-agents", "-1"], "--register-agents"),
        (["up", "--register-agents", "100000"], "--register-agents"),
        (["up", "--dashboard-interval", "0"], "--dashboard-interval"),
        (["history", "agent-001", "--hours", "0"], "--hours"),
        (["history", "agent-001", "--hours", "1e9"], "--hours"),
        (["history"], "Try gpuping history --help."),
        (["creds", "rotate"], "Try gpuping creds rotate --help."),
        (["report", "agent-001", "--month", "2026-13"], "--month='2026-13'"),
        (["top", "--server-url", "localhost:8000"], "--server-url"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, expected, capsys) -> None:
    code = main(arguments)
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1, said
    assert expected in said
