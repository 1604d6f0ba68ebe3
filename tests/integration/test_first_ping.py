"""The first ping of a host with real GPUs: agentd on the C stand-in, with default settings.

However long the driver takes to open, the host is pinged when it has looked at its GPUs.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway.service
import scheduler.service
import storage.service
from bus import settings
from bus.settings import Settings
from tests import standin

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler to build the stand-in with"
)

OPENINGS = {
    "opens-at-once": 0.0,
    "opens-in-300-ms": 0.3,
    "opens-in-1500-ms": 1.5,
    "opens-in-3-s": 3.0,
    "opens-in-9-s": 9.0,
}
GPUS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
def default_settings(base_settings: Settings, tmp_path) -> Settings:
    return settings.load(
        {},
        NATS_URL=base_settings.NATS_URL,
        GPUPING_DATA_DIR=str(tmp_path / "data"),
        GATEWAY_PORT=0,
    )


@pytest.fixture
async def http(default_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        scheduler.service.running(default_settings),
        storage.service.running(default_settings),
        gateway.service.running(default_settings) as running,
        httpx.AsyncClient(base_url=running.url, timeout=20) as client,
    ):
        yield client


@pytest.fixture
def start_agentd(default_settings: Settings, tmp_path):
    """`start_agentd(agent_id, opening)` starts an agentd whose library takes so long to open."""
    library = standin.build(tmp_path / "standin")
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(f"gpus = {GPUS}\n")
    with contextlib.ExitStack() as stack:

        def start(agent_id: str, opening: float) -> None:
            environ = os.environ | {
                "LD_LIBRARY_PATH": str(library),
                "NVML_STANDIN_SCENARIO": str(scenario),
                "NVML_STANDIN_OPENING": str(opening),
                "NATS_URL": default_settings.NATS_URL,
                "AGENT_ID": agent_id,
                "AGENT_STATE_DIR": str(tmp_path / agent_id),
            }
            command = [sys.executable, "-m", "agentd"]
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=environ))
            stack.callback(process.kill)

        yield start


async def first_ping(http: httpx.AsyncClient, agent_id: str) -> dict[str, Any]:
    """The first row of the agent's history, once there is one."""
    async with asyncio.timeout(60):
        while True:
            answer = await http.get(f"/ping-system/agents/{agent_id}/history")
            if answer.status_code == 200 and answer.json()["pings"]:
                return answer.json()["pings"][-1]
            await asyncio.sleep(0.1)


async def test_the_first_ping_finds_all_gpus_up_however_slowly_the_driver_opens(
    http: httpx.AsyncClient, start_agentd
):
    for agent_id, opening in OPENINGS.items():
        start_agentd(agent_id, opening)
    for agent_id in OPENINGS:
        ping = await first_ping(http, agent_id)
        assert (ping["ping_seq"], ping["outcome"], ping["verdict"]) == (1, "answered", "first")
        assert [gpu["state"] for gpu in ping["gpus"]] == ["up"] * GPUS
        agent = (await http.get(f"/ping-system/agents/{agent_id}")).json()
        assert agent["status"] == "healthy"
        assert agent["missed_pings"] == 0
        assert "simulated" not in agent["metadata"]
        check = await http.post("/worker/gpu-check", json={"agent_id": agent_id})
        assert check.json()["gpu_available"] is True
        assert check.json()["status"] == "healthy"
