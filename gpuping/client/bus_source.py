"""The looking verbs' answers from the bus: what a base install suffices for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
from msgspec import Struct
from msgspec.structs import replace

from bus import clock
from bus.contract import subjects
from bus.contract.exports import TableRequest
from bus.contract.messages import UptimeReport
from bus.contract.questions import (
    Agent,
    AgentPage,
    Fleet,
    GetRequest,
    HistoryReply,
    HistoryRequest,
    ListRequest,
    OverviewReply,
    OverviewRequest,
    UptimesReply,
    UptimesRequest,
)
from bus.contract.statements import FleetReplay, FleetReplayRequest, Statement, StatementRequest
from bus.contract.subjects import check_agent_id
from bus.contract.uptimes import with_uptime
from bus.errors import BusError, RefusedError
from bus.settings import Settings
from bus.transport import connection
from bus.transport.file_transfer import FileOffer, receive
from bus.transport.large_answers import ask_whole
from bus.transport.micro_services import ask
from gpuping.client.dashboard import WORST, Dashboard, FleetUptime, Totals
from gpuping.client.discovery import is_stopped, located
from gpuping.client.download import Download
from gpuping.client.paging import newest

SCHEDULER, STORAGE = "the scheduler", "storage"
FIND_SECONDS = 3.0
QUERY_SECONDS = 15.0
FILE_SECONDS = 250.0  # storage writes a whole file first


class NothingRunsError(BusError):
    """No bus where we looked."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[connection.Client]:
    """The bus of the running system. Raises NothingRunsError that says what to do when there is none."""
    found = located(settings)
    if not found.NATS_URL and not found.NATS_CONTEXT and is_stopped(settings.data_dir):
        raise NothingRunsError(
            f"the system of {settings.data_dir} does not run: start it with `gpuping up`, or set NATS_URL"
        )
    try:
        async with asyncio.timeout(FIND_SECONDS):
            client = await connection.connect(found, "gpuping")
    except (TimeoutError, OSError, nats.errors.Error):
        where = (
            f"context {found.NATS_CONTEXT}"
            if found.NATS_CONTEXT and not found.NATS_URL
            else found.nats_url
        )
        raise NothingRunsError(
            f"no running system found (no bus at {where}): start one with `gpuping up`, "
            "or say where it is with --data-dir, NATS_URL or --server-url"
        ) from None
    try:
        yield client
    finally:
        await client.farewell()


