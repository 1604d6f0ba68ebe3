"""`connected` follows the agent's connection to the bus, as the system account announces it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.contract.messages import UptimeReport, Window, decode, encode
from bus.contract.questions import Agent, LiveEvent, RegisterRequest
from bus.settings import Settings
from bus.transport import connection
from gpuping.client.own_server import OwnServer
from gpuping.client.own_server import running as own_server_running
from scheduler.cluster import presence
from scheduler.fleet.lists.views import agent_view
from scheduler.service import Scheduler, running
from tests.ports import free_port
from tests.waiting import until

_CLIENT = """
import asyncio, sys
import nats
async def main():
    url, creds = sys.argv[1:]
    client = await nats.connect(url, user_credentials=creds)
    print("connected", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def own_server(base_settings: Settings) -> AsyncIterator[OwnServer]:
    settings = replace(base_settings, NATS_URL=None)
    async with own_server_running(settings, free_port()) as server:
        yield server


@pytest.fixture
async def scheduler(own_server: OwnServer) -> AsyncIterator[Scheduler]:
    async with running(own_server.settings_of("scheduler")) as scheduler:
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        await until(lambda: connected(scheduler) is False)
        yield scheduler


def connected(scheduler: Scheduler, agent_id: str = "a") -> bool | None:
    tracked = scheduler.directory.get(agent_id)
    assert tracked is not None
    return tracked.connected


def agent_process(own_server: OwnServer, agent_id: str) -> subprocess.Popen[bytes]:
    """An agent's connection in a process of its own, which may be killed or frozen."""
    return client_process(own_server.settings_of_agent(agent_id))


def client_process(settings: Settings) -> subprocess.Popen[bytes]:
    creds = settings.NATS_CREDS
    assert creds
    process = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(settings.NATS_URL), creds],
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"connected\n"
    return process


async def test_a_connection_and_its_end_are_seen_within_two_seconds(scheduler, own_server):
    for _ in range(3):
        async with connection.connected(own_server.settings_of_agent("a"), "agentd:a"):
            await until(lambda: connected(scheduler) is True)
        await until(lambda: connected(scheduler) is False)


async def test_a_killed_agent_is_gone_at_once_and_a_frozen_one_within_fifteen_seconds(
    scheduler, own_server
):
    """Agent b is cut off as well, and comes back at once: it is connected, and never two hosts.
    So is a gateway: nothing else of the bus knows that there was one.
    """
    process = agent_process(own_server, "a")
    await until(lambda: connected(scheduler) is True)
    process.kill()
    process.wait()
    await until(lambda: connected(scheduler) is False)
    await scheduler.registry.enrol("b", RegisterRequest(), datetime.now(UTC))
    gateway = client_process(own_server.settings_of("gateway"))
    frozen = [agent_process(own_server, "a"), agent_process(own_server, "b"), gateway]
    try:
        await until(lambda: connected(scheduler) and connected(scheduler, "b"))
        await until(lambda: scheduler.stats().gateways == 1)
        for process in frozen:
            os.kill(process.pid, signal.SIGSTOP)
        back = await Answering("s1").connect(own_server, "b")
        await until(lambda: len(scheduler.presence._connections["b"]) == 2)
        async with asyncio.timeout(60):
            while connected(scheduler) or len(scheduler.presence._connections["b"]) > 1:
                assert view_of(scheduler, "b").conflicting_connections == ()
                await asyncio.sleep(0.05)
        assert connected(scheduler, "b") is True
        assert scheduler.presence._twins == set()
        await back.close()
        await until(lambda: scheduler.stats().gateways == 0)
        (lost,) = scheduler.stats().lost_gateways
        assert lost.host == "127.0.0.1"
        os.kill(gateway.pid, signal.SIGCONT)
        await until(lambda: scheduler.stats().gateways == 1)
        assert scheduler.stats().lost_gateways == ()
        gateway.kill()
        await until(lambda: scheduler.stats().gateways == 0)
        assert scheduler.stats().lost_gateways == (), "it was ended, and hangs nowhere"
    finally:
        for process in frozen:
            process.kill()
            process.wait()


async def test_the_end_of_an_older_connection_is_not_the_agent_s(scheduler, own_server):
    settings = own_server.settings_of_agent("a")
    async with connection.connected(settings, "agentd:a"):
        await until(lambda: connected(scheduler) is True)
        newer = await connection.connect(settings, "agentd:a")
        await until(lambda: len(scheduler.presence._connections["a"]) == 2)
    await until(lambda: len(scheduler.presence._connections["a"]) == 1)
    assert connected(scheduler) is True
    await newer.close()
    await until(lambda: connected(scheduler) is False)


