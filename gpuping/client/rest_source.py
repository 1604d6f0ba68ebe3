"""Answers of a running system from a gateway's REST interface, for `--server-url`.

It uses urllib, because a base install has no other HTTP client, and calls it in threads, because
urllib blocks.
"""

import asyncio
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from bus.addresses import is_loopback
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
from bus.contract.messages import UptimeReport, decode, encode
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
from bus.errors import BusError, GpupingError, RefusedError, SettingsError
from gpuping.client.download import Download
from gpuping.client.history_pages import newest_outcomes

MAINTENANCE_PATH = "/ping-system/maintenance"
ALERTS_PATH = "/ping-system/alerts"
STATUS_PAGES_PATH = "/ping-system/status-pages"
LINKS_PATH = "/ping-system/links"
AGENTS_PATH = "/ping-system/agents"
REPLAY_PATH = "/ping-system/replay"
ANSWER_SECONDS = 15.0
TEST_SECONDS = 40.0  # a target of alerts may take its time
# Longer than the gateway itself waits for storage to compute a statement or a file.
FILE_SECONDS = 260.0
PIECE_BYTES = 256 * 1024

ReplyT = TypeVar("ReplyT")
# Parameters whose value is None are left out.
Query = dict[str, str | None]


class RestSource:
    """Asks the gateway at `server_url`, with a bearer token where one is given."""

    def __init__(self, server_url: str, token: str | None) -> None:
        parts = urllib.parse.urlsplit(server_url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise SettingsError(
                f"--server-url={server_url!r}: expected an address like http://localhost:8000"
            )
        self._base = server_url.rstrip("/")
        self._opener = _opener_for(parts.hostname or "")
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def dashboard(self) -> Dashboard:
        """The fleet, as the gateway's page shows it."""
        return await self._get("/ping-system/dashboard", Dashboard, {})

    async def agents(self, status: str | None, capability: str | None) -> AgentPage:
        """Every agent that fits the filters, however many pages they fill."""
        query: Query = {"status": status, "capability": capability, "limit": "1000"}
        page = await self._get(AGENTS_PATH, AgentPage, query)
        agents = list(page.agents)
        while page.next_cursor:
            query["cursor"] = page.next_cursor
            page = await self._get(AGENTS_PATH, AgentPage, query)
            agents += page.agents
        return AgentPage(agents=tuple(agents), total=page.total)

    async def agents_page(self, request: ListRequest) -> AgentPage:
        """One page of agents, in the order and by the search of the request."""
        query: Query = {
            "status": request.status,
            "capability": request.capability,
            "search": request.search,
            "order": request.order,
            "reverse": str(request.reverse).lower(),
            "limit": str(request.limit),
            "cursor": request.cursor,
            "offset": str(request.offset),
        }
        return await self._get(AGENTS_PATH, AgentPage, query)

    async def agent(self, agent_id: str) -> Agent:
        """One agent."""
        return await self._get(f"{AGENTS_PATH}/{check_agent_id(agent_id)}", Agent, {})

    async def expected_gpus(self, agent_id: str) -> ExpectedGpus:
        """The GPUs that are expected of a host."""
        return await self._get(_agent_path(agent_id, "expected-gpus"), ExpectedGpus, {})

    async def expect_gpus(self, agent_id: str, request: ExpectGpusRequest) -> ExpectedGpus:
        """Changes the GPUs that are expected of a host, in the name of the token."""
        path = _agent_path(agent_id, "expected-gpus")
        return await self._send("PUT", path, request, ExpectedGpus)

    async def change_labels(self, agent_id: str, request: LabelsRequest) -> Agent:
        """Sets or removes labels of a host in the name of the token, and returns it."""
        return await self._send("PATCH", _agent_path(agent_id, "labels"), request, Agent)

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
        path = _agent_path(agent_id, "history")

        async def ask_for_page(request: HistoryRequest) -> HistoryReply:
            query: Query = {
                "hours": str(request.hours),
                "limit": str(request.limit),
                "cursor": request.cursor,
            }
            if request.evidence:
                query["evidence"] = "true"
            return await self._get(path, HistoryReply, query)

        request = HistoryRequest(
            hours=hours,
            limit=limit,
            evidence=evidence,
        )
        return await newest_outcomes(request, ask_for_page)

    async def look(self, agent_id: str) -> UptimeReport:
        """The agent's own report since its last ping. Changes nothing."""
        return await self._get(_agent_path(agent_id, "uptime"), UptimeReport, {})

    async def report(self, agent_id: str, request: StatementRequest) -> Statement:
        """The uptime statement of one month."""
        path = _agent_path(agent_id, "report")
        return await self._get(path, Statement, _month_and_rules(request), FILE_SECONDS)

    async def report_file(self, agent_id: str, request: StatementRequest) -> Download:
        """The uptime statement of one month in a format other than JSON."""
        return await self._download(_agent_path(agent_id, "report"), _month_and_rules(request))

    async def replay(self, request: FleetReplayRequest) -> FleetReplay:
        """The fleet's month under other rules."""
        query = _month_and_rules(request)
        query["limit"] = str(request.limit)
        return await self._get(REPLAY_PATH, FleetReplay, query, FILE_SECONDS)

    async def replay_file(self, request: FleetReplayRequest) -> Download:
        """The fleet's month under other rules, with every agent."""
        return await self._download(REPLAY_PATH, _month_and_rules(request))

    async def table(self, request: TableRequest) -> Download:
        """Any other answer about the past as a file."""
        query: Query = {
            "agent_id": request.agent_id,
            "label": request.label,
            "month": request.month,
            "by": request.by,
            "format": request.format,
        }
        if not request.month:
            query["hours"] = str(request.hours)
        return await self._download(f"/ping-system/export/{request.table}", query)

    async def audit(self, limit: int, before: int | None) -> AuditPage:
        """The newest entries of the audit log, or those before a sequence number."""
        query: Query = {"limit": str(limit)}
        if before is not None:
            query["cursor"] = str(before)
        return await self._get("/ping-system/audit", AuditPage, query)

    async def book_maintenance(self, request: BookRequest) -> Bookings:
        """Books maintenance in the name of the token."""
        return await self._send("POST", MAINTENANCE_PATH, request, Bookings)

    async def cancel_maintenance(self, request: CancelRequest) -> Bookings:
        """Ends a booking now and returns it as it was."""
        path = f"{MAINTENANCE_PATH}/{urllib.parse.quote(request.booking_id)}"
        return await self._send("DELETE", path, None, Bookings)

    async def maintenance(self, request: BookingsRequest) -> Bookings:
        """The bookings of one agent, or of all."""
        query: Query = {"agent_id": request.agent_id, "past": str(request.past_too).lower()}
        return await self._get(MAINTENANCE_PATH, Bookings, query)

    async def alerts(self, request: AlertsRequest) -> Alerts:
        """What is wrong, and how the telling goes."""
        return await self._get(ALERTS_PATH, Alerts, {"limit": str(request.limit)})

    async def test_alerts(self, request: TestRequest) -> TestResults:
        """Has a test message sent at once."""
        path = f"{ALERTS_PATH}/test"
        return await self._send("POST", path, request, TestResults, TEST_SECONDS)

    async def silence_alerts(self, request: SilenceRequest) -> Silence:
        """Makes a silence in the name of the token."""
        return await self._send("POST", f"{ALERTS_PATH}/silences", request, Silence)

    async def end_silence(self, request: EndSilenceRequest) -> Silence:
        """Ends a silence and returns it as it was."""
        path = f"{ALERTS_PATH}/silences/{urllib.parse.quote(request.silence_id)}"
        return await self._send("DELETE", path, None, Silence)

    async def status_pages(self) -> StatusPages:
        """The definitions of all status pages."""
        return await self._get(STATUS_PAGES_PATH, StatusPages, {})

    async def add_status_page(self, request: AddStatusPage) -> StatusPage:
        """Adds a status page in the name of the token."""
        body = msgspec.to_builtins(request.page) | {"replace": request.replace}
        data = msgspec.json.encode(body)
        return await self._send_data("POST", STATUS_PAGES_PATH, data, StatusPage)

    async def remove_status_page(self, request: RemoveStatusPage) -> StatusPage:
        """Takes a status page away."""
        path = f"{STATUS_PAGES_PATH}/{urllib.parse.quote(request.name, safe='')}"
        return await self._send("DELETE", path, None, StatusPage)

    async def make_link(self, request: MakeLink) -> Link:
        """Makes a link in the name of the token."""
        return await self._send("POST", LINKS_PATH, request, Link)

    async def revoke_links(self, request: RevokeLinks) -> RevokedLinks:
        """Refuses the links that were made so far."""
        path = LINKS_PATH
        if request.agent_id is not None:
            path += f"?{urllib.parse.urlencode({'agent_id': request.agent_id})}"
        return await self._send("DELETE", path, None, RevokedLinks)

    async def ready(self) -> None:
        """Returns when the gateway says that it can work. Otherwise raises a GpupingError."""
        await asyncio.to_thread(self._read, f"{self._base}/readyz", ANSWER_SECONDS)

    async def _get(
        self,
        path: str,
        kind: type[ReplyT],
        query: Query,
        timeout: float = ANSWER_SECONDS,
    ) -> ReplyT:
        body = await asyncio.to_thread(self._read, self._url(path, query), timeout)
        return decode(body, kind)

    async def _download(self, path: str, query: Query) -> Download:
        response = await asyncio.to_thread(self._open, self._url(path, query), FILE_SECONDS)
        name = response.headers.get_filename() or path.rpartition("/")[2]
        total_bytes = None
        if length := response.headers["Content-Length"]:
            total_bytes = int(length)
        # A name that holds a path must not lead out of the folder that the user chose.
        return Download(Path(name).name, total_bytes, self._pieces(response))

    async def _pieces(self, response: HTTPResponse) -> AsyncIterator[bytes]:
        with response:
            try:
                while piece := await asyncio.to_thread(response.read, PIECE_BYTES):
                    yield piece
            except (OSError, HTTPException) as error:
                raise BusError(f"{self._base} broke off: {error}") from None

    def _url(self, path: str, query: Query) -> str:
        given = {name: value for name, value in query.items() if value is not None}
        if not given:
            return f"{self._base}{path}"
        return f"{self._base}{path}?{urllib.parse.urlencode(given)}"

    async def _send(
        self,
        method: str,
        path: str,
        body: Struct | None,
        kind: type[ReplyT],
        timeout: float = ANSWER_SECONDS,
    ) -> ReplyT:
        data = None if body is None else encode(body)
        return await self._send_data(method, path, data, kind, timeout)

    async def _send_data(
        self,
        method: str,
        path: str,
        data: bytes | None,
        kind: type[ReplyT],
        timeout: float = ANSWER_SECONDS,
    ) -> ReplyT:
        url = self._url(path, {})
        answer = await asyncio.to_thread(self._read, url, timeout, method, data)
        return decode(answer, kind)

    def _read(
        self,
        url: str,
        timeout: float,
        method: str = "GET",
        body: bytes | None = None,
    ) -> bytes:
        with self._open(url, timeout, method, body) as response:
            return response.read()

    def _open(
        self,
        url: str,
        timeout: float,
        method: str = "GET",
        body: bytes | None = None,
    ) -> HTTPResponse:
        # urllib also opens file: and other URLs; __init__ lets only http and https pass.
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310
        try:
            response: HTTPResponse = self._opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise BusError(
                f"{self._base} does not answer ({reason}): "
                "is `gpuping up` running there, and is the address right?"
            ) from None
        return response


def _opener_for(host: str) -> urllib.request.OpenerDirector:
    """Asks this machine directly, whatever http_proxy says, and others as the environment says."""
    if is_loopback(host):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def _agent_path(agent_id: str, question: str) -> str:
    return f"{AGENTS_PATH}/{check_agent_id(agent_id)}/{question}"


def _month_and_rules(request: StatementRequest | FleetReplayRequest) -> Query:
    query: Query = {
        "month": request.month,
        "policy": request.policy,
        "format": request.format,
    }
    if request.threshold is not None:
        query["threshold"] = repr(request.threshold)  # every digit of it
    return query


def _refusal(error: urllib.error.HTTPError) -> GpupingError:
    """The `detail` of the gateway's problem document, or else what the status line says."""
    try:
        problem = msgspec.json.decode(error.read())
        detail = str(problem["detail"])
    except (msgspec.DecodeError, KeyError, TypeError, OSError):
        detail = f"HTTP {error.code} {error.reason}"
    if error.code == 401:
        detail += " (the token goes into GPUPING_TOKEN)"
    return RefusedError(error.code, detail)