class BusSource:
    """Asks the micro services."""

    def __init__(self, client: connection.Client) -> None:
        self._client = client

    async def dashboard(self) -> Dashboard:
        """The fleet; what storage does not answer is left out."""
        fleet = await ask(self._client, subjects.FLEET, None, Fleet, who=SCHEDULER)
        page = await self._page(ListRequest(order="worst", limit=WORST))
        overview = await self._overview()
        return Dashboard(
            generated_at=clock.utc_now(),
            totals=Totals(agents=fleet.agents, pings=fleet.pings, missed=fleet.missed),
            by_status=fleet.by_status,
            due=fleet.due,
            next_ping_at=fleet.next_ping_at,
            uptime=FleetUptime(uptime_percent=overview.uptime_percent if overview else None),
            response_ms=overview.response_ms if overview else {},
            agents=page.agents,
            recent=overview.recent if overview else (),
        )

    async def agents(self, status: str | None, capability: str | None) -> AgentPage:
        """Every agent that fits, on however many pages."""
        request = ListRequest(status=status, capability=capability)  # type: ignore[arg-type]  # checked by the scheduler
        page = await self._page(request)
        agents = list(page.agents)
        while page.next_cursor:
            page = await self._page(
                ListRequest(status=request.status, capability=capability, cursor=page.next_cursor)
            )
            agents += page.agents
        return AgentPage(agents=tuple(agents), total=page.total)

    async def history(self, agent_id: str, hours: float, limit: int) -> HistoryReply:
        """The newest `limit` outcomes, and the summary of all."""
        subject = subjects.history(check_agent_id(agent_id))

        async def page(request: HistoryRequest) -> HistoryReply:
            return await ask(
                self._client, subject, request, HistoryReply, who=STORAGE, timeout=QUERY_SECONDS
            )

        reply = await newest(HistoryRequest(hours=hours, limit=limit), page)
        if (
            not reply.pings
        ):  # storage knows pings only; whether there is such an agent, the registry knows
            await ask(
                self._client,
                subjects.get(agent_id),
                GetRequest(removed_too=True),
                Agent,
                who=SCHEDULER,
            )
        return reply

    async def look(self, agent_id: str) -> UptimeReport:
        """The agent's own report since its last ping; changes nothing anywhere."""
        subject = subjects.ping(check_agent_id(agent_id))
        return await ask(self._client, subject, None, UptimeReport, who=f"agent {agent_id}")

    async def report(self, agent_id: str, request: StatementRequest) -> Statement:
        """The uptime statement of one month, over the time in which the agent was enrolled."""
        subject, request = (
            subjects.report(check_agent_id(agent_id)),
            await self._enrolled(agent_id, request),
        )
        return await ask_whole(
            self._client, subject, request, Statement, who=STORAGE, timeout=QUERY_SECONDS
        )

    async def report_file(self, agent_id: str, request: StatementRequest) -> Download:
        """The same in any other format."""
        subject, request = (
            subjects.report(check_agent_id(agent_id)),
            await self._enrolled(agent_id, request),
        )
        return await self._file(subject, request)

    async def replay(self, request: FleetReplayRequest) -> FleetReplay:
        """The fleet's month under other rules."""
        return await ask_whole(
            self._client, subjects.REPLAY, request, FleetReplay, who=STORAGE, timeout=FILE_SECONDS
        )

    async def replay_file(self, request: FleetReplayRequest) -> Download:
        """The same with every agent."""
        return await self._file(subjects.REPLAY, request)

    async def table(self, request: TableRequest) -> Download:
        """Any other answer about the past as a file."""
        try:
            return await self._file(subjects.TABLE, request)
        except RefusedError as error:
            if error.code != 404 or request.agent_id is None:
                raise
        known = GetRequest(
            removed_too=True
        )  # storage knows pings only; whether there is such an agent, the registry
        await ask(self._client, subjects.get(request.agent_id), known, Agent, who=SCHEDULER)
        return await self._file(subjects.TABLE, replace(request, registered=True))

    async def _file(self, subject: str, request: Struct) -> Download:
        offer = await ask(
            self._client, subject, request, FileOffer, who=STORAGE, timeout=FILE_SECONDS
        )
        return Download(offer.name, offer.total_bytes, receive(self._client, offer))

    async def _enrolled(self, agent_id: str, request: StatementRequest) -> StatementRequest:
        """The question with the agent's enrolments, which storage does not know."""
        try:
            known = GetRequest(removed_too=True)
            agent = await ask(self._client, subjects.get(agent_id), known, Agent, who=SCHEDULER)
        except RefusedError as error:
            if error.code != 404:
                raise
            return request  # the registry was lost: its history is still there
        return replace(request, enrolments=agent.enrolments)

    async def _page(self, request: ListRequest) -> AgentPage:
        """One page, with the uptime of its agents filled in from history where storage answers."""
        page = await ask(self._client, subjects.LIST, request, AgentPage, who=SCHEDULER)
        wanted = UptimesRequest(agent_ids=tuple(agent.agent_id for agent in page.agents))
        try:
            known = await ask(self._client, subjects.UPTIMES, wanted, UptimesReply, who=STORAGE)
        except BusError:
            return page
        return replace(page, agents=tuple(with_uptime(agent, known) for agent in page.agents))

    async def _overview(self) -> OverviewReply | None:
        try:
            return await ask(
                self._client,
                subjects.OVERVIEW,
                OverviewRequest(recent=10),
                OverviewReply,
                who=STORAGE,
            )
        except BusError:
            return None
