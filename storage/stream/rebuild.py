"""Makes the history file again from the archive and the stream.

`gpuping storage rebuild` calls `rebuild` while the service is stopped. The new file is written
beside the old one, and replaces it only when both have the same content. The old file is kept under
another name.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from msgspec import Struct

from bus.background import cancel_all
from bus.clock import utc_now
from bus.contract import subjects
from bus.settings import Settings
from bus.transport import connection, jetstream_api
from bus.transport.connection import Client
from storage.archive import day_folders, inspection
from storage.engine import database
from storage.engine.bounds import FIRST_US
from storage.engine.database import HistoryPaths
from storage.engine.errors import CannotWriteError, StorageError, explained
from storage.store.store import Store
from storage.stream.feed import Feed

log = structlog.get_logger("storage")

PROGRESS_SECONDS = 0.2
Progress = Callable[[int, int], None]  # called with the messages read so far, and all messages


class FileContent(Struct, frozen=True):
    """What a history file has, archive included, and its retention cutoff."""

    content: day_folders.Content
    retention_cutoff_us: int


class Rebuilt(Struct, kw_only=True, frozen=True):
    """The contents of both files; `before` is None where the old file could not be read.

    `kept` is the file that is not in use: the old one if it was `replaced`, otherwise the new one.
    """

    before: day_folders.Content | None
    after: day_folders.Content
    replaced: bool
    kept: Path | None

    @property
    def equal(self) -> bool:
        """Whether both files have the same content."""
        return self.before == self.after


def _no_progress(_read: int, _all: int) -> None:
    pass


async def rebuild(
    settings: Settings,
    *,
    force: bool = False,
    progress: Progress = _no_progress,
    role: str = "storage",
) -> Rebuilt:
    """Rebuilds the history file. `role` is whose credentials the settings have.

    Without `force`, a readable file is only replaced by one with the same content.

    Raises CannotWriteError while the service runs, for it owns the file. Raises BusError when the
    stream cannot be read.
    """
    paths = HistoryPaths(settings)
    before = _read_old_file(settings, paths)
    new_file = _new_file(paths)
    for leftover in (new_file, new_file.with_name(f"{new_file.name}.wal")):
        leftover.unlink(missing_ok=True)
    store = Store(settings, new_file)
    await store.open(utc_now())
    try:
        async with connection.connected(
            settings,
            f"{settings.STORAGE_NAME}-rebuild",
            inbox_prefix=subjects.service_inbox(role),
        ) as client:
            await _read_stream(client, settings, store, progress)
        while await store.seal(utc_now()):
            pass
        if before is not None and before.retention_cutoff_us > FIRST_US:
            # The stream may still have outcomes that retention has expired in the old file.
            await store.expire(before.retention_cutoff_us)
    finally:
        await store.close()
    after = _read_file(settings, paths, new_file)
    return _replace(paths, before, after, force=force)


def _replace(
    paths: HistoryPaths,
    before: FileContent | None,
    after: FileContent,
    *,
    force: bool,
) -> Rebuilt:
    """Puts the new file in the old one's place, unless they differ."""
    new_file = _new_file(paths)
    if before is None:
        kept = _swap(paths.file, new_file, utc_now())
        return Rebuilt(
            before=None,
            after=after.content,
            replaced=True,
            kept=kept,
        )
    if before.content != after.content and not force:
        log.error(
            "rebuilt_file_differed",
            before=before.content,
            after=after.content,
            action="the old file stays in use",
        )
        return Rebuilt(
            before=before.content,
            after=after.content,
            replaced=False,
            kept=new_file,
        )
    kept = _swap(paths.file, new_file, utc_now())
    return Rebuilt(
        before=before.content,
        after=after.content,
        replaced=True,
        kept=kept,
    )


def _new_file(paths: HistoryPaths) -> Path:
    return paths.file.with_name(f"{paths.file.name}.rebuilding")


async def _read_stream(
    client: Client,
    settings: Settings,
    store: Store,
    progress: Progress,
) -> None:
    """Runs the same ingest as the service, until all is read that the stream has now."""
    name = f"{settings.STORAGE_NAME}-rebuild"
    feed = Feed(client, settings, store, consumer=name)
    feeding = asyncio.create_task(feed.run())
    try:
        while not feed.catch_up.complete:
            progress(feed.catch_up.read, feed.catch_up.total or 0)
            done, _ = await asyncio.wait([feeding], timeout=PROGRESS_SECONDS)
            if done:
                # It ended before its time: raises the reason.
                feeding.result()
        progress(feed.catch_up.read, feed.catch_up.total or 0)
    finally:
        await cancel_all([feeding])
        if not client.lives_apart:  # a storage of a fleet may not, and the consumer expires
            await jetstream_api.delete_consumer(client, subjects.HISTORY_STREAM, name)


def _read_old_file(settings: Settings, paths: HistoryPaths) -> FileContent | None:
    """The content of the file in use. None where there is no file or it cannot be read."""
    if not paths.file.exists():
        return None
    try:
        return _read_file(settings, paths, paths.file)
    except CannotWriteError:
        raise
    except StorageError as error:
        # The file is damaged, or a partition of the archive.
        log.error("history_read_failed", detail=str(error), action="rebuilding without comparing")
        return None


def _read_file(
    settings: Settings,
    paths: HistoryPaths,
    file: Path,
) -> FileContent:
    opened = database.open_file(settings, paths, file)
    try:
        content = day_folders.content(opened, paths.archive)
        return FileContent(content, day_folders.retention_cutoff_us(opened))
    except inspection.READING_ERRORS as error:
        raise explained(error, file) from None
    finally:
        opened.close()


def _swap(
    file: Path,
    new_file: Path,
    now: datetime,
) -> Path | None:
    """Renames the old file and puts the new one in its place.

    Returns the old file's new name, if there was one.

    A crash after any of the steps leaves files that the next start can use.
    """
    kept = None
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    for part in (file.with_name(f"{file.name}.wal"), file):
        if part.exists():
            kept = part.rename(part.with_name(f"{part.name}.before-rebuild-{stamp}"))
    new_file.rename(file)
    return kept
