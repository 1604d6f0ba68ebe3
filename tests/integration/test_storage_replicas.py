"""Several storages on one bus: who cannot answer, or lacks outcomes, takes no question from one
that does.
"""

import asyncio
import json
import resource
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.exports import TableRequest
from bus.contract.messages import encode
from bus.contract.questions import HistoryReply, HistoryRequest, StorageStats
from bus.contract.statements import FleetReplay, FleetReplayRequest, Statement, StatementRequest
from bus.errors import RefusedError, UnavailableError
from bus.settings import Settings
from bus.transport import micro_services
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer
from bus.transport.standby import STANDBY_GROUP
from storage import service
from storage.engine.table_files import new_file
from tests.storage_process import storage_process
from tests.storage_states import caught_up, followed, publish, series, state
from tests.waiting import clear_of_months_end, earlier_this_month, until_answered

AGENTS = 3000
Ask = Callable[[Client], Coroutine[Any, Any, object]]


def month() -> str:
    return f"{utc_now():%Y-%m}"


async def history(client: Client) -> HistoryReply:
    return await micro_services.ask(
        client, subjects.history("a"), HistoryRequest(), HistoryReply, who="storage"
    )


async def statement(client: Client) -> Statement:
    asked = StatementRequest(month=month())
    return await micro_services.ask(
        client, subjects.statement("a"), asked, Statement, who="storage"
    )


async def page(client: Client) -> FileOffer:
    asked = StatementRequest(month=month(), format="html")
    return await micro_services.ask(
        client, subjects.statement("a"), asked, FileOffer, who="storage"
    )


async def replay(client: Client, form: Any = "json", kind: Any = FleetReplay) -> Any:
    asked = FleetReplayRequest(month=month(), format=form, threshold=50.0)
    return await micro_services.ask(client, subjects.REPLAY, asked, kind, who="storage")


async def replay_file(client: Client) -> FileOffer:
    return await replay(client, "csv", FileOffer)


async def sums_of_the_month(client: Client) -> FileOffer:
    asked = TableRequest(table="agents", month=month())
    return await micro_services.ask(client, subjects.TABLE, asked, FileOffer, who="storage")


async def stats(client: Client) -> StorageStats:
    return await micro_services.ask(
        client, subjects.STORAGE_STATS, None, StorageStats, who="storage"
    )


