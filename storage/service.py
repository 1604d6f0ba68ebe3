"""The storage service: ingest, answers and housekeeping, composed.

Answers when entered. While the history file cannot be used, or lacks outcomes that the stream has, another storage
that is ready gets the questions; where there is none, they are refused with the reason, or answered as far as
nobody is paid on it. Pings go on: the stream keeps what ingest has not taken in.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct
from msgspec.structs import replace
from nats.micro.request import Request

from bus.background import background
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.exports import FileFormat, TableRequest
from bus.contract.messages import decode, encode
from bus.contract.questions import (
    HistoryRequest,
    OverviewReply,
    OverviewRequest,
    StorageStats,
    StoredHistory,
    UptimesReply,
    UptimesRequest,
)
from bus.contract.statements import (
    ExportRequest,
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementRequest,
)
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from bus.transport.file_transfer import FileOffer, Files
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.large_answers import room
from bus.transport.micro_services import Endpoint, serve
from bus.transport.standby import Replica
from storage.answers import history, tables
from storage.engine import table_files
from storage.engine.errors import CannotWriteError, StorageError
from storage.engine.table_files import ExportFile, TableQuery
from storage.statements import build, page, replay
from storage.store.store import Reader, Store
from storage.store.switch_interval import short_switch_interval
from storage.stream.feed import Feed

log = structlog.get_logger("storage")

TEND_SECONDS = 300.0
FILE_SECONDS = 240.0  # what a file may take to be written: a month of 10,000 agents
FILES_AT_ONCE = 2  # of the three readers, so that one is left for questions


class Storage:
    """The running service."""

    def __init__(self, client: connection.Client, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.store = Store(settings)
        self.feed = Feed(client, settings, self.store)
        self.files = Files(client)
        self._writing = asyncio.Semaphore(FILES_AT_ONCE)

    def endpoints(self) -> list[Endpoint]:
        """What storage answers."""
        return [
            Endpoint("history", subjects.HISTORY_ALL, self.history),
            Endpoint("uptimes", subjects.UPTIMES, self.uptimes),
            Endpoint("overview", subjects.OVERVIEW, self.overview),
            Endpoint("report", subjects.REPORT_ALL, self.report),
            Endpoint("replay", subjects.REPLAY, self.replay),
            Endpoint("export", subjects.EXPORT_ALL, self.export),
            Endpoint("table", subjects.TABLE, self.table),
            Endpoint("stats", subjects.STORAGE_STATS, self.stats),
        ]

    async def history(self, request: Request) -> StoredHistory:
        """A page of an agent's outcomes."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data or b"{}", HistoryRequest)
        now = utc_now()
        most = room(self.client)
        return await self.store.read(
            lambda reader: history.history(reader, agent_id, asked, now, most)
        )

    async def uptimes(self, request: Request) -> UptimesReply:
        """Uptime of several agents."""
        asked = decode(request.data, UptimesRequest)
        now = utc_now()
        return await self.store.read(lambda reader: history.uptimes(reader, asked, now))

    async def overview(self, request: Request) -> OverviewReply:
        """The fleet in numbers."""
        asked = decode(request.data or b"{}", OverviewRequest)
        now = utc_now()
        most = room(self.client)
        return await self.store.read(lambda reader: history.overview(reader, asked, now, most))

    async def report(self, request: Request) -> bytes | FileOffer:
        """The uptime statement of a month: itself, or the offer of a file in the format asked for."""
        self._check_whole()
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data, StatementRequest)
        now, threshold = utc_now(), self.settings.PING_UPTIME_THRESHOLD
        form, scratch = asked.format, self.store.paths.scratch

        def made(reader: Reader) -> Statement:
            return build.statement(reader, agent_id, asked, now, threshold)

        name = f"{agent_id}-{asked.month}"
        if form == "json":
            return await self._whole(made, name)
        if form == "html":
            return await self._offer(
                lambda reader: table_files.write_text(
                    scratch, page.render(made(reader)), name, form
                )
            )
        return await self._offer(
            lambda reader: table_files.write(
                reader.cursor, scratch, tables.statement(made(reader)), name, form
            )
        )

    async def replay(self, request: Request) -> bytes | FileOffer:
        """The fleet's month under other rules: those whose pay changes most, or the offer of a file with all."""
        self._check_whole()
        asked = decode(request.data, FleetReplayRequest)
        now, threshold = utc_now(), self.settings.PING_UPTIME_THRESHOLD
        form, scratch = asked.format, self.store.paths.scratch

        def made(reader: Reader) -> FleetReplay:
            return replay.fleet(reader, asked, now, threshold)

        def listed(reader: Reader) -> FleetReplay:
            replayed = made(reader)
            return replace(replayed, agents=replayed.agents[: asked.limit])

        name = f"fleet-replay-{asked.month}"
        if form == "json":
            return await self._whole(listed, name, FILE_SECONDS)
        return await self._offer(
            lambda reader: table_files.write(
                reader.cursor, scratch, tables.replay(made(reader)), name, form
            )
        )

    async def export(self, request: Request) -> FileOffer:
        """An agent's history as a file, to be fetched with `bus.transfer.receive`."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data or b"{}", ExportRequest)
        now = utc_now()
        return await self._rows(
            lambda reader: tables.history(reader, agent_id, asked, now),
            f"{agent_id}-history",
            asked.format,
        )

    async def table(self, request: Request) -> FileOffer:
        """Any other answer as a file; a month's sums are paid on like its statements."""
        asked = decode(request.data, TableRequest)
        if asked.month is not None:
            self._check_whole()
        now = utc_now()
        name = "-".join(part for part in (asked.agent_id, asked.table, asked.month) if part)
        return await self._rows(lambda reader: tables.table(reader, asked, now), name, asked.format)

    async def _rows(
        self, question: Callable[[Reader], TableQuery], name: str, form: FileFormat
    ) -> FileOffer:
        scratch = self.store.paths.scratch
        return await self._offer(
            lambda reader: table_files.write(reader.cursor, scratch, question(reader), name, form)
        )

    async def _whole(
        self, make: Callable[[Reader], Struct], name: str, seconds: float | None = None
    ) -> bytes | FileOffer:
        """An answer in JSON: itself, or the offer of a file with it where a message would not carry it."""
        data = await self.store.read(lambda reader: encode(make(reader)), seconds)
        if len(data) <= room(self.client):
            return data
        scratch = self.store.paths.scratch
        return await self._offer(
            lambda _: table_files.write_text(scratch, data.decode(), name, "json")
        )

    async def _offer(self, write: Callable[[Reader], ExportFile]) -> FileOffer:
        """A file, written in a reader's thread. A few at once: questions shall not wait for them."""
        self.files.check_room()
        async with self._writing:
            return self.files.offer(*await self.store.read(write, FILE_SECONDS))

    async def stats(self, _request: Request) -> StorageStats:
        """Answers while the file cannot be used, too: it says why."""
        ingest = self.store.ingest
        held = ingest.position if ingest else None
        last = await self._last_in_stream()
        return StorageStats(
            rows=ingest.rows if ingest else 0,
            last_sequence=held.sequence if held else 0,
            lag=max(0, last - (held.sequence if held else 0)),
            missing_seqs=ingest.sequences.missing if ingest else 0,
            poisoned=ingest.poisoned if ingest else 0,
            ingest_waiting=self.store.waiting or self.feed.wait_log.detail,
        )

    async def _last_in_stream(self) -> int:
        """The last sequence of the history stream; 0 while there is no stream."""
        try:
            info = await jetstream_api.call(self.client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
        except JetStreamApiError:
            return 0
        last: int = info["state"]["last_seq"]
        return last

    async def stand(self, replica: Replica) -> None:
        """Ready while the file can be used and lacks nothing; else a replica that is shall have the questions."""
        while True:
            self.feed.catch_up.changed.clear()
            await replica.set_ready(
                ready=self.store.waiting is None and self.feed.catch_up.complete
            )
            await self.feed.catch_up.changed.wait()

    def _check_whole(self) -> None:
        """Before what is paid on. Why the file cannot be used, whoever reads it says."""
        if self.store.waiting is None:
            self.feed.catch_up.check()

    async def tend(self) -> None:
        """Housekeeping, a step at a time so that ingest comes in between."""
        while True:
            try:
                while self.store.waiting is None and await self.store.seal(utc_now()):
                    pass
                while self.store.waiting is None and await self.store.move(utc_now()):
                    pass
            except StorageError as error:
                log.error("housekeeping_failed", detail=str(error))
            await asyncio.sleep(TEND_SECONDS)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Storage]:
    """Storage for the length of a block."""
    async with connection.connected(settings, settings.STORAGE_NAME) as client:
        storage = Storage(client, settings)
        await layout.ensure(client, settings)
        try:
            await storage.store.open(utc_now())
        except CannotWriteError as error:
            log.error("history_cannot_be_opened", detail=str(error), action="waiting; pings go on")
        await storage.files.start()
        service = await serve(client, subjects.STORAGE_SERVICE, "history that can be paid on", [])
        replica = Replica(client, service, subjects.STORAGE_READY, storage.endpoints())
        await replica.set_ready(ready=False)
        try:
            with short_switch_interval():
                async with background() as start:
                    start(storage.feed.run())
                    start(storage.tend())
                    start(storage.stand(replica))
                    yield storage
        finally:
            try:
                await service.stop()
            except (BusError, OSError, TimeoutError):
                log.debug("service_stopped_without_the_bus")
            await storage.files.stop()
            await storage.store.close()
