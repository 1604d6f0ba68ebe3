"""The map of the fleet: every GPU once, in the order of the agents, grouped by a label."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.contract.fleet_map import FleetMapPage, FleetMapRequest
from bus.contract.messages import GpuReport, Seconds, encode
from bus.contract.questions import RegisterRequest
from bus.settings import Settings
from bus.transport import connection
from bus.transport.micro_services import ask
from scheduler.service import running
from tests.agents import report
from tests.history import until_history


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    return replace(base_settings, PING_RESPONSE_TIMEOUT_SECONDS=1.0)


@pytest.fixture
async def fleet(bus: connection.Client, config: Settings) -> AsyncIterator[FleetClient]:
    async with running(config):
        yield FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)


async def test_it_has_every_gpu_once_and_groups_by_a_label(bus, fleet, agents):
    def second_gpu_down(agent_id, request):
        whole = report(agent_id, request, gpus=2)
        length = whole.window.seconds
        down = GpuReport(
            uuid=whole.gpus[1].uuid, state="down", reasons=("lost",), seconds=Seconds(down=length)
        )
        return encode(replace(whole, gpus=(whole.gpus[0], down)))

    await agents.add("a", lambda i, r: encode(report(i, r, gpus=3)))
    await agents.add("b", second_gpu_down)
    for agent_id, site in (("a", "FRA"), ("b", "AMS"), ("c", "FRA"), ("d", None)):
        metadata = {"site": site} if site else {}
        await fleet.register(agent_id, RegisterRequest(metadata=metadata))
    await until_history(bus, lambda h: h["a"] and h["b"])
    found = await fleet.fleet_map("site")
    columns = found.columns
    assert columns.agent_ids == ("a", "b", "c", "d")
    assert columns.gpu_counts == (3, 2, 0, 0)
    assert columns.gpu_states == "uuuud"
    assert columns.statuses[2:] == "nn"
    assert [columns.group_names[group] for group in columns.groups] == ["FRA", "AMS", "FRA", "-"]
    assert (found.total, found.gpus, found.label) == (4, 5, "site")
    assert columns.uptimes == (-1, -1, -1, -1)
    assert columns.escalations == (0, 0, 0, 0)


async def test_its_pages_join_to_the_same_map(bus, fleet):
    for number in range(7):
        await fleet.register(f"a{number}", RegisterRequest(metadata={"rack": number % 2}))
    seen: list[str] = []
    cursor = None
    while True:
        question = FleetMapRequest(cursor=cursor, limit=3, label="rack")
        page = await ask(bus, subjects.FLEET_MAP, question, FleetMapPage, who="the scheduler")
        seen += page.columns.agent_ids
        assert len(page.columns.groups) == len(page.columns.agent_ids)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"a{number}" for number in range(7)]
    assert list((await fleet.fleet_map(None)).columns.agent_ids) == seen
