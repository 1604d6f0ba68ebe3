"""The questions that the gateway and the command line ask, over a real bus."""

from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import pytest

from bus.client.fleet_client import FleetClient, optional
from bus.contract import subjects
from bus.contract.exports import ExportRequest, TableRequest
from bus.contract.questions import HistoryRequest, StorageStats, UptimesRequest
from bus.contract.statements import FleetReplayRequest, StatementRequest
from bus.errors import AgentError, BadAnswerError, RefusedError, UnavailableError
from bus.transport.connection import Client
from tests.gateway_behind import Behind, agent, ping

MONTH = "2026-10"


@pytest.fixture
async def behind(bus: Client) -> Behind:
    services = Behind(bus)
    await services.serve_scheduler()
    await services.serve_storage()
    return services


@pytest.fixture
def fleet_client(bus: Client, behind: Behind) -> FleetClient:
    return FleetClient(bus, agent_timeout_seconds=0.4)


class SilentBus:
    """A connection on which every question times out at once; the error tells the time limit."""

    is_connected = True

    async def request(
        self, subject: str, data: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> Any:
        raise nats.errors.TimeoutError


REPLAY = FleetReplayRequest(month=MONTH, threshold=98.0)
Question = Callable[[FleetClient], Awaitable[object]]
WAITS: dict[str, tuple[Question, str]] = {
    "replay": (lambda client: client.replay(REPLAY), "250 s"),
    "replay file": (lambda client: client.replay_file(REPLAY), "250 s"),
    "export": (lambda client: client.export("a", ExportRequest()), "250 s"),
    "table": (lambda client: client.table(TableRequest(table="agents")), "250 s"),
    "history": (lambda client: client.history("a", HistoryRequest()), "15 s"),
    "fleet": (lambda client: client.fleet(), "5 s"),
    "ping now": (lambda client: client.ping_now("a"), "15 s"),
}


@pytest.mark.parametrize("name", WAITS)
async def test_how_long_an_answer_may_take(name: str) -> None:
    question, seconds = WAITS[name]
    client = FleetClient(SilentBus(), agent_timeout_seconds=10.0)  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match=f"did not answer within {seconds}$"):
        await question(client)


class SilentStorage(SilentBus):
    """A connection on which only the registry answers."""

    def __init__(self, bus: Client) -> None:
        self._bus = bus

    async def request(
        self, subject: str, data: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> Any:
        known = {subjects.get("a"), subjects.expected_gpus("a"), subjects.LIST_MAINTENANCE}
        if subject in known:
            return await self._bus.request(subject, data, timeout=timeout)
        return await super().request(subject, data, timeout)


async def test_a_statement_may_take_as_long_as_its_file(bus: Client, behind: Behind) -> None:
    behind.agents["a"] = agent("a")
    client = FleetClient(SilentStorage(bus), agent_timeout_seconds=10.0)  # type: ignore[arg-type]
    for question in (client.statement, client.statement_file):
        with pytest.raises(UnavailableError, match="storage did not answer within 250 s"):
            await question("a", StatementRequest(month=MONTH))


async def test_history_asks_the_registry_only_about_an_agent_without_outcomes(bus: Client):
    behind = Behind(bus)
    await behind.serve_storage()
    behind.pings["pinged"] = [ping("pinged", 1)]
    behind.agents["registered"] = agent("registered")
    fleet_client = FleetClient(bus, agent_timeout_seconds=0.4)
    page = await fleet_client.history("pinged", HistoryRequest())
    assert [one.ping_seq for one in page.pings] == [1]
    with pytest.raises(UnavailableError, match="the scheduler is not on the bus"):
        await fleet_client.history("registered", HistoryRequest())
    await behind.serve_scheduler()
    assert (await fleet_client.history("registered", HistoryRequest())).pings == ()
    with pytest.raises(RefusedError, match="nobody is not known") as refused:
        await fleet_client.history("nobody", HistoryRequest())
    assert refused.value.code == 404


async def test_what_cannot_be_read_is_no_fault_of_the_caller(fleet_client, behind):
    behind.nonsense |= {"stats", "fleet"}
    with pytest.raises(BadAnswerError, match="the answer of storage cannot be read"):
        await fleet_client.storage_stats()
    with pytest.raises(BadAnswerError, match="the answer of the scheduler cannot be read"):
        await fleet_client.fleet()


async def test_an_optional_answer_may_be_missing(fleet_client, behind):
    assert isinstance(await optional(fleet_client.storage_stats()), StorageStats)
    behind.nonsense.add("uptimes")
    assert await optional(fleet_client.uptimes(UptimesRequest(agent_ids=("a",)))) is None
    agents = (agent("a"),)
    assert await fleet_client.with_uptimes(agents) == agents


async def test_an_agent_that_fails_is_told_from_a_service_that_fails(fleet_client, behind):
    with pytest.raises(AgentError, match="agent absent is not on the bus"):
        await fleet_client.look("absent")
    await behind.serve_agent("odd", b"{")
    with pytest.raises(AgentError, match="agent odd answered with something that cannot be read"):
        await fleet_client.look("odd")
    await behind.serve_agent("good")
    assert (await fleet_client.look("good")).agent_id == "good"
