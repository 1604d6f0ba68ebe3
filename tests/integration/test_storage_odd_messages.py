"""Messages in the history stream that are no outcome, and what is gone from it: nothing waits for
them for ever.
"""

import asyncio
from datetime import timedelta

import duckdb
import pytest

from bus.contract import subjects
from bus.contract.messages import encode
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.embedded_server import EmbeddedServer
from storage import service
from storage.engine import database
from storage.stream import rebuild
from tests.raw_protocol import send
from tests.storage_states import START, caught_up, publish, series, state
from tests.waiting import until_answered


async def stands(client: Client, sequence: int) -> None:
    """Waits until the history stream has come so far."""

    async def there() -> bool:
        info = await jetstream_api.call(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
        return bool(info["state"]["last_seq"] >= sequence)

    await until_answered(there)


async def delete_key(client: Client, agent_id: str) -> None:
    """By hand: leaves a tombstone, in history too."""
    await (await client.jetstream().key_value(subjects.BUCKET)).delete(f"state.{agent_id}")


async def test_ingest_steps_over_a_tombstone_that_comes_last(bus: Client, base_settings: Settings):
    async with service.running(base_settings):
        await publish(bus, series("a", 3))
        reached = (await caught_up(bus, 3)).last_sequence
        await delete_key(bus, "a")
        await stands(bus, reached + 1)
        stats = await caught_up(bus, 3)
    assert (stats.last_sequence, stats.rows, stats.poisoned) == (reached + 1, 3, 0)
    async with service.running(base_settings):
        await publish(bus, series("b", 1))
        assert (await caught_up(bus, 4)).last_sequence == reached + 2


@pytest.mark.parametrize("how", ["tombstone", "message deleted"])
async def test_a_rebuild_ends_where_the_newest_message_is_no_outcome(
    bus: Client, base_settings: Settings, how: str
):
    async with service.running(base_settings):
        await publish(bus, series("a", 3) + series("b", 1))
        reached = (await caught_up(bus, 4)).last_sequence
    if how == "tombstone":
        await delete_key(bus, "b")
        await stands(bus, reached + 1)
    else:
        await bus.jetstream().delete_msg(subjects.HISTORY_STREAM, reached)
    async with asyncio.timeout(60):
        result = await rebuild.rebuild(base_settings)
    assert result.equal == (how == "tombstone")


async def test_a_key_whose_name_is_not_utf8_is_set_aside_and_ingest_goes_on(
    nats_server: EmbeddedServer, bus: Client, base_settings: Settings
):
    whole = encode(state("a", 2, START + timedelta(hours=1)))
    async with service.running(base_settings):
        await publish(bus, series("a", 1))
        key = subjects.state_key("").encode() + b"\xff\xfe"
        await send(
            nats_server,
            b"PUB %s 1\r\nx\r\nPUB %s %d\r\n%s\r\n" % (key, key + b"a", len(whole), whole),
        )
        await publish(bus, series("b", 1))
        stats = await caught_up(bus, 2)
    assert (stats.rows, stats.poisoned, stats.last_sequence) == (2, 2, 4)
    rows = duckdb.connect(str(database.HistoryPaths(base_settings).file), read_only=True).execute(
        "SELECT subject, payload FROM poisoned ORDER BY sequence"
    )
    assert rows.fetchall() == [("\\xff\\xfe", b"x"), ("\\xff\\xfea", whole)]
