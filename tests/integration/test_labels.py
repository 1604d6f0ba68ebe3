"""Labels are the operator's: they come before what a host says, and hosts are found by them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from msgspec.structs import replace

from bus.client import audit
from bus.client.fleet_client import FleetClient
from bus.contract.labels import MAX_LABELS, LabelsRequest
from bus.contract.maintenance import BookRequest
from bus.contract.messages import decode
from bus.contract.questions import ListRequest, RegisterRequest
from bus.errors import BadMessageError, RefusedError
from bus.settings import Settings
from bus.transport import connection
from gateway import service as gateway_service
from scheduler.service import running


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    return replace(base_settings, GATEWAY_PORT=0)


@pytest.fixture
async def client(bus: connection.Client, config: Settings) -> AsyncIterator[FleetClient]:
    async with running(config):
        client = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
        await client.register("a", RegisterRequest(metadata={"site": "NYC", "driver": 550}))
        await client.register("b", RegisterRequest(metadata={"site": "NYC"}))
        yield client


async def test_a_label_comes_before_the_hosts_own_word(client: FleetClient) -> None:
    after = await client.change_labels("a", LabelsRequest(labels={"site": "FRA", "rack": "12"}))
    assert after.labels == {"site": "FRA", "rack": "12"}
    assert after.metadata == {"site": "FRA", "rack": "12", "driver": 550}
    await client.register("a", RegisterRequest(metadata={"site": "AMS", "rack": "1"}))
    again = await client.agent("a")
    assert again.metadata == {"site": "FRA", "rack": "12"}
    removed = await client.change_labels("a", LabelsRequest(labels={"site": None, "rack": None}))
    assert removed.labels == {}
    assert removed.metadata == {"site": "AMS", "rack": "1"}


async def test_hosts_are_found_grouped_and_booked_by_labels(client: FleetClient) -> None:
    await client.change_labels("a", LabelsRequest(labels={"site": "FRA"}))
    found = await client.agents(ListRequest(search="site:fra"))
    assert [agent.agent_id for agent in found.agents] == ["a"]
    grouped = await client.fleet_map("site")
    assert set(grouped.columns.group_names) == {"FRA", "NYC"}
    begin = datetime.now(UTC) + timedelta(hours=1)
    booked = await client.book_maintenance(
        BookRequest(since=begin, until=begin + timedelta(hours=1), reason="x", label="site=FRA")
    )
    assert booked.bookings[0].agent_ids == ("a",)


async def test_a_removed_host_that_is_let_in_again_keeps_its_labels(client: FleetClient) -> None:
    await client.change_labels("a", LabelsRequest(labels={"owner": "acme"}))
    await client.remove("a")
    with pytest.raises(RefusedError):
        await client.change_labels("a", LabelsRequest(labels={"owner": "other"}))
    await client.register("a", RegisterRequest())
    assert (await client.agent("a")).labels == {"owner": "acme"}


async def test_who_changed_a_label_is_in_the_audit_log(
    client: FleetClient, bus: connection.Client
) -> None:
    request = LabelsRequest(labels={"site": "FRA"}, author="user ada")
    await client.change_labels("a", request)
    entries = (await audit.read_page(bus, 10)).entries
    entry = next(entry for entry in entries if entry.action == "labels")
    assert (entry.actor, entry.agent_id) == ("user ada", "a")
    assert entry.before == {"labels": {}}
    assert entry.after == {"labels": {"site": "FRA"}}


async def test_too_many_labels_are_refused(client: FleetClient) -> None:
    full = {f"label-{number}": "x" for number in range(MAX_LABELS)}
    await client.change_labels("a", LabelsRequest(labels=full))
    with pytest.raises(RefusedError, match="at most 50 labels"):
        await client.change_labels("a", LabelsRequest(labels={"one-more": "x"}))
    with pytest.raises(RefusedError, match="control characters"):
        await client.change_labels("b", LabelsRequest(labels={"site": "F\x1b[2JA"}))


@pytest.mark.parametrize(
    "labels", [b"{}", b'{"a b":"x"}', b'{"":"x"}', b'{"site":""}', b'{"site":5}', b'{"s\\n":"x"}']
)
def test_what_is_no_label_is_refused(labels: bytes) -> None:
    with pytest.raises(BadMessageError):
        decode(b'{"labels":%b}' % labels, LabelsRequest)


async def test_over_rest(client: FleetClient, config: Settings) -> None:
    async with gateway_service.running(config) as gateway, httpx.AsyncClient(timeout=60) as http:
        path = f"{gateway.url}/ping-system/agents/a/labels"
        answer = await http.patch(path, json={"labels": {"site": "FRA", "rack": None}})
        assert answer.status_code == 200, answer.text
        assert answer.json()["labels"] == {"site": "FRA"}
        assert answer.json()["metadata"]["site"] == "FRA"
        problem = await http.patch(path, json={"labels": {"a b": "x"}})
        assert problem.status_code == 400
        assert problem.headers["content-type"].startswith("application/problem+json")
        unknown = await http.patch(path.replace("/a/", "/nobody/"), json={"labels": {"x": "y"}})
        assert unknown.status_code == 404
