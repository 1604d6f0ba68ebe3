"""Every question that the scheduler, storage and the agents answer, as one typed call each.

The gateway and the command line both ask through `FleetClient`, so that they wait equally long and
treat a missing agent alike. Every call raises a `BusError`:

- `UnavailableError`: nobody answered in time, or the bus is not connected;
- `RefusedError`: the service answered, and said no;
- `BadAnswerError`: the service's answer cannot be read, which is no fault of the caller;
- `AgentError`: an agent that was asked directly did not answer, or not with what it should.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar, get_args

import structlog
from msgspec import Struct
from msgspec.structs import replace

from bus import clock
from bus.client.alerts_client import AlertsClient
from bus.client.audit import read_page
from bus.client.publishing_client import PublishingClient
from bus.client.recent_uptime import with_uptime
from bus.contract import subjects
from bus.contract.agent_answers import AgentHealth, GpuStatus, check_gpus
from bus.contract.alerts import AlertsStats, AlertsSummary
from bus.contract.audit import AuditPage
from bus.contract.beats import BeatsReply, BeatsRequest
from bus.contract.dashboard import (
    CHANGES,
    LONGER_HOURS,
    PERIOD_HOURS,
    PLACE_LABEL,
    RECENT_PINGS,
    TROUBLES,
    WORST_AGENTS,
    Dashboard,
    FleetUptime,
    Totals,
)
from bus.contract.enrolment import NewTokenReply, NewTokenRequest
from bus.contract.explanations import (
    Explanation,
    ExplanationRequest,
    Timeline,
    TimelineRequest,
)
from bus.contract.exports import ExportRequest, TableRequest
from bus.contract.fleet_map import (
    FleetMap,
    FleetMapPage,
    FleetMapRequest,
    FleetUptimes,
    FleetUptimesRequest,
    joined,
)
from bus.contract.labels import LabelsRequest
from bus.contract.maintenance import Bookings, BookingsRequest, BookRequest, CancelRequest
from bus.contract.messages import Status, UptimeReport, decode, encode
from bus.contract.questions import (
    Agent,
    AgentPage,
    BridgeRequest,
    ChangeRequest,
    ExpectedGpus,
    ExpectGpusRequest,
    Fleet,
    FleetSums,
    GetRequest,
    HistoryReply,
    HistoryRequest,
    ListRequest,
    OverviewReply,
    OverviewRequest,
    Ping,
    RegisterReply,
    RegisterRequest,
    SchedulerStats,
    StorageStats,
    StoredHistory,
    UptimesReply,
    UptimesRequest,
)
from bus.contract.series import SeriesReply, SeriesRequest
from bus.contract.statements import (
    BookedMaintenance,
    FleetReplay,
    FleetReplayRequest,
    Statement,
    StatementRequest,
)
from bus.errors import (
    AgentError,
    BadAnswerError,
    BadMessageError,
    BusError,
    RefusedError,
    UnavailableError,
)
from bus.redaction import without_paths
from bus.transport import hedging
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer, receive
from bus.transport.large_answers import ask_whole
from bus.transport.micro_services import ask, ask_all, ask_raw

log = structlog.get_logger("bus.client")

SCHEDULER = "the scheduler"
STORAGE = "storage"
ENROLMENT = "the enrolment service"

ANSWER_SECONDS = 5.0
# A year of one agent's history may take storage its whole query time-out.
HISTORY_SECONDS = 15.0
# Storage computes a whole statement or file first: a month of 10,000 agents takes a minute.
FILE_SECONDS = 250.0
# The sums of a week and of thirty days hardly change within so long.
LONGER_SECONDS = 60.0
# For a part of an answer that the caller can do without.
OPTIONAL_SECONDS = 1.0
EVERYBODY_SECONDS = 0.4  # for all schedulers: one that is frozen does not answer
# The scheduler's own work around a ping that times out.
PING_MARGIN_SECONDS = 5.0

ReplyT = TypeVar("ReplyT")
AgentAnswerT = TypeVar("AgentAnswerT", UptimeReport, GpuStatus, AgentHealth)


_NO_PERCENTILES: dict[str, float | None] = {"p50": None, "p95": None, "p99": None}
_NO_UPTIME = FleetUptime(
    period_hours=PERIOD_HOURS,
    uptime_percent=None,
    seconds=None,
    verdicts={},
)


class FleetClient:
    """Asks over `client`. Agents may take `agent_timeout_seconds` to answer direct questions."""

    def __init__(self, client: Client, agent_timeout_seconds: float) -> None:
        self._client = client
        self.alerts = AlertsClient(client)
        self.publishing = PublishingClient(client)
        self._agent_timeout = agent_timeout_seconds
        self._longer: tuple[FleetSums, ...] = ()
        self._longer_asked_at = -LONGER_SECONDS  # CLOCK_BOOTTIME, seconds

    @property
    def is_connected(self) -> bool:
        """False while the bus is away. Every question then fails at once with UnavailableError."""
        return self._client.is_connected

    # ---- the scheduler ---------------------------------------------------------------------------

    async def register(self, agent_id: str, request: RegisterRequest) -> RegisterReply:
        """Registers an agent in the operator's name, or updates one that is registered already.

        An agent that was removed is let in again. The caller of this, of `remove` and of
        `ping_now` records it in the audit log.
        """
        request = replace(request, audited=True)
        return await self._ask(SCHEDULER, subjects.enrol(agent_id), request, RegisterReply)

    async def remove(self, agent_id: str) -> None:
        """Removes an agent after a last ping. Raises RefusedError 404 when it is not registered."""
        body = encode(ChangeRequest(audited=True))
        timeout = self._agent_timeout + PING_MARGIN_SECONDS
        subject = subjects.remove(agent_id)
        await ask_raw(self._client, subject, body, who=SCHEDULER, timeout=timeout)

    async def agent(self, agent_id: str, *, removed_too: bool = False) -> Agent:
        """One agent. Raises RefusedError 404 for an unknown one, or a removed one by default."""
        request = GetRequest(removed_too=removed_too)
        return await self._look(SCHEDULER, subjects.get(agent_id), request, Agent)

    async def expected_gpus(self, agent_id: str) -> ExpectedGpus:
        """The GPUs that are expected of a host. Raises RefusedError 404 for an unknown one."""
        return await self._look(SCHEDULER, subjects.expected_gpus(agent_id), None, ExpectedGpus)

    async def expect_gpus(self, agent_id: str, request: ExpectGpusRequest) -> ExpectedGpus:
        """Changes which GPUs are expected of a host.

        Raises RefusedError 404 for a host that is not registered, 400 or 409 for a change that may
        not be.
        """
        return await self._ask(SCHEDULER, subjects.expect_gpus(agent_id), request, ExpectedGpus)

    async def change_labels(self, agent_id: str, request: LabelsRequest) -> Agent:
        """Sets or removes labels of a host, and returns it.

        Raises RefusedError 404 for a host that is not registered, 400 or 409 for labels that may
        not be.
        """
        return await self._ask(SCHEDULER, subjects.labels(agent_id), request, Agent)

    async def bridge(self, agent_id: str, agent_url: str, *, by_http: bool) -> Agent:
        """Notes whether an agent is asked by HTTP at this address. Returns it as it is then.

        Raises RefusedError 404 for an unknown agent, 409 for one that answers on the bus itself.
        """
        request = BridgeRequest(agent_url=agent_url, by_http=by_http)
        return await self._ask(SCHEDULER, subjects.bridge(agent_id), request, Agent)

    async def find_agent(self, agent_id: str, *, removed_too: bool = False) -> Agent | None:
        """One agent. Returns None when it is unknown, or removed without `removed_too`."""
        try:
            return await self.agent(agent_id, removed_too=removed_too)
        except RefusedError as error:
            if error.code != 404:
                raise
            return None

    async def agents(self, request: ListRequest) -> AgentPage:
        """A page of agents, without `uptime_24h_percent`: see `with_uptimes`."""
        return await self._look(SCHEDULER, subjects.LIST, request, AgentPage)

    async def agents_with(self, label: str) -> list[Agent]:
        """Every registered agent that has a label, by id."""
        request = ListRequest(label=label)
        found: list[Agent] = []
        while True:
            page = await self.agents(request)
            found += page.agents
            if page.next_cursor is None:
                return found
            request = replace(request, cursor=page.next_cursor)

    async def ids_with(self, label: str) -> tuple[str, ...]:
        """The ids of those agents. Raises RefusedError 404 where there is none."""
        agents = await self.agents_with(label)
        if not agents:
            raise RefusedError(404, f"no registered agent has the label {label!r}")
        return tuple(agent.agent_id for agent in agents)

    async def fleet(self, timeout: float = ANSWER_SECONDS) -> Fleet:
        """The fleet in numbers, from the scheduler's memory."""
        return await self._look(SCHEDULER, subjects.FLEET, None, Fleet, timeout)

    async def fleet_map(self, label: str | None) -> FleetMap:
        """The state of every GPU, page by page from one scheduler, grouped by a label or not."""
        generated_at = clock.utc_now()
        pages = []
        request = FleetMapRequest(label=label)
        while True:
            page = await self._look(SCHEDULER, subjects.FLEET_MAP, request, FleetMapPage)
            pages.append(page.columns)
            if page.next_cursor is None:
                break
            request = replace(request, cursor=page.next_cursor)
        columns = joined(pages)
        return FleetMap(
            generated_at=generated_at,
            total=len(columns.agent_ids),
            gpus=len(columns.gpu_states),
            label=label,
            columns=columns,
        )

    async def new_host_token(self, request: NewTokenRequest) -> NewTokenReply:
        """An enrolment token for a host that is new. RefusedError 409 for an agent that exists."""
        return await self._ask(ENROLMENT, subjects.NEW_HOST_ENROLMENT, request, NewTokenReply)

    async def book_maintenance(self, request: BookRequest) -> Bookings:
        """Books maintenance. Refused where it does not lie ahead, or exceeds a host's budget."""
        return await self._ask(SCHEDULER, subjects.BOOK_MAINTENANCE, request, Bookings)

    async def cancel_maintenance(self, request: CancelRequest) -> Bookings:
        """Ends a booking now and returns it as it was. RefusedError 404 where there is none."""
        return await self._ask(SCHEDULER, subjects.CANCEL_MAINTENANCE, request, Bookings)

    async def maintenance(self, request: BookingsRequest) -> Bookings:
        """The bookings of one agent, or of all."""
        return await self._look(SCHEDULER, subjects.LIST_MAINTENANCE, request, Bookings)

    async def scheduler_stats(self, timeout: float = ANSWER_SECONDS) -> SchedulerStats:
        """What one of the schedulers has done since it started."""
        return await self._ask(SCHEDULER, subjects.STATS, None, SchedulerStats, timeout)

    async def every_scheduler(self, timeout: float = ANSWER_SECONDS) -> list[SchedulerStats]:
        """What each scheduler has done since it started; empty where none answers in time."""

        def are_all(found: list[SchedulerStats]) -> bool:
            return len(found) >= max(stats.schedulers for stats in found)

        found = await ask_all(
            self._client,
            subjects.STATS,
            SchedulerStats,
            seconds=timeout,
            are_all=are_all,
        )
        return sorted(found, key=lambda stats: stats.instance)

    async def ping_now(self, agent_id: str) -> Ping:
        """Has the scheduler ping the agent at once. The outcome counts as any other."""
        timeout = self._agent_timeout + PING_MARGIN_SECONDS
        request = ChangeRequest(audited=True)
        return await self._ask(SCHEDULER, subjects.ping_now(agent_id), request, Ping, timeout)

    # ---- storage ---------------------------------------------------------------------------------

    async def history(self, agent_id: str, request: HistoryRequest) -> HistoryReply:
        """One page of an agent's outcomes, newest first.

        Raises RefusedError 404 for an agent that has no outcome in history and was never
        registered. Storage knows only agents with an outcome, so the registry is asked about the
        others.
        """
        subject = subjects.history(agent_id)
        stored = await self._look(STORAGE, subject, request, StoredHistory, HISTORY_SECONDS)
        if not stored.agent_known:
            await self._check_registered(agent_id)
        return stored.page()

    async def series(self, agent_id: str, request: SeriesRequest) -> SeriesReply:
        """An agent's uptime over a period in buckets. Raises RefusedError 404 as `history` does."""
        subject = subjects.series(agent_id)
        reply = await self._look(STORAGE, subject, request, SeriesReply, HISTORY_SECONDS)
        if not reply.agent_known:
            await self._check_registered(agent_id)
        return reply

    async def export(self, agent_id: str, request: ExportRequest) -> FileOffer:
        """An agent's history as a file. Raises RefusedError 404 as `history` does."""
        subject = subjects.export(agent_id)
        try:
            return await self._ask_file(subject, request)
        except RefusedError as error:
            if error.code != 404:
                raise
        await self._check_registered(agent_id)
        return await self._ask_file(subject, replace(request, registered=True))

    async def table(self, request: TableRequest) -> FileOffer:
        """Any other answer about the past as a file. Raises RefusedError 404 as `history` does.

        So it does for a label that no registered agent has.
        """
        if request.label is not None:
            agent_ids = await self.ids_with(request.label)
            request = replace(request, label=None, agent_ids=agent_ids)
        try:
            return await self._ask_file(subjects.TABLE, request)
        except RefusedError as error:
            if error.code != 404 or request.agent_id is None:
                raise
        await self._check_registered(request.agent_id)
        return await self._ask_file(subjects.TABLE, replace(request, registered=True))

    async def statement(self, agent_id: str, request: StatementRequest) -> Statement:
        """An agent's month. The enrolments, which storage does not know, are filled in here."""
        enrolled = await self._with_enrolments(agent_id, request)
        return await self._ask_whole(subjects.statement(agent_id), enrolled, Statement)

    async def statement_file(self, agent_id: str, request: StatementRequest) -> FileOffer:
        """An agent's month in a format other than JSON, with enrolments as in `statement`."""
        enrolled = await self._with_enrolments(agent_id, request)
        return await self._ask_file(subjects.statement(agent_id), enrolled)

    async def explanation(self, agent_id: str, month: str) -> Explanation:
        """Why an agent's month is what it is. Raises RefusedError as `statement` does."""
        asked = await self._with_enrolments(agent_id, StatementRequest(month=month))
        request = ExplanationRequest(month=month, enrolments=asked.enrolments)
        return await self._ask_whole(subjects.explanation(agent_id), request, Explanation)

    async def timeline(self, agent_id: str, request: TimelineRequest) -> Timeline:
        """When each GPU was in which state. Raises RefusedError 404 as `history` does."""
        reply = await self._ask_whole(subjects.timeline(agent_id), request, Timeline)
        if not reply.agent_known:
            await self._check_registered(agent_id)
        return reply

    async def replay(self, request: FleetReplayRequest) -> FleetReplay:
        """The fleet's month under other rules: the agents whose pay changes most."""
        return await self._ask_whole(subjects.REPLAY, request, FleetReplay)

    async def replay_file(self, request: FleetReplayRequest) -> FileOffer:
        """The fleet's month under other rules, with every agent, in a format other than JSON."""
        return await self._ask_file(subjects.REPLAY, request)

    def file(self, offer: FileOffer) -> AsyncGenerator[bytes]:
        """The pieces of an offered file in order. Raises UnavailableError when it ends early.

        Closing the generator before the end has the file deleted.
        """
        return receive(self._client, offer)

    async def uptimes(
        self, request: UptimesRequest, timeout: float = ANSWER_SECONDS
    ) -> UptimesReply:
        """Time-weighted uptime of several agents."""
        return await self._look(STORAGE, subjects.UPTIMES, request, UptimesReply, timeout)

    async def fleet_uptimes(self, request: FleetUptimesRequest) -> FleetUptimes:
        """Time-weighted uptime of every agent, packed."""
        question = ask_whole(
            self._client, subjects.FLEET_UPTIMES, request, FleetUptimes, who=STORAGE
        )
        return await _readable(STORAGE, question)

    async def with_uptimes(
        self, agents: tuple[Agent, ...], timeout: float = ANSWER_SECONDS
    ) -> tuple[Agent, ...]:
        """The agents with `uptime_24h_percent` filled in; as they are while storage is away."""
        if not agents:
            return agents
        request = UptimesRequest(agent_ids=tuple(agent.agent_id for agent in agents))
        reply = await optional(self.uptimes(request, timeout))
        if reply is None:
            return agents
        return tuple(with_uptime(agent, reply) for agent in agents)

    async def beats(self, request: BeatsRequest, timeout: float = ANSWER_SECONDS) -> BeatsReply:
        """The newest outcomes of several agents."""
        question = ask_whole(
            self._client, subjects.BEATS, request, BeatsReply, who=STORAGE, timeout=timeout
        )
        return await _readable(STORAGE, question)

    async def overview(
        self, request: OverviewRequest, timeout: float = ANSWER_SECONDS
    ) -> OverviewReply:
        """The fleet's last hours."""
        return await self._look(STORAGE, subjects.OVERVIEW, request, OverviewReply, timeout)

    async def storage_stats(self, timeout: float = ANSWER_SECONDS) -> StorageStats:
        """How far ingest has come."""
        return await self._look(STORAGE, subjects.STORAGE_STATS, None, StorageStats, timeout)

    async def audit(self, limit: int, before: int | None = None) -> AuditPage:
        """A page of the audit log, the newest entries first."""
        return await read_page(self._client, limit, before)

    # ---- scheduler and storage together ----------------------------------------------------------

    @property
    def refused_reply_count(self) -> int:
        """How many messages were dropped because their reply subject is no inbox."""
        return self._client.refused_reply_count

    async def troubles(
        self,
        timeout: float = OPTIONAL_SECONDS,
        *,
        for_operators: bool = False,
    ) -> dict[str, str | None]:
        """Why each part cannot do its work, by its name; None for a part that can.

        A service that answers may be unable to work: storage whose file another process holds or
        whose disk is full, a scheduler whose bucket is gone. Only what is `for_operators` names
        files.
        """
        if not self.is_connected:
            detail = "the bus is not connected"
            return {"bus": detail, "scheduler": detail, "storage": detail}
        scheduler_trouble = _scheduler_trouble
        storage_trouble = _storage_trouble
        if for_operators:
            scheduler_trouble = _scheduler_detail
            storage_trouble = _storage_detail
        scheduler, storage = await asyncio.gather(
            _trouble_of(self.fleet(timeout), scheduler_trouble),
            _trouble_of(self.storage_stats(timeout), storage_trouble),
        )
        return {"bus": None, "scheduler": scheduler, "storage": storage}

    async def remarks(self, timeout: float = OPTIONAL_SECONDS) -> tuple[str, ...]:
        """What an operator should put right, although all parts can work. Empty without answer.

        One scheduler says what holds for all. What each finds of its own settings, all are asked.
        """
        seconds = min(timeout, EVERYBODY_SECONDS)
        fleet, schedulers = await asyncio.gather(
            optional(self.fleet(timeout)), optional(self.every_scheduler(seconds))
        )
        found: list[str] = []
        if fleet is not None:
            found += fleet.remarks
        for stats in schedulers or ():
            found += stats.layout_problems
        return tuple(dict.fromkeys(found))

    async def dashboard(self, storage_timeout: float = ANSWER_SECONDS) -> Dashboard:
        """The fleet at one moment. What storage does not answer in time is null or empty."""
        asked_at = clock.boottime()
        asks_longer = asked_at - self._longer_asked_at >= LONGER_SECONDS
        question = OverviewRequest(
            hours=PERIOD_HOURS,
            recent=RECENT_PINGS,
            changes=CHANGES,
            troubles=TROUBLES,
            longer_hours=LONGER_HOURS if asks_longer else (),
        )
        fleet, agents, overview, storage_trouble, alerts = await asyncio.gather(
            self.fleet(),
            self._worst_agents(storage_timeout),
            optional(self.overview(question, storage_timeout)),
            _trouble_of(self.storage_stats(storage_timeout), _storage_trouble),
            optional(self.alerts.stats(OPTIONAL_SECONDS)),
        )
        reasons: dict[str, str] = {}
        scheduler_trouble = _scheduler_trouble(fleet)
        if scheduler_trouble is not None:
            reasons["scheduler"] = scheduler_trouble
        if storage_trouble is not None:
            reasons["storage"] = storage_trouble
        elif overview is None:
            reasons["storage"] = "storage did not answer in time"
        totals = Totals(
            agents=fleet.agents,
            pings=fleet.pings,
            missed=fleet.missed,
            in_flight=fleet.in_flight,
        )
        without_storage = Dashboard(
            generated_at=clock.utc_now(),
            totals=totals,
            by_status=dict.fromkeys(get_args(Status), 0) | fleet.by_status,
            uptime=_NO_UPTIME,
            response_ms=_NO_PERCENTILES,
            late_ms=_NO_PERCENTILES,
            due=fleet.due,
            next_ping_at=fleet.next_ping_at,
            agents=agents,
            recent=(),
            gpus=fleet.gpus,
            base_interval_minutes=fleet.base_interval_minutes,
            degraded=tuple(reasons),
            reasons=reasons,
            alerts=_summary_of(alerts),
        )
        if overview is None:
            return without_storage
        uptime = FleetUptime(
            period_hours=PERIOD_HOURS,
            uptime_percent=overview.uptime_percent,
            seconds=overview.seconds,
            verdicts=overview.verdicts,
            unreported_seconds=overview.unreported_seconds,
        )
        if asks_longer:
            self._longer = overview.longer
            self._longer_asked_at = asked_at
        return replace(
            without_storage,
            uptime=uptime,
            response_ms=overview.response_ms,
            late_ms=overview.late_ms,
            recent=overview.recent,
            changes=overview.changes,
            troubles=overview.troubles,
            sites=await self._sites_of(overview),
            longer=self._longer,
        )

    async def _sites_of(self, overview: OverviewReply) -> dict[str, str]:
        """The sites of the agents that an overview tells of, where they have the label."""
        agent_ids = {change.ping.agent_id for change in overview.changes}
        agent_ids |= {trouble.agent_id for trouble in overview.troubles}
        if not agent_ids:
            return {}
        question = ListRequest(agent_ids=tuple(sorted(agent_ids)), limit=len(agent_ids))
        page = await optional(self.agents(question))
        if page is None:
            return {}
        sites = {}
        for agent in page.agents:
            site = agent.metadata.get(PLACE_LABEL)
            if isinstance(site, str) and site and agent.agent_id in agent_ids:
                sites[agent.agent_id] = site
        return sites

    async def _worst_agents(self, storage_timeout: float) -> tuple[Agent, ...]:
        page = await self.agents(ListRequest(order="worst", limit=WORST_AGENTS))
        return await self.with_uptimes(page.agents, storage_timeout)

    # ---- the agents themselves -------------------------------------------------------------------

    async def look(self, agent_id: str) -> UptimeReport:
        """The agent's own report of the time since its last ping. Asking changes no state."""
        data = await self._ask_agent(agent_id, subjects.look(agent_id))
        return _decode_of_agent(agent_id, data, UptimeReport)

    async def gpu_status(self, agent_id: str) -> GpuStatus:
        """The details of the agent's GPUs. Fields that only a newer agent knows are kept."""
        data = await self._ask_agent(agent_id, subjects.gpu_status(agent_id))
        status = _decode_of_agent(agent_id, data, GpuStatus)
        try:
            check_gpus(status)
        except BadMessageError as error:
            raise _unreadable(agent_id, error) from None
        return status

    async def health(self, agent_id: str) -> AgentHealth:
        """The state of the agent's daemon."""
        data = await self._ask_agent(agent_id, subjects.health(agent_id))
        return _decode_of_agent(agent_id, data, AgentHealth)

    # ---- how they are asked ----------------------------------------------------------------------

    async def _check_registered(self, agent_id: str) -> None:
        """Raises RefusedError 404 for an agent that is not registered and never was."""
        agent = await self.find_agent(agent_id, removed_too=True)
        if agent is None:
            raise RefusedError(404, f"agent {agent_id} is not known")

    async def _with_enrolments(self, agent_id: str, request: StatementRequest) -> StatementRequest:
        """Adds the agent's enrolments, GPUs and maintenance, which the registry knows.

        An agent unknown to the registry may still have history.
        """
        agent = await self.find_agent(agent_id, removed_too=True)
        if agent is None:
            return request
        expected = await self.expected_gpus(agent_id)
        request = replace(request, enrolments=agent.enrolments, gpu_changes=expected.changes)
        if agent.enrolments and agent.enrolments[-1].until is not None:
            return request  # the bookings of a removed agent are not listed
        asked = BookingsRequest(agent_id=agent_id, past_too=True)
        bookings = (await self.maintenance(asked)).bookings
        booked = [
            BookedMaintenance(since=one.since, until=one.until, reason=one.reason)
            for one in bookings
        ]
        return replace(request, maintenance=tuple(booked))

    async def _ask(
        self,
        who: str,
        subject: str,
        request: Struct | None,
        reply: type[ReplyT],
        timeout: float = ANSWER_SECONDS,
    ) -> ReplyT:
        question = ask(self._client, subject, request, reply, who=who, timeout=timeout)
        return await _readable(who, question)

    async def _look(
        self,
        who: str,
        subject: str,
        request: Struct | None,
        reply: type[ReplyT],
        timeout: float = ANSWER_SECONDS,
    ) -> ReplyT:
        """Asks what changes nothing: a second instance is asked when the first does not answer."""
        question = ask(
            self._client,
            subject,
            request,
            reply,
            who=who,
            timeout=timeout,
            requesting=hedging.request,
        )
        return await _readable(who, question)

    async def _ask_whole(
        self,
        subject: str,
        request: Struct,
        reply: type[ReplyT],
    ) -> ReplyT:
        """Asks storage for an answer that may be larger than a message."""
        question = ask_whole(
            self._client,
            subject,
            request,
            reply,
            who=STORAGE,
            timeout=FILE_SECONDS,
            requesting=hedging.request_long,
        )
        return await _readable(STORAGE, question)

    async def _ask_file(self, subject: str, request: Struct) -> FileOffer:
        question = ask(
            self._client,
            subject,
            request,
            FileOffer,
            who=STORAGE,
            timeout=FILE_SECONDS,
            requesting=hedging.request_long,
        )
        return await _readable(STORAGE, question)

    async def _ask_agent(self, agent_id: str, subject: str) -> bytes:
        who = f"agent {agent_id}"
        try:
            return await ask_raw(self._client, subject, b"", who=who, timeout=self._agent_timeout)
        except UnavailableError as error:
            if not self._client.is_connected:
                raise
            raise AgentError(str(error)) from None


