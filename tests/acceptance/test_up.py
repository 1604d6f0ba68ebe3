"""The first minutes of a new user: one command, an answered ping, a page, a clean end."""

import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import httpx
import pytest
from system import Program, Up, is_settled, run, until

from tests.ports import free_port


def test_the_first_answered_ping_comes_at_once(launch) -> None:
    up = launch(AGENT_ID="agent-001")
    up.printed("first answered ping agent-001")
    # Seconds on an idle machine; never an interval, however busy it is.
    assert time.monotonic() - up.started < 90.0
    up.ready()
    assert "simulated GPUs, scenario healthy" in up.output or "libnvidia" in up.output
    page = httpx.get(f"{up.url}/", timeout=30)
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert up.agents()["agent-001"]["status"] == "healthy"


def test_sigterm_ends_it_cleanly_and_keeps_everything(launch) -> None:
    up = launch("--register-agents", "2", "--no-agent").ready()
    assert until(lambda: up.agents().get("sim-001"), "it is known")["metadata"]["simulated"] is True
    until(
        lambda: len(up.agents()) == 2 and all(map(is_settled, up.agents().values())),
        "both are pinged",
    )
    until(lambda: up.pings("sim-001"), "history has the ping")
    before, history = up.agents(), up.pings("sim-001")
    assert stat.S_IMODE((up.data_dir / "bus.json").stat().st_mode) == 0o600
    up.process.send_signal(signal.SIGTERM)
    assert up.stop() == 0, up.output  # the same signal twice in one moment is one
    assert "stopped at once" not in up.output
    assert "Traceback" not in up.output
    assert not (up.data_dir / "bus.json").exists()

    again = launch("--register-agents", "2", "--no-agent").ready()
    after = again.agents()
    assert set(after) == {"sim-001", "sim-002"}
    for agent_id, agent in after.items():
        assert agent["next_ping_at"] == before[agent_id]["next_ping_at"]
        assert agent["registered_at"] == before[agent_id]["registered_at"]
        assert agent["total_pings"] == before[agent_id]["total_pings"]
    assert again.pings("sim-001") == history
    again.printed(r"2 known agents, next ping in \d+m")


def test_a_signal_during_the_start_ends_it_too(launch) -> None:
    up = launch("--no-agent")
    until((up.data_dir / "nats").exists, "its nats-server is being started")
    assert up.stop() == 0
    assert "Traceback" not in up.output


def test_a_second_ctrl_c_ends_it_at_once(launch) -> None:
    up = launch("--no-agent").ready()
    server = int((up.data_dir / "nats" / "nats-server.pid").read_text())
    os.kill(server, signal.SIGSTOP)  # now a clean stop takes longer than a person waits
    up.process.send_signal(signal.SIGINT)
    up.printed("stopping")
    time.sleep(0.6)  # a second one counts from half a second on
    assert up.stop(signal.SIGINT) == 128 + signal.SIGINT
    assert "stopped at once (SIGINT again)" in up.output
    until(lambda: not Path(f"/proc/{server}").exists(), "the nats-server dies with it")


def test_a_busy_port_is_said_in_one_line_before_anything_starts(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("up", "--port", str(port), "--data-dir", str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"GATEWAY_PORT={port}" in ended.stderr
    assert "--port" in ended.stderr
    assert not (tmp_path / "nats").exists()


def test_with_nats_url_it_starts_no_server_of_its_own(launch, tmp_path) -> None:
    first = launch("--no-agent").ready()
    first.credentials_of("agent-007")
    second = Up(
        tmp_path / "other",
        "--scenario",
        "healthy",
        AGENT_ID="agent-007",
        NATS_URL=first.nats_url,
        NATS_CREDS=str(first.users),
    )
    try:
        second.ready()
        assert second.nats_url == first.nats_url
        assert not (tmp_path / "other" / "nats").exists()
        until(
            lambda: first.agents().get("agent-007"), "the first system knows the second one's agent"
        )
    finally:
        second.stop()


@pytest.mark.parametrize("verb", ["agentd", "up"])
def test_agent_mode_is_the_agent_alone_with_its_own_endpoints(
    launch, programs, tmp_path, verb
) -> None:
    up = launch("--no-agent").ready()
    port = free_port()
    agent = Program(
        verb,
        "--data-dir",
        str(tmp_path / "host"),
        "--scenario",
        "healthy",
        AGENT_MODE="true",
        AGENT_ID="agent-001",
        AGENT_HTTP_PORT=str(port),
        NATS_URL=up.nats_url,
        NATS_CREDS=up.credentials_of("agent-001"),
    )
    programs.append(agent)
    known = until(
        lambda: up.agents().get("agent-001", {}).get("total_pings"),
        "agent-001 is registered and pinged",
    )
    assert known == 1
    for path in ("uptime-since-last-ping", "gpu-status", "health"):
        answer = httpx.get(f"http://127.0.0.1:{port}/agent/{path}", timeout=30)
        assert answer.status_code == 200, answer.text
        assert "agent-001" in answer.text
    assert agent.stop() == 0
    assert "Traceback" not in agent.output


def test_a_system_is_known_by_its_data_dir_until_ctrl_c(launch) -> None:
    up = launch("--no-agent").ready()
    file = up.bus_file()
    assert file["pid"] == up.process.pid
    assert file["nats_url"] == up.nats_url
    assert file["gateway_url"] == up.url

    second = run("up", "--port", "0", "--data-dir", str(up.data_dir))
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"already runs on {up.data_dir} (pid {up.process.pid})" in second.stderr
    assert up.get("/healthz")

    assert up.stop(signal.SIGINT) == 0
    assert "Traceback" not in up.output
    ended = run("top", "--data-dir", str(up.data_dir))  # never taken for another one
    assert ended.returncode == 1
    assert "does not run" in ended.stderr


def test_a_stale_bus_json_counts_for_nothing(launch) -> None:
    up = launch("--no-agent").ready()
    up.kill()
    assert (up.data_dir / "bus.json").exists()
    ended = run("agents", "--data-dir", str(up.data_dir))
    assert ended.returncode == 1
    assert f"the system of {up.data_dir} does not run: start it with `gpuping up`" in ended.stderr
    assert json.loads((up.data_dir / "bus.json").read_text())["pid"] == up.process.pid


@pytest.mark.slow
def test_storage_rebuild_makes_the_same_history_again(launch) -> None:
    up = launch("--register-agents", "2", "--no-agent", "--dashboard-interval", "0.5").ready()
    up.printed(r"2 agents  2 healthy")
    shown = up.output.count(" UTC  ")
    until(lambda: up.output.count(" UTC  ") > shown, "another dashboard")
    before = until(lambda: up.pings("sim-002") and up.pings("sim-001"), "history has both pings")
    while_it_runs = run("storage", "rebuild", "--data-dir", str(up.data_dir))
    assert while_it_runs.returncode == 1
    assert f"pid {up.process.pid}" in while_it_runs.stderr
    assert up.stop() == 0

    rebuilt = run("storage", "rebuild", "--data-dir", str(up.data_dir), LOG_LEVEL="warning")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "rebuilt: 2 pings, the same as before" in rebuilt.stdout
    assert launch("--no-agent").ready().pings("sim-001") == before
