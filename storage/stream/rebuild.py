"""Makes the history file again from the Parquet archive and the stream, and proves that it is the same.

For `gpuping storage rebuild` (it calls `rebuild`), with the service stopped.
The new file grows beside the old one and takes its
place only when it holds the same; the old one is kept under another name.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from msgspec import Struct

from bus.background import end
from bus.clock import utc_now
from bus.contract import subjects
from bus.settings import Settings
from bus.transport import connection, jetstream_api
from bus.transport.connection import Client
from storage.archive import day_folders, inspection
from storage.engine import database
from storage.engine.bounds import FIRST_US
from storage.engine.errors import CannotWriteError, StorageError, explained
from storage.store.store import Store
from storage.stream.feed import Feed

log = structlog.get_logger("storage")

Progress = Callable[[int, int], None]  # messages read, messages there


class Held(Struct, frozen=True):
    """What a history file holds, and from where on: retention has let go what is before."""

    content: day_folders.Content
    since_us: int


class Rebuilt(Struct, kw_only=True, frozen=True):
    """`before` is None where the old file could not be read. `kept` is the file that is not in use."""

    before: day_folders.Content | None
    after: day_folders.Content
    replaced: bool
    kept: Path | None

    @property
    def equal(self) -> bool:
        """Whether the new file holds what the old one held."""
        return self.before == self.after


async def rebuild(
    settings: Settings, *, force: bool = False, progress: Progress = lambda _read, _there: None
) -> Rebuilt:
    """Rebuilds; a file that would differ from a readable one replaces it only with `force`.

    Raises CannotWriteError while the service runs (it owns the file), BusError when the stream cannot be read.
    """
    paths = database.HistoryPaths(settings)
    before = _held_before(settings, paths)
    fresh = _fresh(paths)
    for leftover in (fresh, fresh.with_name(f"{fresh.name}.wal")):
        leftover.unlink(missing_ok=True)
    store = Store(settings, fresh)
    await store.open(utc_now())
    try:
        async with connection.connected(settings, f"{settings.STORAGE_NAME}-rebuild") as client:
            await _read_all(client, settings, store, progress)
        while await store.seal(utc_now()):
            pass
        if before is not None and before.since_us > FIRST_US:
            await store.forget(before.since_us)  # the stream may reach further back than retention
    finally:
        await store.close()
    return _decide(
        paths,
        before.content if before else None,
        _held(settings, paths, fresh).content,
        force=force,
    )


def _decide(
    paths: database.HistoryPaths,
    before: day_folders.Content | None,
    after: day_folders.Content,
    *,
    force: bool,
) -> Rebuilt:
    fresh = _fresh(paths)
    if before is not None and before != after and not force:
        log.error(
            "rebuilt_file_differs", before=before, after=after, action="the old file stays in use"
        )
        return Rebuilt(before=before, after=after, replaced=False, kept=fresh)
    return Rebuilt(
        before=before, after=after, replaced=True, kept=_swap(paths.file, fresh, utc_now())
    )


def _fresh(paths: database.HistoryPaths) -> Path:
    """Where the new file grows."""
    return paths.file.with_name(f"{paths.file.name}.rebuilding")


async def _read_all(client: Client, settings: Settings, store: Store, progress: Progress) -> None:
    """Ingest, by the same road as always, up to what the stream holds now."""
    name = f"{settings.STORAGE_NAME}-rebuild"
    feed = Feed(client, settings, store, consumer=name)
    feeding = asyncio.create_task(feed.run())
    try:
        while not feed.catch_up.complete:
            progress(feed.catch_up.read, feed.catch_up.there or 0)
            done, _ = await asyncio.wait([feeding], timeout=0.2)
            if done:
                feeding.result()
        progress(feed.catch_up.read, feed.catch_up.there or 0)
    finally:
        await end([feeding])
        await jetstream_api.delete_consumer(client, subjects.HISTORY_STREAM, name)


def _held_before(settings: Settings, paths: database.HistoryPaths) -> Held | None:
    if not paths.file.exists():
        return None
    try:
        return _held(settings, paths, paths.file)
    except CannotWriteError:
        raise
    except StorageError as error:  # the file or, in any of DuckDB's ways, a partition
        log.error("history_damaged", detail=str(error), action="rebuilding without comparing")
        return None


def _held(settings: Settings, paths: database.HistoryPaths, file: Path) -> Held:
    opened = database.open_file(settings, paths, file)
    try:
        return Held(
            day_folders.content(opened, paths.archive), day_folders.retention_cutoff_us(opened)
        )
    except inspection.READING_ERRORS as error:
        raise explained(error, file) from None
    finally:
        opened.close()


def _swap(file: Path, fresh: Path, now: datetime) -> Path | None:
    """The new file takes the old one's place; each step leaves a state that the next start can use."""
    kept = None
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    for part in (file.with_name(f"{file.name}.wal"), file):
        if part.exists():
            kept = part.rename(part.with_name(f"{part.name}.before-rebuild-{stamp}"))
    fresh.rename(file)
    return kept