async def _trouble_of(
    question: Awaitable[ReplyT], trouble: Callable[[ReplyT], str | None]
) -> str | None:
    """What a service says of itself, or why it does not answer."""
    try:
        return trouble(await question)
    except BusError as error:
        return str(error)


def _scheduler_trouble(fleet: Fleet) -> str | None:
    """Why the scheduler cannot work. The bus, whose words it quotes, may name files of its own."""
    if fleet.trouble is None:
        return None
    return without_paths(fleet.trouble)


def _scheduler_detail(fleet: Fleet) -> str | None:
    return fleet.trouble


def _storage_trouble(stats: StorageStats) -> str | None:
    """Why storage cannot work, without the names of files."""
    if stats.ingest_waiting is None:
        return None
    return stats.waiting_reason or "it waits; see its log"  # a storage of an older version


def _storage_detail(stats: StorageStats) -> str | None:
    return stats.ingest_waiting


def _summary_of(alerts: AlertsStats | None) -> AlertsSummary | None:
    if alerts is None:
        return None
    return AlertsSummary(
        by_severity=alerts.by_severity,
        unsent=alerts.retrying + alerts.failed,
    )


async def optional(question: Awaitable[ReplyT]) -> ReplyT | None:
    """The answer to a question that the caller can do without. Returns None when asking failed."""
    try:
        return await question
    except BusError as error:
        log.debug("optional_answer_missing", detail=str(error))
        return None


async def _readable(who: str, question: Awaitable[ReplyT]) -> ReplyT:
    """The answer. BadMessageError, which would blame the caller, becomes BadAnswerError."""
    try:
        return await question
    except BadMessageError as error:
        log.error("bad_answer_received", who=who, detail=str(error))
        raise BadAnswerError(f"the answer of {who} cannot be read") from error


def _decode_of_agent(
    agent_id: str,
    data: bytes,
    kind: type[AgentAnswerT],
) -> AgentAnswerT:
    """An agent's answer. Raises AgentError if it is unreadable or that of another agent."""
    try:
        answer = decode(data, kind)
    except BadMessageError as error:
        raise _unreadable(agent_id, error) from None
    if answer.agent_id != agent_id:
        raise AgentError(f"agent {agent_id} answered with a report of another agent")
    return answer


def _unreadable(agent_id: str, error: BadMessageError) -> AgentError:
    log.warning("bad_agent_answer_received", agent_id=agent_id, detail=str(error))
    return AgentError(f"agent {agent_id} answered with something that cannot be read")
