"""The reading commands against a running system: over the bus and REST, as text and JSON."""

import json
import signal

import httpx
import pytest
from system import Program, Up, run, run_here, until


def asked(*arguments: str) -> str:
    ended = run_here(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_agents(fleet: Up, where: list[str]) -> None:
    page = json.loads(asked("agents", "--json", *where))
    assert [agent["agent_id"] for agent in page["agents"]] == ["sim-001", "sim-002"]
    assert page["total"] == 2
    text = asked("agents", *where)
    assert "sim-001" in text
    assert "2/2 sim" in text
    assert json.loads(asked("agents", "--status", "missing", "--json", *where))["agents"] == []


def test_ping_is_a_look(fleet: Up, where: list[str]) -> None:
    report = json.loads(asked("ping", "sim-001", "--json", *where))
    assert report["agent_id"] == "sim-001"
    assert "Simulated GPU" in asked("ping", "sim-001", *where)
    assert fleet.agents()["sim-001"]["total_pings"] == 1


def test_history(fleet: Up, where: list[str]) -> None:
    until(lambda: fleet.pings("sim-001"), "the first ping is in history")
    reply = json.loads(asked("history", "sim-001", "--hours", "1", "--json", *where))
    assert [ping["verdict"] for ping in reply["pings"]] == ["first"]
    assert "1 ping (1 first)" in asked("history", "sim-001", *where)


def test_report(fleet: Up, where: list[str]) -> None:
    until(lambda: fleet.pings("sim-001"), "the first ping is in history")
    statement = json.loads(asked("report", "sim-001", "--json", *where))
    assert statement["agent_id"] == "sim-001"
    assert statement["host"]["uptime_percent"] is not None
    assert len(statement["gpus"]) == 2
    text = asked("report", "sim-001", "--policy", "livepeer", *where)
    assert "so far" in text
    assert "Livepeer" in text


def test_top_prints_one_screen_where_there_is_no_terminal(fleet: Up, where: list[str]) -> None:
    assert "2 agents  2 healthy" in asked("top", *where)
    dashboard = json.loads(asked("top", "--json", *where))
    assert dashboard["totals"]["agents"] == 2
    assert dashboard["by_status"]["healthy"] == 2


def test_doctor_finds_nothing_wrong(fleet: Up) -> None:
    findings = json.loads(asked("doctor", "--json", "--data-dir", str(fleet.data_dir)))
    levels = {finding["check"]: finding["level"] for finding in findings}
    assert {
        levels[check]
        for check in ("bus", "permissions", "jetstream", "streams", "services", "gateway")
    } == {"ok"}
    answering = asked("doctor", "--data-dir", str(fleet.data_dir))
    for name in ("scheduler", "storage", "enrolment", "alerts", "agentd"):
        assert f"gpuping-{name}" in answering


@pytest.mark.parametrize("service", ["scheduler", "storage", "agentd"])
def test_doctor_answers_for_one_service(fleet: Up, service: str) -> None:
    asked("doctor", "--answers", service, "--data-dir", str(fleet.data_dir))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ping", "nobody"], "nobody"),
        (["history", "nobody"], "nobody"),
        (["report", "nobody"], "nobody"),
    ],
)
def test_a_question_about_nobody_is_one_line(
    fleet: Up, where: list[str], arguments: list[str], said: str
) -> None:
    ended = run(*arguments, *where)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert said in ended.stderr


@pytest.mark.parametrize("verb", [["top"], ["agents"], ["ping", "x"], ["history", "x"], ["doctor"]])
def test_without_a_running_system_they_say_what_to_do(tmp_path, verb: list[str]) -> None:
    ended = run(*verb, "--data-dir", str(tmp_path), NATS_URL="nats://127.0.0.1:1")
    assert ended.returncode == 1
    assert "gpuping up" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


def test_each_service_runs_by_itself_until_sigterm(
    fleet: Up, programs: list[Program], tmp_path
) -> None:
    fleet.credentials_of("agent-009")
    for verb in (["scheduler"], ["gateway", "--port", "0"], ["agentd", "--scenario", "healthy"]):
        program = Program(
            *verb,
            "--data-dir",
            str(tmp_path),
            NATS_URL=fleet.nats_url,
            NATS_CREDS=str(fleet.users),
            AGENT_ID="agent-009",
        )
        programs.append(program)
        if verb[0] == "agentd":
            until(lambda: "agent-009" in fleet.agents(), "it registers itself")
        else:
            program.printed("ready")
        assert program.stop(signal.SIGTERM) == 0, program.output
        assert "Traceback" not in program.output


def test_what_everybody_may_see_is_made_and_revoked(fleet: Up, where: list[str]) -> None:
    added = asked(
        *("status-page", "add", "fleet", "--title", "Our fleet", "--agents", "sim-001,sim-002"),
        *("--replace", *where),
    )
    assert f"{fleet.url}/status/fleet" in added
    address = asked("badge", "sim-001", "--name", "First", *where).strip()
    assert address.startswith(f"{fleet.url}/badge/")
    assert b"First: " in opened(address)
    revoked = json.loads(asked("revoke-links", "sim-001", "--json", *where))
    assert revoked["agent_id"] == "sim-001"
    until(lambda: opened(address) == b"", "the badge is refused")
    wrong = run("status-page", "add", "Fleet!", "--title", "x", "--agents", "sim-001", *where)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


def opened(address: str) -> bytes:
    """What an address answers to somebody without a token; nothing where it is a 404."""
    answer = httpx.get(address, timeout=20)
    if answer.status_code == 404:
        return b""
    assert answer.status_code == 200
    return answer.content
