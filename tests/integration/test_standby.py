"""Replicas that are ready, and those that stand by."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.micro.request import Request

from bus.errors import RefusedError, UnavailableError
from bus.settings import Settings
from bus.transport import connection
from bus.transport.connection import Client
from bus.transport.micro_services import Endpoint, ask_raw, serve
from bus.transport.standby import Replica

QUESTION, READY = "gpuping.replicas.question", "gpuping.replicas.ready"


async def replica(client: Client, name: str) -> Replica:
    async def answer(_request: Request) -> bytes:
        if name == "refuses":
            raise RefusedError(503, "it cannot")
        return name.encode()

    service = await serve(client, "replicas", "for a test", [])
    return Replica(client, service, READY, [Endpoint("question", QUESTION, answer)])


@pytest.fixture
async def other(base_settings: Settings) -> AsyncIterator[Client]:
    async with connection.connected(base_settings, "other") as client:
        yield client


async def ask(client: Client) -> bytes:
    return await ask_raw(client, QUESTION, b"", who="nobody", timeout=20)


async def test_a_standby_leaves_the_questions_to_a_ready_replica(bus: Client, other: Client):
    one, two = await replica(bus, "ready"), await replica(other, "refuses")
    await one.set_ready(ready=True)
    await two.set_ready(ready=False)
    assert {await ask(bus) for _ in range(50)} == {b"ready"}


async def test_a_standby_answers_when_no_replica_is_ready(bus: Client):
    one = await replica(bus, "alone")
    await one.set_ready(ready=False)
    assert await ask(bus) == b"alone"


async def test_the_refusal_of_a_lone_standby_reaches_the_asker(bus: Client):
    one = await replica(bus, "refuses")
    await one.set_ready(ready=False)
    with pytest.raises(RefusedError, match="it cannot"):
        await ask(bus)


async def test_no_question_is_lost_while_it_changes(bus: Client, other: Client):
    one = await replica(bus, "one")
    await one.set_ready(ready=False)
    done = asyncio.Event()
    heard: list[bytes] = []

    async def asking() -> None:
        while not done.is_set():
            heard.append(await ask(other))

    askers = [asyncio.create_task(asking()) for _ in range(5)]
    for number in range(41):
        await one.set_ready(ready=number % 2 == 0)
    done.set()
    await asyncio.gather(*askers)
    assert set(heard) == {b"one"}
    assert len(heard) > 40


async def test_endpoints_are_not_left_standing(bus: Client):
    one = await replica(bus, "one")
    await one.set_ready(ready=True)
    before = len(bus._subs)
    await one.set_ready(ready=False)
    await one.set_ready(ready=True)
    await one.set_ready(ready=True)
    assert len(bus._subs) == before
    await one._service.stop()
    with pytest.raises(UnavailableError, match="not on the bus"):
        await ask(bus)