async def test_a_scheduler_that_starts_knows_who_is_there(own_server):
    async with (
        connection.connected(own_server.settings_of_agent("a"), "agentd:a"),
        running(own_server.settings_of("scheduler")) as scheduler,
    ):
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        await until(lambda: connected(scheduler) is True)


async def test_without_the_system_account_presence_is_what_the_last_ping_showed(own_server):
    settings = replace(own_server.settings_of("scheduler"), NATS_SYSTEM_CREDS=None)
    async with running(settings) as scheduler:
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        assert connected(scheduler) is None


class Answering:
    """One session of an agent: a connection that answers looks as agentd does."""

    def __init__(self, session: str) -> None:
        self.session = session

    async def connect(self, own_server: OwnServer, agent_id: str = "a") -> connection.Client:
        settings = own_server.settings_of_agent(agent_id)
        client = await connection.connect(settings, f"agentd:{agent_id}")
        await client.subscribe(f"gpuping.ping.{agent_id}", queue="q", cb=self._answer)
        await client.flush()
        return client

    async def _answer(self, message: Msg) -> None:
        now = datetime.now(UTC)
        report = UptimeReport(
            agent_id="a",
            session_id=self.session,
            window=Window(since=now, until=now, seconds=0.0),
            uptime_percent=None,
            gpu_available=False,
        )
        await message.respond(encode(report))


async def test_two_hosts_with_one_identity_are_flagged_within_seconds(scheduler, own_server):
    """In the agent, the metric's count and a live event; and no more when one of them has gone."""
    heard = await scheduler_events(own_server)
    first = await Answering("s1").connect(own_server)
    second = await Answering("s2").connect(own_server)
    await until(lambda: view_of(scheduler).conflicting_connections != ())
    assert view_of(scheduler).conflicting_connections == ("127.0.0.1", "127.0.0.1")
    assert scheduler.directory.duplicate_ids == {"a"}
    await until(lambda: "conflict" in heard)
    await second.close()
    await until(lambda: view_of(scheduler).conflicting_connections == ())
    assert scheduler.directory.duplicate_ids == set()
    await first.close()


async def test_two_connections_that_never_answer_are_flagged_by_the_time(
    scheduler, own_server, monkeypatch
):
    monkeypatch.setattr(presence, "TWIN_SECONDS", 1.0)
    settings = own_server.settings_of_agent("a")
    async with connection.connected(settings, "x"), connection.connected(settings, "y"):
        await until(lambda: view_of(scheduler).conflicting_connections != ())


async def test_a_restarted_agentd_is_never_flagged(scheduler, own_server):
    for number in range(3):
        client = await Answering(f"s{number}").connect(own_server)
        await until(lambda: view_of(scheduler).connected)
        assert view_of(scheduler).conflicting_connections == ()
        await client.close()
        await until(lambda: not view_of(scheduler).connected)
    assert scheduler.presence._twins == set()


def view_of(scheduler: Scheduler, agent_id: str = "a") -> Agent:
    tracked = scheduler.directory.get(agent_id)
    assert tracked is not None
    return agent_view(tracked, scheduler.directory.policy, datetime.now(UTC))


async def scheduler_events(own_server: OwnServer) -> list[str]:
    """The kinds of live events that come from now on."""
    kinds: list[str] = []
    client = await connection.connect(
        own_server.settings_of("operator"), "test", inbox_prefix="_INBOX._operator"
    )

    async def hear(message: Msg) -> None:
        kinds.append(decode(message.data, LiveEvent).kind)

    await client.subscribe("gpuping.event.*", cb=hear)
    await client.flush()
    return kinds


async def test_the_servers_disks_and_the_gateways_are_known(own_server):
    """What `gpuping doctor` and the metrics tell of the bus itself."""
    async with (
        connection.connected(own_server.settings_of("gateway"), "gateway"),
        running(own_server.settings_of("scheduler")) as scheduler,
    ):
        await until(lambda: scheduler.stats().bus_servers != ())
        (server,) = scheduler.stats().bus_servers
        assert server.limit_bytes > server.stored_bytes
        assert server.syncs_always
        assert scheduler.stats().gateways == 1


async def test_a_gateway_is_known_from_the_moment_it_connects(scheduler, own_server):
    """`gpuping up` starts its gateway after its scheduler."""
    await until(lambda: scheduler.stats().gateways == 0)
    async with connection.connected(own_server.settings_of("gateway"), "gateway"):
        await until(lambda: scheduler.stats().gateways == 1)
    await until(lambda: scheduler.stats().gateways == 0)