async def groups(client: Client) -> list[set[str]]:
    """The queue groups of each storage that is on the bus."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(f"$SRV.INFO.{subjects.STORAGE_SERVICE}", reply=inbox)
    found = []
    try:
        while True:
            info = json.loads((await subscription.next_msg(timeout=0.3)).data)
            found.append({endpoint["queue_group"] for endpoint in info["endpoints"]})
    except TimeoutError:
        await subscription.unsubscribe()
        return found


async def until_one_stands_by(client: Client) -> None:
    async def there() -> bool:
        found = await groups(client)
        return {STANDBY_GROUP} in found and len(found) == 2

    await until_answered(there)


async def two_outcomes_and_a_file(bus: Client, storage: service.Storage) -> Path:
    """History of an agent, and a file such as a storage has on offer."""
    await publish(bus, series("a", 2, utc_now() - timedelta(hours=1)))
    await caught_up(bus, 2)
    file = new_file(storage.store.paths.scratch, "csv")
    file.touch()
    return file


async def test_a_waiting_storage_takes_no_question_from_one_that_answers(
    bus: Client, base_settings: Settings
):
    async with service.running(base_settings) as storage:
        in_use = await two_outcomes_and_a_file(bus, storage)
        async with storage_process(base_settings) as second:
            await until_one_stands_by(bus)
            for _ in range(30):
                assert len((await history(bus)).pings) == 2
                assert (await stats(bus)).rows == 2
            assert in_use.exists()
            await second.end()
        await until_answered(lambda: _alone(bus))
        assert len((await history(bus)).pings) == 2


async def _alone(client: Client) -> bool:
    return len(await groups(client)) == 1


async def test_a_waiting_storage_takes_over_when_the_first_one_ends(
    bus: Client, base_settings: Settings
):
    async with service.running(base_settings) as storage:
        left_behind = await two_outcomes_and_a_file(bus, storage)
        second = storage_process(base_settings)
        await second.__aenter__()
        await until_one_stands_by(bus)
    try:
        await publish(bus, series("a", 1, utc_now(), first=3))
        await caught_up(bus, 3)
        assert len((await history(bus)).pings) == 3
        assert not left_behind.exists()
    finally:
        await second.__aexit__(None, None, None)


async def test_a_replica_whose_disk_is_full_leaves_the_questions_to_the_other(
    bus: Client, base_settings: Settings
):
    replica = msgspec.structs.replace(base_settings, STORAGE_NAME="replica")
    async with service.running(base_settings), storage_process(replica) as second:
        await publish(bus, series("a", 2, utc_now() - timedelta(hours=1)))
        await caught_up(bus, 2)
        await until_answered(lambda: _both_ready(bus))
        second.allow(60_000)
        await a_fleet(bus)
        await until_one_stands_by(bus)
        await caught_up(bus, AGENTS + 2)
        for _ in range(30):
            assert len((await history(bus)).pings) == 2
            assert (await stats(bus)).ingest_waiting is None
        second.allow(resource.RLIM_INFINITY)
        await until_answered(lambda: _both_ready(bus))


async def _both_ready(client: Client) -> bool:
    found = await groups(client)
    return len(found) == 2 and STANDBY_GROUP not in set.union(*found)


async def test_a_storage_that_waits_alone_says_why_at_once(bus: Client, base_settings: Settings):
    base_settings.data_dir.parent.mkdir(parents=True, exist_ok=True)
    base_settings.data_dir.write_text("a file where the folder should be")
    async with service.running(base_settings):
        for ask in (history, statement, replay_file):
            # Not UnavailableError, which is what waiting for an answer would end with.
            with pytest.raises(
                RefusedError, match=r"history cannot be read now: .*data"
            ) as refused:
                await ask(bus)
            assert refused.value.code == 503


@pytest.mark.parametrize("ask", [statement, page, replay, replay_file, sums_of_the_month])
async def test_what_is_paid_on_is_refused_while_outcomes_are_missing(
    bus: Client, base_settings: Settings, ask: Ask
):
    await clear_of_months_end()
    async with service.running(base_settings) as storage:
        await publish(bus, series("a", 2, earlier_this_month()))
        await caught_up(bus, 2)
        await answered(ask, bus)
        storage.feed.catch_up.begin(100)
        storage.feed.catch_up.advance(40, pending=60)
        with pytest.raises(
            RefusedError, match="still being taken in: 40 of 100 outcomes"
        ) as refused:
            await ask(bus)
        assert refused.value.code == 503
        assert len((await history(bus)).pings) == 2, (
            "what nobody is paid on is answered as far as it is known"
        )
        storage.feed.catch_up.advance(100, pending=0)
        await ask(bus)


async def answered(ask: Ask, client: Client) -> None:
    async def there() -> bool:
        try:
            await ask(client)
        except RefusedError:
            return False
        return True

    await until_answered(there)


async def a_fleet(client: Client) -> None:
    """So many agents with one outcome each: more than a few batches."""
    since = utc_now()
    for number in range(AGENTS):
        one = state(f"agent-{number:04}", 1, since)
        await client.publish(subjects.state_key(one.agent_id), encode(one))
        if number % 500 == 499:
            await followed(client, one)


async def test_the_first_replay_that_a_fresh_storage_answers_is_whole(
    bus: Client, base_settings: Settings
):
    await clear_of_months_end()
    await a_fleet(bus)
    refused = 0
    async with service.running(base_settings), asyncio.timeout(60):
        while True:
            try:
                replayed = await replay(bus)
            except (RefusedError, UnavailableError):
                refused += 1
                continue
            break
    assert replayed.same + replayed.gains + replayed.loses == AGENTS
    assert refused > 0


async def test_a_fresh_replica_leaves_the_questions_to_the_one_that_has_it_all(
    bus: Client, base_settings: Settings
):
    await clear_of_months_end()
    await a_fleet(bus)
    replica = msgspec.structs.replace(base_settings, STORAGE_NAME="replica")
    async with service.running(base_settings):
        await caught_up(bus, AGENTS)
        await answered(replay, bus)
        async with service.running(replica) as fresh:
            while not fresh.feed.catch_up.complete:
                replayed = await replay(bus)
                assert replayed.same + replayed.gains + replayed.loses == AGENTS
                assert (await stats(bus)).rows == AGENTS
