"""The history file made again from archive and stream, and compared with the old one."""

import msgspec
import pytest

from bus.clock import utc_now
from bus.contract import subjects
from bus.settings import Settings
from bus.transport.connection import Client
from storage import service
from storage.engine.errors import CannotWriteError
from storage.stream import rebuild
from tests.storage_days import everything, mixed, tended
from tests.storage_states import caught_up, publish, read_to_the_end, series


async def test_rebuild_from_stream_and_archive_has_equal_hashes(
    bus: Client, base_settings: Settings
):
    settings = msgspec.structs.replace(base_settings, STORAGE_ARCHIVE_AFTER_DAYS=2)
    states = mixed(agents=8, days=4)
    async with service.running(settings) as storage:
        await publish(bus, states)
        await caught_up(bus, len(states))
        with pytest.raises(CannotWriteError, match="attached"):
            await rebuild.rebuild(settings)
        while await storage.store.archive_next_day(utc_now()):
            pass
        before = await everything(storage.store)
    await bus.jetstream().purge_stream(
        subjects.HISTORY_STREAM, keep=180
    )  # the older part is in the archive only
    seen: list[tuple[int, int]] = []
    result = await rebuild.rebuild(
        settings, progress=lambda read, there: seen.append((read, there))
    )
    assert result.equal
    assert result.replaced
    assert result.after == before
    left = (await bus.jetstream().stream_info(subjects.HISTORY_STREAM)).state.messages
    assert seen[-1] == (left, left)
    async with service.running(settings):
        await caught_up(bus, len(states))


async def test_rebuild_lets_go_what_retention_had_let_go(bus: Client, base_settings: Settings):
    """The stream may hold more than retention keeps."""
    settings = msgspec.structs.replace(
        base_settings, STORAGE_ARCHIVE_AFTER_DAYS=1, STORAGE_RETENTION_DAYS=2
    )
    states = mixed(agents=3, days=5)
    async with service.running(settings) as storage:
        await publish(bus, states)
        await read_to_the_end(bus)
        await tended(storage.store, utc_now())
        before = await everything(storage.store)
        assert 0 < before["pings"][0] < len(states)
    result = await rebuild.rebuild(settings)
    assert result.equal
    assert result.replaced
    assert result.after == before


async def test_a_rebuild_that_would_lose_something_leaves_the_old_file(
    bus: Client, base_settings: Settings
):
    async with service.running(base_settings):
        await publish(bus, series("a", 4))
        await caught_up(bus, 4)
    await bus.jetstream().purge_stream(subjects.HISTORY_STREAM, keep=1)
    result = await rebuild.rebuild(base_settings)
    assert not result.replaced
    async with service.running(base_settings):
        await caught_up(bus, 4)
