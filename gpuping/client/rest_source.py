"""The looking verbs' answers from a gateway's REST interface, for `--server-url`.

urllib, because a base install has no other HTTP client; in threads, because urllib waits.
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

from bus.contract.exports import TableRequest
from bus.contract.messages import UptimeReport, decode
from bus.contract.questions import AgentPage, HistoryReply, HistoryRequest
from bus.contract.statements import FleetReplay, FleetReplayRequest, Statement, StatementRequest
from bus.contract.subjects import check_agent_id
from bus.errors import BusError, GpupingError, RefusedError, SettingsError
from gpuping.client.dashboard import Dashboard
from gpuping.client.download import Download
from gpuping.client.paging import newest

TIMEOUT_SECONDS = 15.0
FILE_SECONDS = 260.0  # storage writes a whole file first
PIECE_BYTES = 256 * 1024

T = TypeVar("T")


class RestSource:
    """Asks `server_url`, with a bearer token where one is given."""

    def __init__(self, server_url: str, token: str | None) -> None:
        parts = urllib.parse.urlsplit(server_url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise SettingsError(
                f"--server-url={server_url!r}: expected an address like http://localhost:8000"
            )
        self._base = server_url.rstrip("/")
        self._token = token

    async def dashboard(self) -> Dashboard:
        """The fleet, as the gateway's page shows it."""
        return await self._get("/ping-system/dashboard", Dashboard)

    async def agents(self, status: str | None, capability: str | None) -> AgentPage:
        """Every agent that fits, on however many pages."""
        query = {"status": status, "capability": capability, "limit": "1000"}
        page = await self._get("/ping-system/agents", AgentPage, query)
        agents = list(page.agents)
        while page.next_cursor:
            page = await self._get(
                "/ping-system/agents", AgentPage, query | {"cursor": page.next_cursor}
            )
            agents += page.agents
        return AgentPage(agents=tuple(agents), total=page.total)

    async def history(self, agent_id: str, hours: float, limit: int) -> HistoryReply:
        """The newest `limit` outcomes, and the summary of all."""
        path = f"/ping-system/agents/{check_agent_id(agent_id)}/history"

        async def page(request: HistoryRequest) -> HistoryReply:
            asked = {
                "hours": str(request.hours),
                "limit": str(request.limit),
                "cursor": request.cursor,
            }
            return await self._get(path, HistoryReply, asked)

        return await newest(HistoryRequest(hours=hours, limit=limit), page)

    async def look(self, agent_id: str) -> UptimeReport:
        """The agent's own report since its last ping; changes nothing anywhere."""
        return await self._get(
            f"/ping-system/agents/{check_agent_id(agent_id)}/uptime", UptimeReport
        )

    async def report(self, agent_id: str, request: StatementRequest) -> Statement:
        """The uptime statement of one month."""
        return await self._get(_report(agent_id), Statement, _rules(request))

    async def report_file(self, agent_id: str, request: StatementRequest) -> Download:
        """The same in any other format."""
        return await self._file(_report(agent_id), _rules(request))

    async def replay(self, request: FleetReplayRequest) -> FleetReplay:
        """The fleet's month under other rules."""
        return await self._get(
            "/ping-system/replay", FleetReplay, _rules(request) | {"limit": str(request.limit)}
        )

    async def replay_file(self, request: FleetReplayRequest) -> Download:
        """The same with every agent."""
        return await self._file("/ping-system/replay", _rules(request))

    async def table(self, request: TableRequest) -> Download:
        """Any other answer about the past as a file."""
        asked = {
            "agent_id": request.agent_id,
            "month": request.month,
            "by": request.by,
            "format": request.format,
        }
        hours = None if request.month else str(request.hours)
        return await self._file(f"/ping-system/export/{request.table}", asked | {"hours": hours})

    async def ready(self) -> None:
        """Returns when the gateway says that it can do its work; raises the reason when it cannot."""
        await asyncio.to_thread(self._fetch, f"{self._base}/readyz")

    async def _get(self, path: str, kind: type[T], query: dict[str, str | None] | None = None) -> T:
        return decode(await asyncio.to_thread(self._fetch, self._address(path, query)), kind)

    async def _file(self, path: str, query: dict[str, str | None]) -> Download:
        answer = await asyncio.to_thread(self._open, self._address(path, query), FILE_SECONDS)
        name = answer.headers.get_filename() or path.rpartition("/")[2]
        length = answer.headers["Content-Length"]
        return Download(Path(name).name, int(length) if length else None, self._pieces(answer))

    async def _pieces(self, answer: HTTPResponse) -> AsyncIterator[bytes]:
        with answer:
            try:
                while piece := await asyncio.to_thread(answer.read, PIECE_BYTES):
                    yield piece
            except (OSError, HTTPException) as error:
                raise BusError(f"{self._base} broke off: {error}") from None

    def _address(self, path: str, query: dict[str, str | None] | None) -> str:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return f"{self._base}{path}" + (f"?{urllib.parse.urlencode(given)}" if given else "")

    def _fetch(self, address: str) -> bytes:
        with self._open(address, TIMEOUT_SECONDS) as answer:
            return answer.read()

    def _open(self, address: str, timeout: float) -> HTTPResponse:
        headers = {"Accept": "application/json"} | (
            {"Authorization": f"Bearer {self._token}"} if self._token else {}
        )
        request = urllib.request.Request(address, headers=headers)  # noqa: S310  # http and https only: see __init__
        try:
            answer: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310  # as above
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise BusError(
                f"{self._base} does not answer ({reason}): is `gpuping up` running there, and is the address right?"
            ) from None
        return answer


def _report(agent_id: str) -> str:
    return f"/ping-system/agents/{check_agent_id(agent_id)}/report"


def _rules(request: StatementRequest | FleetReplayRequest) -> dict[str, str | None]:
    threshold = None if request.threshold is None else f"{request.threshold!r}"
    return {
        "month": request.month,
        "threshold": threshold,
        "policy": request.policy,
        "format": request.format,
    }


def _refusal(error: urllib.error.HTTPError) -> GpupingError:
    """The `detail` of the gateway's problem document, or what the status line says."""
    try:
        problem = msgspec.json.decode(error.read())
        detail = str(problem["detail"])
    except (msgspec.DecodeError, KeyError, TypeError, OSError):
        detail = f"HTTP {error.code} {error.reason}"
    if error.code == 401:
        detail += " (the token goes into GPUPING_TOKEN)"
    return RefusedError(error.code, detail)
