"""Every question that the gateway asks on the bus, as typed calls. It asks these and nothing else.

An answer that is not the message it should be is a fault behind us (500, or 504 where an agent gave it), never
the caller's bad request: both are told apart here.
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Raw, Struct

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
    Ping,
    RegisterReply,
    RegisterRequest,
    SchedulerStats,
    StorageStats,
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
from bus.errors import BadMessageError, BusError, RefusedError, UnavailableError
from bus.transport.connection import Client
from bus.transport.file_transfer import FileOffer, receive
from bus.transport.large_answers import ask_whole
from bus.transport.micro_services import ask, ask_raw
from gateway.web.problems import ProblemError

log = structlog.get_logger("gateway")

SCHEDULER = "the scheduler"
STORAGE = "storage"
ANSWER_SECONDS = 5.0
HISTORY_SECONDS = 15.0  # a year of history may take storage its whole query time-out
FILE_SECONDS = (
    250.0  # storage writes a whole file first: a month of 10,000 agents takes it a minute
)
EMBELLISHMENT_SECONDS = 1.0  # for what a page can do without
PING_MARGIN_SECONDS = 5.0  # the scheduler's own work around a ping that times out

T = TypeVar("T")


class Backends:
    """The scheduler, storage and the agents, seen from the gateway."""

    def __init__(self, client: Client, ping_timeout_seconds: float) -> None:
        self.client = client
        self._ping_timeout = ping_timeout_seconds

    async def register(self, agent_id: str, request: RegisterRequest) -> RegisterReply:
        """Registers an agent, or updates a known one."""
        return await self._ask(SCHEDULER, subjects.register(agent_id), request, RegisterReply)

    async def remove(self, agent_id: str) -> None:
        """Removes an agent; RefusedError 404 when there is none."""
        await ask_raw(self.client, subjects.remove(agent_id), b"", who=SCHEDULER)

    async def agent(self, agent_id: str, *, removed_too: bool = False) -> Agent:
        """One agent; RefusedError 404 when it is unknown or removed."""
        return await self._ask(
            SCHEDULER, subjects.get(agent_id), GetRequest(removed_too=removed_too), Agent
        )

    async def agents(self, request: ListRequest) -> AgentPage:
        """A page of agents."""
        return await self._ask(SCHEDULER, subjects.LIST, request, AgentPage)

    async def fleet(self, timeout: float = ANSWER_SECONDS) -> Fleet:
        """The fleet in numbers."""
        return await self._ask(SCHEDULER, subjects.FLEET, None, Fleet, timeout)

    async def scheduler_stats(self, timeout: float = ANSWER_SECONDS) -> SchedulerStats:
        """What one of the schedulers has done since its start."""
        return await self._ask(SCHEDULER, subjects.STATS, None, SchedulerStats, timeout)

    async def ping_now(self, agent_id: str) -> Ping:
        """Pings at once; the outcome counts. Lasts as long as an agent may take to answer."""
        patience = self._ping_timeout + PING_MARGIN_SECONDS
        return await self._ask(SCHEDULER, subjects.ping_now(agent_id), None, Ping, patience)

    async def history(self, agent_id: str, request: HistoryRequest) -> HistoryReply:
        """One page of an agent's outcomes."""
        return await self._ask(
            STORAGE, subjects.history(agent_id), request, HistoryReply, HISTORY_SECONDS
        )

    async def export(self, agent_id: str, request: ExportRequest) -> FileOffer:
        """An agent's history as a file; RefusedError 404 for one without an outcome."""
        return await self._ask(STORAGE, subjects.export(agent_id), request, FileOffer, FILE_SECONDS)

    async def statement(self, agent_id: str, request: StatementRequest) -> Statement:
        """An agent's month, as JSON."""
        return await self._ask_whole(STORAGE, subjects.report(agent_id), request, Statement)

    async def statement_file(self, agent_id: str, request: StatementRequest) -> FileOffer:
        """An agent's month, in any other format."""
        return await self._ask(STORAGE, subjects.report(agent_id), request, FileOffer, FILE_SECONDS)

    async def replay(self, request: FleetReplayRequest) -> FleetReplay:
        """The fleet's month under other rules, as JSON."""
        return await self._ask_whole(STORAGE, subjects.REPLAY, request, FleetReplay)

    async def replay_file(self, request: FleetReplayRequest) -> FileOffer:
        """The same with every agent, as a file."""
        return await self._ask(STORAGE, subjects.REPLAY, request, FileOffer, FILE_SECONDS)

    async def table(self, request: TableRequest) -> FileOffer:
        """Any other answer of history, as a file."""
        return await self._ask(STORAGE, subjects.TABLE, request, FileOffer, FILE_SECONDS)

    def file(self, offer: FileOffer) -> AsyncIterator[bytes]:
        """The pieces of a file that storage offered."""
        return receive(self.client, offer)

    async def uptimes(self, request: UptimesRequest) -> UptimesReply:
        """Time-weighted uptime of the agents of one page."""
        return await self._ask(
            STORAGE, subjects.UPTIMES, request, UptimesReply, EMBELLISHMENT_SECONDS
        )

    async def overview(
        self, request: OverviewRequest, timeout: float = ANSWER_SECONDS
    ) -> OverviewReply:
        """The fleet's last hours."""
        return await self._ask(STORAGE, subjects.OVERVIEW, request, OverviewReply, timeout)

    async def storage_stats(self, timeout: float = ANSWER_SECONDS) -> StorageStats:
        """How far ingest has come."""
        return await self._ask(STORAGE, subjects.STORAGE_STATS, None, StorageStats, timeout)

    async def look(self, agent_id: str) -> UptimeReport:
        """The agent's own report since its last ping; changes nothing anywhere."""
        data = await self._ask_agent(agent_id, subjects.ping(agent_id))
        report = _of_agent(agent_id, data, UptimeReport)
        if report.agent_id != agent_id:
            raise ProblemError(504, f"agent {agent_id} answered with a report of another agent")
        return report

    async def gpu_status(self, agent_id: str) -> Raw:
        """The details of the agent's GPUs, as it gave them."""
        return _json_of_agent(
            agent_id, await self._ask_agent(agent_id, subjects.gpu_status(agent_id))
        )

    async def health(self, agent_id: str) -> Raw:
        """The agent's own health, as it gave it."""
        return _json_of_agent(agent_id, await self._ask_agent(agent_id, subjects.health(agent_id)))

    async def _ask(
        self,
        who: str,
        subject: str,
        request: Struct | None,
        reply: type[T],
        timeout: float = ANSWER_SECONDS,
    ) -> T:
        return await _understood(
            who, ask(self.client, subject, request, reply, who=who, timeout=timeout)
        )

    async def _ask_whole(self, who: str, subject: str, request: Struct, reply: type[T]) -> T:
        """For answers that may be larger than a message."""
        return await _understood(
            who, ask_whole(self.client, subject, request, reply, who=who, timeout=FILE_SECONDS)
        )

    async def _ask_agent(self, agent_id: str, subject: str) -> bytes:
        await self.agent(
            agent_id
        )  # an agent that nobody registered is unknown, even where one answers
        try:
            return await ask_raw(
                self.client, subject, b"", who=f"agent {agent_id}", timeout=self._ping_timeout
            )
        except UnavailableError as error:
            if not self.client.is_connected:
                raise
            raise ProblemError(504, str(error)) from None


async def optional(question: Awaitable[T]) -> T | None:
    """The answer, or None where the service behind is away: for what a page can do without."""
    try:
        return await question
    except BusError as error:
        log.debug("left_out", detail=str(error))
        return None


async def registered(
    backends: Backends, agent_id: str, *, removed_too: bool = False
) -> Agent | None:
    """The agent, or None where it is unknown or removed."""
    try:
        return await backends.agent(agent_id, removed_too=removed_too)
    except RefusedError as error:
        if error.code == 404:
            return None
        raise


async def _understood(who: str, answer: Awaitable[T]) -> T:
    try:
        return await answer
    except BadMessageError as error:
        log.error("bad_answer", who=who, detail=str(error))
        raise BusError(f"{who} gave an answer that is none") from error


def _of_agent(agent_id: str, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProblemError(
            504, f"agent {agent_id} answered with something that is no report"
        ) from None


def _json_of_agent(agent_id: str, data: bytes) -> Raw:
    """The agent's bytes, once they are known to be a JSON object."""
    _of_agent(agent_id, data, dict[str, Any])
    return Raw(data)
