"""Answers of a running system over the bus, for which a base install is enough."""

from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract.alerts import (
    Alerts,
    AlertsRequest,
    EndSilenceRequest,
    Silence,
    SilenceRequest,
    TestRequest,
    TestResults,
)
from bus.contract.audit import AuditPage
from bus.contract.dashboard import Dashboard
from bus.contract.exports import TableRequest
from bus.contract.labels import LabelsRequest
from bus.contract.maintenance import Bookings, BookingsRequest, BookRequest, CancelRequest
from bus.contract.messages import UptimeReport
from bus.contract.publishing import (
    AddStatusPage,
    Link,
    MakeLink,
    RemoveStatusPage,
    RevokedLinks,
    RevokeLinks,
    StatusPage,
    StatusPages,
)
from bus.contract.questions import (
    Agent,
    AgentPage,
    ExpectedGpus,
    ExpectGpusRequest,
    HistoryReply,
    HistoryRequest,
    ListRequest,
)
from bus.contract.statements import FleetReplay, FleetReplayRequest, Statement, StatementRequest
from bus.contract.subjects import check_agent_id
from bus.transport.file_transfer import FileOffer
from gpuping.client.download import Download
from gpuping.client.history_pages import newest_outcomes


class BusSource:
    """Asks the micro services, through `fleet_client`."""

    def __init__(self, fleet_client: FleetClient) -> None:
        self._fleet_client = fleet_client

    async def audit(self, limit: int, before: int | None) -> AuditPage:
        """The newest entries of the audit log, or those before a sequence number."""
        return await self._fleet_client.audit(limit, before)

    async def dashboard(self) -> Dashboard:
        """The fleet now. What comes from storage is missing while storage is away."""
        return await self._fleet_client.dashboard()

    async def agents(self, status: str | None, capability: str | None) -> AgentPage:
        """Every agent that fits the filters, however many pages they fill."""
        # The scheduler checks the status.
        request = ListRequest(status=status, capability=capability)  # type: ignore[arg-type]
        page = await self._page(request)
        agents = list(page.agents)
        while page.next_cursor:
            page = await self._page(replace(request, cursor=page.next_cursor))
            agents += page.agents
        return AgentPage(agents=tuple(agents), total=page.total)

    async def agents_page(self, request: ListRequest) -> AgentPage:
        """One page of agents, in the order and by the search of the request."""
        return await self._page(request)

    async def agent(self, agent_id: str) -> Agent:
        """One agent, with its uptime where storage answers."""
        agent = await self._fleet_client.agent(check_agent_id(agent_id))
        (with_uptime,) = await self._fleet_client.with_uptimes((agent,))
        return with_uptime

    async def expected_gpus(self, agent_id: str) -> ExpectedGpus:
        """The GPUs that are expected of a host."""
        return await self._fleet_client.expected_gpus(check_agent_id(agent_id))

    async def expect_gpus(self, agent_id: str, request: ExpectGpusRequest) -> ExpectedGpus:
        """Changes the GPUs that are expected of a host."""
        return await self._fleet_client.expect_gpus(check_agent_id(agent_id), request)

    async def change_labels(self, agent_id: str, request: LabelsRequest) -> Agent:
        """Sets or removes labels of a host, and returns it."""
        return await self._fleet_client.change_labels(check_agent_id(agent_id), request)

    async def history(
        self,
        agent_id: str,
        hours: float,
        limit: int,
        *,
        evidence: bool = False,
    ) -> HistoryReply:
        """The newest `limit` outcomes, and the summary of all.

        With `evidence`, the outcomes have the reports that were signed or refused.
        """
        check_agent_id(agent_id)

        async def ask_for_page(request: HistoryRequest) -> HistoryReply:
            return await self._fleet_client.history(agent_id, request)

        request = HistoryRequest(
            hours=hours,
            limit=limit,
            evidence=evidence,
        )
        return await newest_outcomes(request, ask_for_page)

    async def look(self, agent_id: str) -> UptimeReport:
        """The agent's own report since its last ping. Changes nothing."""
        return await self._fleet_client.look(check_agent_id(agent_id))

    async def report(self, agent_id: str, request: StatementRequest) -> Statement:
        """The uptime statement of one month, over the time in which the agent was enrolled."""
        return await self._fleet_client.statement(check_agent_id(agent_id), request)

    async def report_file(self, agent_id: str, request: StatementRequest) -> Download:
        """The uptime statement of one month in a format other than JSON."""
        offer = await self._fleet_client.statement_file(check_agent_id(agent_id), request)
        return self._download(offer)

    async def replay(self, request: FleetReplayRequest) -> FleetReplay:
        """The fleet's month under other rules."""
        return await self._fleet_client.replay(request)

    async def replay_file(self, request: FleetReplayRequest) -> Download:
        """The fleet's month under other rules, with every agent."""
        offer = await self._fleet_client.replay_file(request)
        return self._download(offer)

    async def table(self, request: TableRequest) -> Download:
        """Any other answer about the past as a file."""
        offer = await self._fleet_client.table(request)
        return self._download(offer)

    async def book_maintenance(self, request: BookRequest) -> Bookings:
        """Books maintenance."""
        return await self._fleet_client.book_maintenance(request)

    async def cancel_maintenance(self, request: CancelRequest) -> Bookings:
        """Ends a booking now and returns it as it was."""
        return await self._fleet_client.cancel_maintenance(request)

    async def maintenance(self, request: BookingsRequest) -> Bookings:
        """The bookings of one agent, or of all."""
        return await self._fleet_client.maintenance(request)

    async def alerts(self, request: AlertsRequest) -> Alerts:
        """What is wrong, and how the telling goes."""
        return await self._fleet_client.alerts.alerts(request)

    async def test_alerts(self, request: TestRequest) -> TestResults:
        """Has a test message sent at once."""
        return await self._fleet_client.alerts.test(request)

    async def silence_alerts(self, request: SilenceRequest) -> Silence:
        """Makes a silence."""
        return await self._fleet_client.alerts.silence(request)

    async def end_silence(self, request: EndSilenceRequest) -> Silence:
        """Ends a silence and returns it as it was."""
        return await self._fleet_client.alerts.end_silence(request)

    async def status_pages(self) -> StatusPages:
        """The definitions of all status pages."""
        return await self._fleet_client.publishing.pages()

    async def add_status_page(self, request: AddStatusPage) -> StatusPage:
        """Adds a status page."""
        return await self._fleet_client.publishing.add_page(request)

    async def remove_status_page(self, request: RemoveStatusPage) -> StatusPage:
        """Takes a status page away."""
        return await self._fleet_client.publishing.remove_page(request)

    async def make_link(self, request: MakeLink) -> Link:
        """Makes a link that needs no login."""
        return await self._fleet_client.publishing.make_link(request)

    async def revoke_links(self, request: RevokeLinks) -> RevokedLinks:
        """Refuses the links that were made so far."""
        return await self._fleet_client.publishing.revoke_links(request)

    async def _page(self, request: ListRequest) -> AgentPage:
        """One page, with the uptime of its agents where storage answers."""
        page = await self._fleet_client.agents(request)
        agents = await self._fleet_client.with_uptimes(page.agents)
        return replace(page, agents=agents)

    def _download(self, offer: FileOffer) -> Download:
        pieces = self._fleet_client.file(offer)
        return Download(offer.name, offer.total_bytes, pieces)
