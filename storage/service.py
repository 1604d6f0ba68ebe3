"""The storage service: composes ingest, answers and housekeeping.

The service starts whether or not the history file can be used. While it cannot, or while history
lacks outcomes that the stream has, another storage that is ready answers. Where there is none,
questions about pay are refused with the reason and others are answered from what there is. Pings go
on meanwhile, because the stream keeps their outcomes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client.core import Metric

from bus.background import background
from bus.clock import utc_now
from bus.contract import subjects
from bus.errors import BusError
from bus.monitoring.families import gauge
from bus.monitoring.storage_families import storage_families
from bus.private_files import check_folder
from bus.settings import Settings
from bus.transport import connection, layout
from bus.transport.availability import when_available
from bus.transport.file_transfer import Files
from bus.transport.micro_services import serve
from bus.transport.standby import Replica
from storage.endpoints import Endpoints
from storage.engine.errors import CannotWriteError, StorageError
from storage.store.store import Store
from storage.store.switch_interval import short_switch_interval
from storage.stream.edge import EdgeWatch
from storage.stream.feed import Feed

log = structlog.get_logger("storage")

HOUSEKEEPING_SECONDS = 300.0


class Storage:
    """The running service."""

    def __init__(self, client: connection.Client, settings: Settings) -> None:
        self.client = client
        self.store = Store(settings)
        self.feed = Feed(client, settings, self.store)
        self.files = Files(client)
        self.edge = EdgeWatch(client)
        self.endpoints = Endpoints(client, settings, self.store, self.feed, self.files, self.edge)

    async def metric_families(self) -> list[Metric]:
        """Returns what this storage shows to Prometheus."""
        stats = await self.endpoints.read_stats()
        is_connected = self.client.is_connected
        return [
            gauge("bus_connected", "Whether the bus is connected", is_connected),
            *storage_families(stats),
        ]

    async def announce_readiness(self, replica: Replica) -> None:
        """Keeps the replica ready while the file can be used and has all that the stream has."""
        catch_up = self.feed.catch_up
        while True:
            catch_up.changed.clear()
            usable = self.store.waiting is None
            await replica.set_ready(ready=usable and catch_up.complete)
            await catch_up.changed.wait()

    async def keep_house(self) -> None:
        """Seals and archives old days every few minutes, in steps between which ingest runs.

        A day that the stream is about to drop is archived too.
        """
        while True:
            try:
                while self.store.waiting is None and await self.store.seal(utc_now()):
                    pass
                await self.edge.look()
                due_before = self.edge.archive_before(utc_now())
                while self.store.waiting is None and await self.store.archive_next_day(
                    utc_now(), due_before
                ):
                    pass
                if self.store.waiting is None and self.edge.holds_since_us is not None:
                    self.edge.days_in_file_only = await self.store.days_in_file_only(
                        self.edge.holds_since_us
                    )
            except StorageError as error:
                log.error("housekeeping_failed", detail=str(error))
            await asyncio.sleep(HOUSEKEEPING_SECONDS)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Storage]:
    """Runs storage for the length of a block."""
    check_folder(settings.data_dir, "GPUPING_DATA_DIR")
    inbox_prefix = subjects.service_inbox("storage")
    async with connection.connected(
        settings, settings.STORAGE_NAME, inbox_prefix=inbox_prefix
    ) as client:
        storage = Storage(client, settings)
        await when_available(lambda: layout.ensure(client, settings))
        try:
            await storage.store.open(utc_now())
        except CannotWriteError as error:
            log.error("history_open_failed", detail=str(error), action="waiting; pings go on")
        await storage.files.start()
        description = "history that can be paid on"
        name = settings.STORAGE_NAME
        service = await serve(client, subjects.STORAGE_SERVICE, description, [], instance=name)
        replica = Replica(client, service, subjects.STORAGE_READY, storage.endpoints.all())
        await replica.set_ready(ready=False)
        try:
            with short_switch_interval():
                async with background() as start:
                    start(storage.feed.run())
                    start(storage.keep_house())
                    start(storage.announce_readiness(replica))
                    yield storage
        finally:
            try:
                await service.stop()
            except (BusError, OSError, TimeoutError) as error:
                log.debug("service_stop_failed", detail=str(error))
            await storage.files.stop()
            await storage.store.close()
