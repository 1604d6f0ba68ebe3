"""A small scheduler and storage, as real micro services on a real bus, for tests of the gateway.

They answer as docs/api.md says, from what a test puts into them. Unlike real ones they can be told
not to answer, or to answer with bytes that cannot be read.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
from nats.micro.request import Request

from bus import settings
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth, BusHealth, GpuStatus, LedgerHealth
from bus.contract.beats import BeatsReply, BeatsRequest
from bus.contract.exports import ExportRequest, TableRequest
from bus.contract.fleet_map import (
    STATE_LETTERS,
    STATUS_LETTERS,
    FleetColumns,
    FleetMapPage,
    FleetMapRequest,
    FleetUptimes,
    FleetUptimesRequest,
    tenths,
)
from bus.contract.maintenance import Bookings
from bus.contract.messages import Seconds, UptimeReport, Window, decode, encode
from bus.contract.questions import (
    Agent,
    AgentPage,
    ExpectedGpus,
    Fleet,
    GpuCounts,
    HistoryRequest,
    HistorySummary,
    ListRequest,
    LiveEvent,
    OverviewReply,
    OverviewRequest,
    Ping,
    RegisterReply,
    RegisterRequest,
    SchedulerStats,
    StorageStats,
    StoredHistory,
    Trouble,
    UptimesReply,
    UptimesRequest,
)
from bus.contract.series import Bucket, SeriesReply, SeriesRequest
from bus.contract.statements import (
    Account,
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementRequest,
)
from bus.errors import RefusedError
from bus.settings import Settings
from bus.transport import micro_services
from bus.transport.connection import Client, connected
from bus.transport.file_transfer import FileOffer, Files
from bus.transport.micro_services import Endpoint
from gateway import service

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NONSENSE = b'{"agents": 7'


def agent(agent_id: str, **fields) -> Agent:
    plain = {
        "agent_url": None,
        "capabilities": (),
        "metadata": {},
        "status": "pending",
        "registered_at": NOW,
        "uptime_percent": None,
        "uptime_24h_percent": None,
        "consecutive_poor_uptime": 0,
        "good_streak": 0,
        "current_interval_minutes": 15.0,
        "next_ping_at": NOW,
        "last_ping_at": None,
        "last_answered_at": None,
        "total_pings": 0,
        "missed_pings": 0,
        "last_response_ms": None,
        "connected": None,
    }
    return Agent(agent_id=agent_id, **(plain | fields))


def ping(agent_id: str, seq: int, outcome: str = "answered", **fields) -> Ping:
    plain = {
        "pinged_at": NOW + timedelta(minutes=15 * seq),
        "outcome": outcome,
        "reason": None if outcome == "answered" else "no_responders",
        "verdict": "good" if outcome == "answered" else "poor",
        "uptime_percent": 99.5 if outcome == "answered" else None,
        "seconds": Seconds(up=895.5, down=4.5) if outcome == "answered" else None,
        "window_seconds": 900.0 if outcome == "answered" else None,
        "consecutive_poor_uptime": 0,
        "interval_minutes": 15.0,
        "next_ping_at": NOW + timedelta(minutes=15 * seq + 15),
        "response_ms": 1.5 if outcome == "answered" else None,
        "late_ms": 3.0,
    }
    return Ping(agent_id=agent_id, ping_seq=seq, **(plain | fields))


def report(agent_id: str) -> UptimeReport:
    return UptimeReport(
        agent_id=agent_id,
        boot_id="b",
        session_id="s",
        window=Window(since=NOW, until=NOW + timedelta(seconds=60), seconds=60.0, mark="m"),
        uptime_percent=100.0,
        seconds=Seconds(up=60.0),
        gpu_available=True,
        reported_at=NOW,
    )


GPU = {
    "uuid": "GPU-a",
    "index": 0,
    "name": "NVIDIA H100",
    "state": "up",
    "reasons": [],
    "expected": True,
    "temperature_celsius": 41,
    "power_watts": None,
    "reading_of_a_newer_agent": "kept",
}


def gpu_status(agent_id: str, gpus: tuple[dict, ...] = (GPU,)) -> GpuStatus:
    return GpuStatus(
        agent_id=agent_id,
        gpu_available=True,
        simulated=False,
        gpus=gpus,
        reported_at=NOW,
    )


def agent_health(agent_id: str) -> AgentHealth:
    return AgentHealth(
        agent_id=agent_id,
        status="ok",
        agent_version="1",
        boot_id="b",
        session_id="s",
        simulated=False,
        started_at=NOW,
        uptime_seconds=60.0,
        checks=60,
        check_interval_seconds=1.0,
        last_sample_age_seconds=0.5,
        dropped_samples=0,
        ledger=LedgerHealth(
            ledger_id="l",
            began_at=NOW,
            seconds=60.0,
            intervals=1,
            events=0,
            file_bytes=100,
            trouble=None,
        ),
        bus=BusHealth(connected=True, reconnects=0, registered=True),
        expected_gpus=("GPU-a",),
        reported_at=NOW,
    )


def quick(base: Settings, **more) -> Settings:
    """Any free port, and agents that are given up on soon."""
    return settings.load(
        {}, NATS_URL=base.NATS_URL, GATEWAY_PORT=0, PING_RESPONSE_TIMEOUT_SECONDS=1.0, **more
    )


def _labels(one: Agent) -> set[str]:
    return {f"{name}={value}" for name, value in one.metadata.items()}


class Behind:
    """The services on the bus. `silent` and `nonsense` name the endpoints that misbehave."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.agents: dict[str, Agent] = {}
        self.pings: dict[str, list[Ping]] = {}
        self.uptimes: dict[str, float] = {}
        self.series_pings = 0  # how many outcomes the buckets of any period have
        self.silent: set[str] = set()
        self.remarks: tuple[str, ...] = ()
        self.gpus = GpuCounts(total=8, up=7, down=1, hosts_lost_all=1)
        self.troubles: tuple[Trouble, ...] = ()
        self.nonsense: set[str] = set()
        self.asked: list[tuple[str, object]] = []
        self.files = Files(client)
        self.offered: Path | None = None
        self.file = b""  # what an export and a statement hold

    async def serve_scheduler(self) -> None:
        endpoints = {
            "register": (subjects.REGISTER_ALL, self._register),
            "enrol": (subjects.ENROL_ALL, self._register),
            "remove": (subjects.REMOVE_ALL, self._remove),
            "get": (subjects.GET_ALL, self._get),
            "list": (subjects.LIST, self._list),
            "list-maintenance": (subjects.LIST_MAINTENANCE, self._bookings),
            "expected-gpus": (subjects.EXPECTED_GPUS_ALL, self._expected_gpus),
            "fleet": (subjects.FLEET, self._fleet),
            "fleet-map": (subjects.FLEET_MAP, self._fleet_map),
            "ping": (subjects.PING_NOW_ALL, self._ping_now),
            "stats": (subjects.STATS, self._scheduler_stats),
        }
        await self._serve(subjects.SCHEDULER_SERVICE, endpoints)

    async def serve_storage(self) -> None:
        endpoints = {
            "history": (subjects.HISTORY_ALL, self._history),
            "series": (subjects.SERIES_ALL, self._series),
            "uptimes": (subjects.UPTIMES, self._uptimes),
            "fleet-uptimes": (subjects.FLEET_UPTIMES, self._fleet_uptimes),
            "beats": (subjects.BEATS, self._beats),
            "overview": (subjects.OVERVIEW, self._overview),
            "stats": (subjects.STORAGE_STATS, self._stats),
            "export": (subjects.EXPORT_ALL, self._export),
            "report": (subjects.STATEMENT_ALL, self._report),
            "replay": (subjects.REPLAY, self._replay),
            "table": (subjects.TABLE, self._table),
        }
        await self.files.start()
        await self._serve(subjects.STORAGE_SERVICE, endpoints)

    async def serve_agent(
        self, agent_id: str, answer: bytes | None = None, gpus: tuple[dict, ...] = (GPU,)
    ) -> None:
        async def respond(request: Request) -> bytes:
            return answer if answer is not None else encode(report(agent_id))

        async def details(request: Request) -> bytes:
            return answer if answer is not None else encode(gpu_status(agent_id, gpus))

        async def health(request: Request) -> bytes:
            return answer if answer is not None else encode(agent_health(agent_id))

        endpoints = {
            "ping": (subjects.ping(agent_id), respond),
            "look": (subjects.look(agent_id), respond),
            "gpu-status": (subjects.gpu_status(agent_id), details),
            "health": (subjects.health(agent_id), health),
        }
        await self._serve(subjects.AGENTD_SERVICE, endpoints)

    async def happens(self, event: LiveEvent) -> None:
        await self.client.publish(subjects.event(event.agent_id), encode(event))
        await self.client.flush()

    async def _serve(self, name: str, endpoints: dict) -> None:
        listed = [
            Endpoint(n, subject, self._told(n, handler))
            for n, (subject, handler) in endpoints.items()
        ]
        await micro_services.serve(self.client, name, "of a test", listed)

    def _told(self, name: str, handler):
        async def answer(request: Request):
            if name in self.silent:
                await asyncio.Event().wait()
            return NONSENSE if name in self.nonsense else await handler(request)

        return answer

    # ---- the scheduler

    async def _register(self, request: Request) -> RegisterReply:
        agent_id = subjects.last_token(request.subject)
        wanted = decode(request.data, RegisterRequest)
        self.asked.append(("register", wanted))
        created = agent_id not in self.agents
        old = self.agents.get(agent_id) or agent(agent_id)
        changes = {
            name: getattr(wanted, name) for name in ("agent_url", "capabilities", "metadata")
        }
        self.agents[agent_id] = msgspec.structs.replace(
            old, **{n: v for n, v in changes.items() if v is not None}
        )
        return RegisterReply(agent=self.agents[agent_id], created=created)

    async def _remove(self, request: Request) -> bytes:
        await self._get(request)
        del self.agents[subjects.last_token(request.subject)]
        return b"{}"

    async def _get(self, request: Request) -> Agent:
        agent_id = subjects.last_token(request.subject)
        if agent_id not in self.agents:
            raise RefusedError(404, f"agent {agent_id} is not registered")
        return self.agents[agent_id]

    async def _bookings(self, _request: Request) -> Bookings:
        return Bookings(bookings=())

    async def _expected_gpus(self, request: Request) -> ExpectedGpus:
        agent_id = subjects.last_token(request.subject)
        return ExpectedGpus(agent_id=agent_id, expected_gpus=(), changes=())

    async def _list(self, request: Request) -> AgentPage:
        question = decode(request.data, ListRequest)
        self.asked.append(("list", question))
        fitting = [
            one
            for _, one in sorted(self.agents.items())
            if (question.status in {None, one.status})
            and (question.capability is None or question.capability in one.capabilities)
            and (question.search or "").lower() in one.agent_id.lower()
            and (question.label is None or question.label in _labels(one))
            and (not question.agent_ids or one.agent_id in question.agent_ids)
        ]
        after = [
            one for one in fitting if question.cursor is None or one.agent_id > question.cursor
        ]
        end = question.offset + question.limit
        page = after[question.offset : end]
        more = page[-1].agent_id if len(after) > end else None
        return AgentPage(agents=tuple(page), total=len(fitting), next_cursor=more)

    async def _fleet(self, request: Request) -> Fleet:
        by_status: dict[str, int] = {}
        for one in self.agents.values():
            by_status[one.status] = by_status.get(one.status, 0) + 1
        return Fleet(
            agents=len(self.agents),
            pings=sum(map(len, self.pings.values())),
            missed=1,
            due=2,
            in_flight=3,
            by_status=by_status,
            next_ping_at=NOW,
            gpus=self.gpus,
            base_interval_minutes=15.0,
            remarks=self.remarks,
        )

    async def _fleet_map(self, request: Request) -> FleetMapPage:
        """All agents in one page."""
        label = decode(request.data, FleetMapRequest).label or ""
        listed = [one for _, one in sorted(self.agents.items())]
        of_agents = [str(one.metadata.get(label, "-")) for one in listed]
        names = sorted(set(of_agents))
        gpus = [gpu for one in listed for gpu in one.gpus]
        columns = FleetColumns(
            agent_ids=tuple(one.agent_id for one in listed),
            statuses="".join(STATUS_LETTERS[one.status] for one in listed),
            gpu_counts=tuple(len(one.gpus) for one in listed),
            gpu_states="".join(STATE_LETTERS[gpu.state] for gpu in gpus),
            uptimes=tuple(int((one.uptime_percent or 0) * 10) for one in listed),
            escalations=tuple(one.consecutive_poor_uptime for one in listed),
            groups=tuple(names.index(name) for name in of_agents) if label else (),
            group_names=tuple(names) if label else (),
        )
        return FleetMapPage(columns=columns)

    async def _ping_now(self, request: Request) -> Ping:
        await self._get(request)
        return self.pings[subjects.last_token(request.subject)][0]

    async def _scheduler_stats(self, request: Request) -> SchedulerStats:
        return SchedulerStats(
            instance="s1",
            started_at=NOW,
            verdicts={"good": 7, "poor": 2},
            in_flight=3,
            in_flight_limit=100,
            waiting=0,
            held_back_seconds=1.5,
            commits=5,
            lost_races=1,
            bad_messages=0,
            events_dropped=0,
            timers_put_off=0,
            ping_seconds={"0.01": 6, "+Inf": 7},
            late_seconds={"0.1": 9, "+Inf": 9},
            ping_seconds_sum=0.5,
        )

    # ---- storage

    async def _history(self, request: Request) -> StoredHistory:
        agent_id = subjects.last_token(request.subject)
        question = decode(request.data, HistoryRequest)
        self.asked.append(("history", question))
        every = self.pings.get(agent_id, [])
        rest = [
            one
            for one in every
            if (question.cursor is None or one.ping_seq < int(question.cursor.partition("-")[2]))
            and (question.before is None or one.pinged_at < question.before)
        ]
        page = rest[: question.limit]
        answered = sum(one.outcome == "answered" for one in every)
        summary = HistorySummary(
            pings=len(every),
            answered=answered,
            missed=len(every) - answered,
            excused=0,
            first=0,
            good=answered,
            poor=len(every) - answered,
            missing_seqs=0,
            uptime_percent=99.5,
            seconds=Seconds(up=1.0),
        )
        more = f"0-{page[-1].ping_seq}" if len(rest) > len(page) else None
        return StoredHistory(
            agent_id=agent_id,
            hours=question.hours,
            pings=tuple(page),
            summary=summary,
            next_cursor=more,
            agent_known=bool(every),
        )

    async def _series(self, request: Request) -> SeriesReply:
        agent_id = subjects.last_token(request.subject)
        question = decode(request.data, SeriesRequest)
        self.asked.append(("series", question))
        length = (question.until - question.since).total_seconds()
        return SeriesReply(
            agent_id=agent_id,
            since=question.since,
            until=question.until,
            bucket_seconds=216.0,
            pings=self.series_pings,
            missed=0,
            uptime_percent=99.0 if self.series_pings else None,
            seconds=Seconds(up=0.99 * length, down=0.01 * length)
            if self.series_pings
            else Seconds(),
            buckets=self._buckets(question),
            agent_known=bool(self.pings.get(agent_id)),
        )

    def _buckets(self, question: SeriesRequest) -> tuple[Bucket, ...]:
        """As many as were asked for, one after the other, none of them without outcomes."""
        if not self.series_pings:
            return ()
        step = (question.until - question.since) / question.points
        buckets = []
        for number in range(question.points):
            bucket = Bucket(
                since=question.since + number * step,
                until=question.since + (number + 1) * step,
                pings=self.series_pings // question.points,
                missed=0,
                excused=0,
                poor=0,
                uptime_percent=99.0,
                min_uptime_percent=90.0,
                seconds=Seconds(),
                response_ms_p50=2.0,
                response_ms_p95=4.0,
            )
            buckets.append(bucket)
        return tuple(buckets)

    async def _uptimes(self, request: Request) -> UptimesReply:
        asked = decode(request.data, UptimesRequest).agent_ids
        self.asked.append(("uptimes", asked))
        return UptimesReply(
            uptimes={name: value for name, value in self.uptimes.items() if name in asked},
            judged_seconds={name: 1.0 for name in self.uptimes if name in asked},
        )

    async def _fleet_uptimes(self, request: Request) -> FleetUptimes:
        self.asked.append(("fleet-uptimes", decode(request.data, FleetUptimesRequest)))
        packed = tuple(tenths(value) for value in self.uptimes.values())
        return FleetUptimes(agent_ids=tuple(self.uptimes), uptimes=packed)

    async def _beats(self, request: Request) -> BeatsReply:
        asked = decode(request.data, BeatsRequest)
        self.asked.append(("beats", asked.agent_ids))
        known = [agent_id for agent_id in asked.agent_ids if self.pings.get(agent_id)]
        return BeatsReply(beats={name: tuple(self.pings[name][: asked.count]) for name in known})

    async def _overview(self, request: Request) -> OverviewReply:
        question = decode(request.data, OverviewRequest)
        newest = [one for every in self.pings.values() for one in every][: question.recent]
        return OverviewReply(
            pings=len(newest),
            verdicts={"good": 1},
            uptime_percent=99.5,
            seconds=Seconds(up=1.0),
            response_ms={"p50": 1.5, "p95": 2.0},
            late_ms={"p50": 3.0},
            recent=tuple(newest),
            troubles=self.troubles,
        )

    async def _export(self, request: Request) -> FileOffer:
        question = decode(request.data, ExportRequest)
        if not question.registered and not self.pings.get(subjects.last_token(request.subject)):
            raise RefusedError(404, "no history")
        return self._offer(f"history.{question.format}", f"text/{question.format}; charset=utf-8")

    async def _table(self, request: Request) -> FileOffer:
        question = decode(request.data, TableRequest)
        self.asked.append(("table", question))
        if question.agent_id and not question.registered and not self.pings.get(question.agent_id):
            raise RefusedError(404, "no history")
        return self._offer(
            f"{question.table}.{question.format}", f"text/{question.format}; charset=utf-8"
        )

    async def _replay(self, request: Request) -> FleetReplay | FileOffer:
        question = decode(request.data, FleetReplayRequest)
        self.asked.append(("replay", question))
        if question.format != "json":
            return self._offer(
                f"replay.{question.format}", f"text/{question.format}; charset=utf-8"
            )
        return FleetReplay(
            month=question.month, now="ours", then="others", gains=1, loses=2, same=3, agents=()
        )

    async def _report(self, request: Request) -> Statement | FileOffer:
        question = decode(request.data, StatementRequest)
        self.asked.append(("report", question))
        agent_id = subjects.last_token(request.subject)
        if not self.pings.get(agent_id):
            raise RefusedError(404, "no history")
        if question.format != "json":
            return self._offer(f"month.{question.format}", f"text/{question.format}")
        host = Account(
            seconds=Seconds(up=1.0),
            unreported_seconds=0.0,
            coverage_percent=100.0,
            uptime_percent=100.0,
        )
        return Statement(
            agent_id=agent_id,
            month=question.month,
            generated_at=NOW,
            since=NOW,
            until=NOW,
            final=False,
            enrolled_seconds=1.0,
            host=host,
            gpus=(),
            incidents=(),
            splits=(),
            pings=1,
            answered=1,
            missed=0,
            excused=0,
            missing_seqs=0,
        )

    def _offer(self, name: str, media_type: str) -> FileOffer:
        handle, path = tempfile.mkstemp()
        os.write(handle, self.file)
        os.close(handle)
        self.offered = Path(path)
        return self.files.offer(self.offered, name, media_type)

    async def _stats(self, request: Request) -> StorageStats:
        return StorageStats(
            rows=12,
            last_sequence=12,
            lag=4,
            missing_seqs=1,
            stream_begins=NOW - timedelta(days=28),
            stream_days_left=3.2,
            days_in_file_only=2,
        )


@asynccontextmanager
async def gateway_and_behind(
    chosen: Settings, *, scheduler: bool = True, storage: bool = True
) -> AsyncIterator[tuple[httpx.AsyncClient, Behind]]:
    """A running gateway, an HTTP client of it, and what it finds on the bus."""
    async with connected(chosen, "behind") as client:
        behind = Behind(client)
        if scheduler:
            await behind.serve_scheduler()
        if storage:
            await behind.serve_storage()
        try:
            async with (
                service.running(chosen) as gateway,
                httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
            ):
                yield http, behind
        finally:
            await behind.files.stop()
