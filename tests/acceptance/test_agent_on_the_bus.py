"""An agent says that it is on the bus when the registry has answered it, and not before."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bus.settings import Settings
from bus.transport import embedded_server
from bus.transport.connection import Client
from scheduler import service as scheduler_service
from tests.acceptance.system import Program
from tests.ports import free_port


class ServerWithPassword(embedded_server.EmbeddedServer):
    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir, free_port())
        self._password = "right"


def agent_of(url: str, folder: Path) -> Program:
    """An agent that also answers on a port of its own."""
    return Program(
        *("agentd", "--scenario", "healthy"),
        NATS_URL=url,
        AGENT_ID="a-1",
        AGENT_MODE="true",
        AGENT_HTTP_PORT="0",
        AGENT_STATE_DIR=str(folder),
        LOG_LEVEL="info",
    )


def bus_health(agent: Program) -> dict[str, bool]:
    url = agent.printed(r"(http://127\.0\.0\.1:[1-9]\d*/agent/health)")[1]
    health: dict[str, bool] = httpx.get(url, timeout=60).json()["bus"]
    return health


def standing(agent: Program) -> tuple[bool, bool]:
    health = bus_health(agent)
    return health["connected"], health["registered"]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A bus that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def test_no_bus_wrong_credentials_and_a_silent_bus(silent: socket.socket, tmp_path: Path):
    guarded = ServerWithPassword(tmp_path / "guarded")
    await guarded.start()
    urls = {
        "down": "nats://127.0.0.1:1",
        "wrong": f"nats://local:wrong@127.0.0.1:{guarded.port}",
        "silent": f"nats://127.0.0.1:{silent.getsockname()[1]}",
    }
    agents = [agent_of(url, tmp_path / name) for name, url in urls.items()]
    try:
        for agent in agents:
            agent.printed("bus_connect_timed_out")
            assert standing(agent) == (False, False)
    finally:
        for agent in agents:
            agent.kill()
        await guarded.stop()
    for agent in agents:
        assert "on the bus" not in agent.output
        assert "agent_registered" not in agent.output


async def test_a_bus_without_a_scheduler(bus: Client, base_settings: Settings, tmp_path: Path):
    agent = agent_of(bus.address, tmp_path / "agent")
    try:
        await asyncio.to_thread(agent.printed, "registration_failed")
        assert await asyncio.to_thread(standing, agent) == (True, False)
        assert "is on the bus at" not in agent.output
        async with scheduler_service.running(base_settings):
            await asyncio.to_thread(agent.printed, "agent a-1 is on the bus at nats://")
            assert await asyncio.to_thread(standing, agent) == (True, True)
    finally:
        agent.kill()
