"""A question that one instance does not answer soon is asked of the others: none waits for it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from nats.micro.request import Request

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.questions import ListRequest, StorageStats
from bus.settings import Settings
from bus.transport import connection, hedging, jetstream_api, micro_services
from bus.transport.connection import Client
from bus.transport.hedging import HedgedEndpoints
from bus.transport.micro_services import Endpoint
from gpuping.doctor import storage_checks
from scheduler import service as scheduler_service
from storage import service as storage_service
from tests.scheduler_processes import scheduler_processes
from tests.storage_process import storage_process
from tests.storage_states import publish, series
from tests.waiting import until_answered

QUESTIONS = 12  # each goes to the frozen one of two with a chance of one half


@asynccontextmanager
async def instance(
    settings: Settings, name: str, heard: list[str], answers: asyncio.Event
) -> AsyncIterator[None]:
    """An instance of storage that notes each question, and answers once `answers` is set."""

    async def stats(_request: Request) -> StorageStats:
        heard.append(name)
        await answers.wait()
        return StorageStats(rows=int(name), last_sequence=0, lag=0, missing_seqs=0)

    async with connection.connected(settings, name) as client:
        hedged = HedgedEndpoints(client, [Endpoint("stats", subjects.STORAGE_STATS, stats)])
        await micro_services.serve(client, subjects.STORAGE_SERVICE, "", hedged.endpoints)
        await hedged.listen()
        yield


async def ask(bus: Client, timeout: float = 10.0) -> StorageStats:
    return await micro_services.ask(
        bus,
        subjects.STORAGE_STATS,
        None,
        StorageStats,
        who="storage",
        timeout=timeout,
        requesting=hedging.request,
    )


async def test_the_other_instance_answers_what_the_first_does_not(
    bus: Client, base_settings: Settings
):
    heard: list[str] = []
    never, now = asyncio.Event(), asyncio.Event()
    now.set()
    async with (
        instance(base_settings, "1", heard, never),
        instance(base_settings, "2", heard, now),
    ):
        while heard[:1] != ["1"]:
            heard.clear()
            assert (await ask(bus)).rows == 2
        assert heard == ["1", "2"]  # each was asked once
        never.set()


async def test_a_single_instance_that_takes_its_time_is_not_asked_to_begin_again(
    bus: Client, base_settings: Settings
):
    heard: list[str] = []
    answers = asyncio.Event()
    async with instance(base_settings, "7", heard, answers):
        asking = asyncio.create_task(ask(bus))
        await asyncio.sleep(3 * hedging.HEDGE_SECONDS)  # the answer takes so long
        answers.set()
        assert (await asking).rows == 7
    assert heard == ["7"]


async def test_lists_and_history_are_answered_while_a_scheduler_and_a_storage_are_frozen(
    bus: Client, base_settings: Settings, tmp_path: Path
):
    elsewhere = replace(
        base_settings, GPUPING_DATA_DIR=str(tmp_path / "other"), STORAGE_NAME="other"
    )
    async with (
        scheduler_service.running(base_settings),
        storage_service.running(base_settings),
        storage_process(elsewhere) as second_storage,
        scheduler_processes(base_settings, 1) as (second_scheduler,),
    ):
        await until_two_storages_are_ready(bus)
        second_scheduler.signal(signal.SIGSTOP)
        second_storage.send(signal.SIGSTOP)
        fleet = FleetClient(bus, 20.0)
        try:
            for _ in range(QUESTIONS):
                page = await fleet.agents(ListRequest())
                assert page.total == 0
                assert (await fleet.storage_stats(20.0)).rows == 0
            await assert_doctor_finds(bus, "other")
        finally:
            second_scheduler.signal(signal.SIGCONT)
            second_storage.send(signal.SIGCONT)
        await until_answered(lambda: all_follow(bus))


async def all_follow(bus: Client) -> bool:
    found = await storage_checks.followers(bus)
    return found.level == "ok"


async def assert_doctor_finds(bus: Client, name: str) -> None:
    """It does not answer. Once there is something to follow, the server tells it as well."""
    found = await storage_checks.followers(bus)
    assert found.level == "warning"
    assert found.detail.endswith(f": {name}")
    await publish(bus, series("a", 2, utc_now() - timedelta(hours=1)))

    async def is_found() -> bool:
        verb = f"CONSUMER.LIST.{subjects.HISTORY_STREAM}"
        answer = await jetstream_api.call(bus, verb)
        later = (utc_now() + timedelta(minutes=1)).isoformat()
        silent = [
            one["name"]
            for one in answer["consumers"]
            if storage_checks.does_not_follow(one | {"ts": later})
        ]
        return silent == [name]

    await until_answered(is_found)


async def until_two_storages_are_ready(bus: Client) -> None:
    async def there() -> bool:
        inbox = bus.new_inbox()
        subscription = await bus.subscribe(inbox)
        every = subjects.of_every_instance(subjects.STORAGE_STATS)
        await bus.publish(every, reply=inbox)
        try:
            await subscription.next_msg(timeout=1.0)
            await subscription.next_msg(timeout=1.0)
        except TimeoutError:
            return False
        finally:
            await subscription.unsubscribe()
        return True

    await until_answered(there)


@pytest.mark.parametrize(
    ("subject", "every"),
    [
        (subjects.LIST, "gpuping.registry.every.list"),
        (subjects.FLEET, "gpuping.registry.every.fleet"),
        (subjects.history("a1"), "gpuping.storage.every.history.a1"),
    ],
)
def test_the_second_subject_may_be_asked_by_every_role_that_may_ask_the_first(
    subject: str, every: str
):
    assert subjects.of_every_instance(subject) == every
