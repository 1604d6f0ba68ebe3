"""What storage answers on the bus: one method an endpoint.

An answer that a message cannot carry, and every answer in another format than JSON, is written to a
file and the reply is an offer of that file. Answers that somebody is paid by are refused while
outcomes of the stream are missing in history.
"""

import asyncio
import shutil
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from nats.micro.request import Request

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.beats import BeatsRequest
from bus.contract.explanations import (
    Explanation,
    ExplanationRequest,
    Timeline,
    TimelineRequest,
)
from bus.contract.exports import ExportRequest, FileFormat, TableRequest
from bus.contract.fleet_map import FleetUptimesRequest
from bus.contract.messages import decode, encode
from bus.contract.publishing import HostDaysRequest
from bus.contract.questions import (
    HistoryRequest,
    OverviewReply,
    OverviewRequest,
    StorageStats,
    StoredHistory,
    UptimesReply,
    UptimesRequest,
)
from bus.contract.series import SeriesReply, SeriesRequest
from bus.contract.statements import (
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementRequest,
)
from bus.settings import Settings
from bus.transport import connection, jetstream_api
from bus.transport.file_transfer import FileOffer, Files
from bus.transport.jetstream_api import JetStreamApiError
from bus.transport.large_answers import room
from bus.transport.micro_services import Endpoint
from storage.answers import beats, history, host_days, series, tables
from storage.engine import table_files
from storage.engine.errors import reason_for
from storage.engine.table_files import ExportFile, TableQuery
from storage.explanations import explain, timeline
from storage.statements import build, bundle, page, replay
from storage.store.store import Reader, Store
from storage.stream.edge import EdgeWatch
from storage.stream.feed import Feed

FILE_SECONDS = 240.0  # writing a file may take this long: a month of 10,000 agents
FILES_AT_ONCE = 2  # of the three readers, so that one is left for other questions


class _HistoryStream(NamedTuple):
    """The stream on the bus. `limit_bytes` is None for one without such a limit."""

    last_sequence: int
    bytes: int
    limit_bytes: int | None


class _Disk(NamedTuple):
    """Bytes of a file system; None where they are not known."""

    free: int | None
    total: int | None


