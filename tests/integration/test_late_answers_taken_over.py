"""A late answer cancels its miss where the scheduler that asked is gone, or another pings next.

A real server; the scheduler that asked is a process, which is killed.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import LateAnswer, PingRequest, decode, encode
from bus.contract.questions import ChangeRequest, Ping
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import bucket, connection
from bus.transport.micro_services import ask
from scheduler.cluster.peers import instance_of
from scheduler.service import Scheduler, running
from tests.agents import report
from tests.registering import register
from tests.scheduler_processes import SchedulerProcess
from tests.waiting import until, until_answered


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Nobody is pinged again by itself while a test lasts."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=60.0,
        PING_RESPONSE_TIMEOUT_SECONDS=1.0,
    )


class Host:
    """Answers pings, or keeps its answers back to give them later."""

    def __init__(self, client: connection.Client, agent_id: str) -> None:
        self._client = client
        self.agent_id = agent_id
        self.keeps_back = False
        self._kept = b""
        self._reply = ""

    async def join(self) -> None:
        await self._client.subscribe(subjects.ping(self.agent_id), cb=self._hear)
        await register(self._client, self.agent_id)

    async def _hear(self, message: Msg) -> None:
        data = encode(report(self.agent_id, decode(message.data, PingRequest)))
        if self.keeps_back:
            self._kept, self._reply = data, message.reply
        else:
            await message.respond(data)

    async def answer_late(self) -> None:
        """Gives the last answer that it kept back, and returns once that is recorded."""
        key = subjects.late_key(self.agent_id)

        async def is_recorded() -> bool:
            await self._client.publish(self._reply, self._kept)
            return await bucket.read(self._client, key, LateAnswer) is not None

        await until_answered(is_recorded)

    async def pinged(self, seq: int) -> Ping:
        """The outcome of that number; by hand, and none is asked within a second of another."""

        async def asked() -> Ping | None:
            try:
                ping = await ask(
                    self._client,
                    subjects.ping_now(self.agent_id),
                    ChangeRequest(audited=True),
                    Ping,
                    who="the scheduler",
                    timeout=30.0,
                )
            except BusError:
                return None  # it starts
            return ping if ping.ping_seq == seq else None

        return await until_answered(asked)

    async def missed_twice(self) -> None:
        """One ping is answered, and two are missed."""
        await self.pinged(1)
        self.keeps_back = True
        await self.pinged(2)
        assert (await self.pinged(3)).outcome == "missed"
        self.keeps_back = False


async def joined(client: connection.Client, *names: str) -> list[Host]:
    hosts = [Host(client, name) for name in names]
    await asyncio.gather(*(host.join() for host in hosts))
    await asyncio.gather(*(host.missed_twice() for host in hosts))
    return hosts


def asker_of(scheduler: Scheduler, host: Host) -> str:
    """The name of the scheduler that sent the last ping."""
    tracked = scheduler.directory.get(host.agent_id)
    assert tracked
    assert tracked.state
    return instance_of(tracked.state.last.ping_id)


@pytest.fixture
async def asker(config: Settings) -> AsyncIterator[SchedulerProcess]:
    process = SchedulerProcess(config)
    await process.start()
    yield process
    await process.kill()


async def test_a_late_answer_is_heard_after_the_only_scheduler_was_killed(bus, config, asker):
    """By the next one, and by the one after that, which reads it at its start."""
    late, silent = await joined(bus, "late", "silent")
    await asker.kill()
    async with running(config):
        await late.answer_late()
    async with running(config):
        heard, unheard = await late.pinged(4), await silent.pinged(4)
    assert (heard.outcome, heard.remarks, heard.uptime_percent) == ("answered", (), 100.0)
    assert (unheard.outcome, unheard.remarks) == ("answered", ("unheard",))


@pytest.mark.slow
async def test_a_late_answer_counts_where_another_scheduler_pings_next(bus, config, asker):
    """The asker hears it and lives; it is dead, and another hears it."""
    alive, dead, silent = await joined(bus, "alive", "dead", "silent")
    async with running(config) as second:
        await until(lambda: not second.peers.alone)
        await until(lambda: second.loop.late_answers.inboxes == ())
        await alive.answer_late()
        tracked = second.directory.get("alive")
        assert tracked
        await until(lambda: tracked.late_ping_id is not None)
        name = asker_of(second, dead)
        await asker.kill()
        await until(lambda: second.loop.late_answers.inboxes == (name,))
        await dead.answer_late()
        assert (await alive.pinged(4)).remarks == ()
        assert (await dead.pinged(4)).remarks == ()
        assert (await silent.pinged(4)).remarks == ("unheard",)
