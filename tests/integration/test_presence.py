"""`connected` follows the agent's connection to the bus, as the system account announces it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bus.contract.questions import RegisterRequest
from bus.settings import Settings
from bus.transport import connection
from gpuping.client.own_server import OwnServer
from gpuping.client.own_server import running as own_server_running
from scheduler.service import Scheduler, running

_AGENT = """
import asyncio, sys
import nats
async def main():
    url, creds = sys.argv[1:]
    client = await nats.connect(url, user_credentials=creds, name="agentd:a")
    print("connected", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def own_server(base_settings: Settings) -> AsyncIterator[OwnServer]:
    settings = replace(base_settings, NATS_URL=None)
    async with own_server_running(settings, 0) as server:
        yield server


@pytest.fixture
async def scheduler(own_server: OwnServer) -> AsyncIterator[Scheduler]:
    async with running(own_server.settings_of("scheduler")) as scheduler:
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        await until(lambda: connected(scheduler) is False, 5)
        yield scheduler


def connected(scheduler: Scheduler) -> bool | None:
    tracked = scheduler.directory.get("a")
    assert tracked is not None
    return tracked.connected


async def until(holds: Callable[[], bool], within: float) -> None:
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110  # the directory signals nobody
            await asyncio.sleep(0.01)


def agent_process(own_server: OwnServer) -> subprocess.Popen[bytes]:
    """An agent's connection in a process of its own, which may be killed or frozen."""
    creds = own_server.settings_of_agent("a").NATS_CREDS
    assert creds
    process = subprocess.Popen(
        [sys.executable, "-c", _AGENT, str(own_server.settings.NATS_URL), creds],
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"connected\n"
    return process


async def test_a_connection_and_its_end_are_seen_within_two_seconds(scheduler, own_server):
    for _ in range(3):
        async with connection.connected(own_server.settings_of_agent("a"), "agentd:a"):
            await until(lambda: connected(scheduler) is True, 2)
        await until(lambda: connected(scheduler) is False, 2)


async def test_a_killed_agent_is_gone_at_once_and_a_frozen_one_within_fifteen_seconds(
    scheduler, own_server
):
    process = agent_process(own_server)
    await until(lambda: connected(scheduler) is True, 2)
    process.kill()
    process.wait()
    await until(lambda: connected(scheduler) is False, 2)
    process = agent_process(own_server)
    try:
        await until(lambda: connected(scheduler) is True, 2)
        os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: connected(scheduler) is False, 15)
    finally:
        process.kill()
        process.wait()


async def test_the_end_of_an_older_connection_is_not_the_agent_s(scheduler, own_server):
    settings = own_server.settings_of_agent("a")
    async with connection.connected(settings, "agentd:a"):
        await until(lambda: connected(scheduler) is True, 2)
        newer = await connection.connect(settings, "agentd:a")
    await asyncio.sleep(0.5)  # the older one's end is announced by now
    assert connected(scheduler) is True
    await newer.close()
    await until(lambda: connected(scheduler) is False, 2)


async def test_a_scheduler_that_starts_knows_who_is_there(own_server):
    async with (
        connection.connected(own_server.settings_of_agent("a"), "agentd:a"),
        running(own_server.settings_of("scheduler")) as scheduler,
    ):
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        await until(lambda: connected(scheduler) is True, 5)


async def test_without_the_system_account_presence_is_what_the_last_ping_showed(own_server):
    settings = replace(own_server.settings_of("scheduler"), NATS_SYSTEM_CREDS=None)
    async with running(settings) as scheduler:
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        assert connected(scheduler) is None