class Endpoints:
    """The answers of one storage.

    The questions are read by the store's readers, in threads of their own.
    """

    def __init__(
        self,
        client: connection.Client,
        settings: Settings,
        store: Store,
        feed: Feed,
        files: Files,
        edge: EdgeWatch,
    ) -> None:
        self._client = client
        self._edge = edge
        self._settings = settings
        self._store = store
        self._feed = feed
        self._files = files
        self._writing = asyncio.Semaphore(FILES_AT_ONCE)

    def all(self) -> list[Endpoint]:
        """Returns every endpoint with its subject."""
        return [
            Endpoint("history", subjects.HISTORY_ALL, self.history),
            Endpoint("series", subjects.SERIES_ALL, self.series),
            Endpoint("uptimes", subjects.UPTIMES, self.uptimes),
            Endpoint("fleet-uptimes", subjects.FLEET_UPTIMES, self.fleet_uptimes),
            Endpoint("beats", subjects.BEATS, self.beats),
            Endpoint("host-days", subjects.HOST_DAYS, self.host_days),
            Endpoint("overview", subjects.OVERVIEW, self.overview),
            Endpoint("report", subjects.STATEMENT_ALL, self.report),
            Endpoint("explanation", subjects.EXPLANATION_ALL, self.explanation),
            Endpoint("timeline", subjects.TIMELINE_ALL, self.timeline),
            Endpoint("replay", subjects.REPLAY, self.replay),
            Endpoint("export", subjects.EXPORT_ALL, self.export),
            Endpoint("table", subjects.TABLE, self.table),
            Endpoint("stats", subjects.STORAGE_STATS, self.stats),
        ]

    async def history(self, request: Request) -> StoredHistory:
        """Answers with a page of an agent's outcomes."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data or b"{}", HistoryRequest)
        now = utc_now()
        most_bytes = room(self._client)
        return await self._store.read(
            lambda reader: history.history(reader, agent_id, asked, now, most_bytes)
        )

    async def series(self, request: Request) -> SeriesReply:
        """Answers with an agent's uptime over a period in buckets."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data, SeriesRequest)
        return await self._store.read(lambda reader: series.series(reader, agent_id, asked))

    async def uptimes(self, request: Request) -> UptimesReply:
        """Answers with the uptime of several agents."""
        asked = decode(request.data, UptimesRequest)
        now = utc_now()
        return await self._store.read(lambda reader: history.uptimes(reader, asked, now))

    async def fleet_uptimes(self, request: Request) -> bytes | FileOffer:
        """Answers with the uptime of every agent, or with the offer of a file of it."""
        asked = decode(request.data or b"{}", FleetUptimesRequest)
        now = utc_now()
        return await self._json(
            lambda reader: history.fleet_uptimes(reader, asked, now), "fleet-uptimes"
        )

    async def beats(self, request: Request) -> bytes | FileOffer:
        """Answers with the newest outcomes of several agents."""
        asked = decode(request.data, BeatsRequest)
        now = utc_now()
        return await self._json(lambda reader: beats.beats(reader, asked, now), "beats")

    async def host_days(self, request: Request) -> bytes | FileOffer:
        """Answers with the days and incidents of a few hosts."""
        asked = decode(request.data, HostDaysRequest)
        return await self._json(lambda reader: host_days.host_days(reader, asked), "host-days")

    async def overview(self, request: Request) -> OverviewReply:
        """Answers with the sums, the percentiles and the newest outcomes of the fleet."""
        asked = decode(request.data or b"{}", OverviewRequest)
        now = utc_now()
        most_bytes = room(self._client)
        return await self._store.read(
            lambda reader: history.overview(reader, asked, now, most_bytes)
        )

    async def report(self, request: Request) -> bytes | FileOffer:
        """Answers with an agent's statement, or with the offer of a file of it."""
        self._check_complete()
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data, StatementRequest)
        now = utc_now()
        threshold = self._settings.PING_UPTIME_THRESHOLD
        form = asked.format
        name = f"{agent_id}-{asked.month}"

        def make(reader: Reader) -> Statement:
            return build.statement(reader, agent_id, asked, now, threshold)

        if form == "json":
            return await self._json(make, name)
        if form == "html":
            return await self._text_file(lambda reader: page.render(make(reader)), name, form)
        if form == "bundle":

            def make_bundle(reader: Reader) -> str:
                return bundle.bundle(reader, agent_id, asked, now, threshold)

            return await self._text_file(make_bundle, name, form)
        return await self._table_file(lambda reader: tables.statement(make(reader)), name, form)

    async def explanation(self, request: Request) -> bytes | FileOffer:
        """Answers why an agent's month is what it is, refused as its statement would be."""
        self._check_complete()
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data, ExplanationRequest)
        now = utc_now()
        threshold = self._settings.PING_UPTIME_THRESHOLD

        def make(reader: Reader) -> Explanation:
            return explain.explanation(reader, agent_id, asked, now, threshold)

        return await self._json(make, f"{agent_id}-{asked.month}-explanation", FILE_SECONDS)

    async def timeline(self, request: Request) -> bytes | FileOffer:
        """Answers when each GPU of an agent was in which state."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data, TimelineRequest)

        def make(reader: Reader) -> Timeline:
            return timeline.timeline(reader, agent_id, asked)

        return await self._json(make, f"{agent_id}-timeline", FILE_SECONDS)

    async def replay(self, request: Request) -> bytes | FileOffer:
        """Answers with the agents whose pay changes most, or with the offer of a file of all."""
        self._check_complete()
        asked = decode(request.data, FleetReplayRequest)
        now = utc_now()
        threshold = self._settings.PING_UPTIME_THRESHOLD
        form = asked.format
        name = f"fleet-replay-{asked.month}"

        def make(reader: Reader) -> FleetReplay:
            return replay.fleet(reader, asked, now, threshold)

        def make_limited(reader: Reader) -> FleetReplay:
            replayed = make(reader)
            return replace(replayed, agents=replayed.agents[: asked.limit])

        if form == "json":
            return await self._json(make_limited, name, FILE_SECONDS)
        return await self._table_file(lambda reader: tables.replay(make(reader)), name, form)

    async def export(self, request: Request) -> FileOffer:
        """Answers with the offer of a file of an agent's history."""
        agent_id = subjects.last_token(request.subject)
        asked = decode(request.data or b"{}", ExportRequest)
        now = utc_now()
        return await self._table_file(
            lambda reader: tables.history(reader, agent_id, asked, now),
            f"{agent_id}-history",
            asked.format,
        )

    async def table(self, request: Request) -> FileOffer:
        """Answers with the offer of any other table.

        The sums of a month are paid by, as statements are.
        """
        asked = decode(request.data, TableRequest)
        if asked.month is not None:
            self._check_complete()
        now = utc_now()
        parts = [asked.agent_id, asked.table, asked.month]
        name = "-".join(part for part in parts if part)
        return await self._table_file(
            lambda reader: tables.table(reader, asked, now), name, asked.format
        )

    async def stats(self, _request: Request) -> StorageStats:
        """Answers how far ingest has read, and why it waits where it does."""
        return await self.read_stats()

    async def read_stats(self) -> StorageStats:
        """Returns how far ingest has read, and the room on the bus and on the disk."""
        stream = await self._history_stream()
        disk = self._disk()
        waiting = self._store.waiting or self._feed.wait_log.detail
        reason = None
        if waiting is not None:
            reason = reason_for(waiting)
        ingest = self._store.ingest
        if ingest is None:
            return StorageStats(
                rows=0,
                last_sequence=0,
                lag=stream.last_sequence,
                missing_seqs=0,
                ingest_waiting=waiting,
                stream_bytes=stream.bytes,
                stream_limit_bytes=stream.limit_bytes,
                disk_free_bytes=disk.free,
                disk_bytes=disk.total,
                waiting_reason=reason,
                refused_replies=self._client.refused_reply_count,
            )
        last_sequence = 0
        if ingest.position is not None:
            last_sequence = ingest.position.sequence
        if self._edge.found is None:
            # The housekeeping looks every few minutes, and an outcome may have come since.
            await self._edge.look()
        return StorageStats(
            rows=ingest.rows,
            last_sequence=last_sequence,
            lag=max(0, stream.last_sequence - last_sequence),
            missing_seqs=ingest.sequences.missing,
            poisoned=ingest.poisoned,
            stream_begins=self._edge.begins,
            stream_days_left=self._edge.days_left,
            days_in_file_only=self._edge.days_in_file_only,
            ingest_waiting=waiting,
            stream_bytes=stream.bytes,
            stream_limit_bytes=stream.limit_bytes,
            disk_free_bytes=disk.free,
            disk_bytes=disk.total,
            waiting_reason=reason,
            refused_replies=self._client.refused_reply_count,
            engine_bytes=self._store.engine_bytes,
        )

    async def _history_stream(self) -> _HistoryStream:
        """Returns the history stream as it is now; an empty one while there is none."""
        try:
            info = await jetstream_api.call(self._client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
        except JetStreamApiError:
            return _HistoryStream(0, 0, None)
        limit = info["config"].get("max_bytes", -1)
        return _HistoryStream(
            last_sequence=info["state"]["last_seq"],
            bytes=info["state"]["bytes"],
            limit_bytes=limit if limit > 0 else None,
        )

    def _disk(self) -> _Disk:
        """Returns the room on the disk of the history file; unknown while there is no folder."""
        try:
            usage = shutil.disk_usage(self._store.paths.folder)
        except OSError:
            return _Disk(None, None)
        return _Disk(usage.free, usage.total)

    def _check_complete(self) -> None:
        """Raises UnavailableError while history lacks outcomes that the stream has.

        While the history file itself cannot be used, the reader raises it with the reason.
        """
        if self._store.waiting is None:
            self._feed.catch_up.check()

    async def _json(
        self,
        make: Callable[[Reader], Struct],
        name: str,
        seconds: float | None = None,
    ) -> bytes | FileOffer:
        """Returns an answer as JSON, or the offer of a file where a message cannot carry it."""
        data = await self._store.read(lambda reader: encode(make(reader)), seconds)
        if len(data) <= room(self._client):
            return data
        return await self._text_file(lambda _: data.decode(), name, "json")

    async def _text_file(
        self,
        make: Callable[[Reader], str],
        name: str,
        form: str,
    ) -> FileOffer:
        scratch = self._store.paths.scratch
        return await self._offer(
            lambda reader: table_files.write_text(scratch, make(reader), name, form)
        )

    async def _table_file(
        self,
        query: Callable[[Reader], TableQuery],
        name: str,
        form: FileFormat,
    ) -> FileOffer:
        scratch = self._store.paths.scratch
        return await self._offer(
            lambda reader: table_files.write(reader.cursor, scratch, query(reader), name, form)
        )

    async def _offer(self, write: Callable[[Reader], ExportFile]) -> FileOffer:
        """Writes a file in a reader's thread and returns its offer. A few are written at once."""
        self._files.check_room()
        async with self._writing:
            file = await self._store.read(write, FILE_SECONDS)
            return self._files.offer(file.path, file.name, file.media_type)
