"""Agents that know HTTP only: asked by the gateways at their address, and marked as such."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
import pytest_asyncio
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.messages import PingRequest, UptimeReport, decode, encode
from bus.contract.questions import Agent, BridgeRequest, RegisterReply, RegisterRequest
from bus.errors import SettingsError, UnavailableError
from bus.settings import load
from bus.transport import connection, micro_services
from gateway import service as gateway_service
from gpuping.client.own_server import OwnServer
from gpuping.client.own_server import running as own_server_running
from scheduler.service import running as scheduler_running
from storage.service import running as storage_running
from tests.identity import keep_keys
from tests.old_http_agent import OldHttpAgent, send
from tests.ports import free_port
from tests.waiting import clear_of_months_end

TIMEOUT_SECONDS = 2.0


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OwnServer]:
    """A bus with identities, where reports must be signed. The tests share it, to save starts."""
    settings = load(
        {},
        GPUPING_DATA_DIR=str(tmp_path_factory.mktemp("data")),
        GATEWAY_PORT=0,
        GATEWAY_BRIDGE_NETWORKS="127.0.0.0/8",
        GATEWAY_BRIDGE_LOOPBACK=True,
        PING_RESPONSE_TIMEOUT_SECONDS=TIMEOUT_SECONDS,
        PING_RECOVERY_THRESHOLD_PINGS=2,
    )
    async with own_server_running(settings, free_port()) as server:
        assert server.settings.GPUPING_REQUIRE_SIGNED
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rest(own_server: OwnServer) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        scheduler_running(own_server.settings_of("scheduler")),
        storage_running(own_server.settings_of("storage")),
        gateway_service.running(own_server.settings_of("gateway")) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30) as client,
    ):
        yield client


async def register(rest: httpx.AsyncClient, agent_id: str, url: str) -> httpx.Response:
    body = {"agent_id": agent_id, "agent_url": url, "capabilities": ["gpu-compute"]}
    return await rest.post("/ping-system/agents/register", json=body)


async def shown(rest: httpx.AsyncClient, agent_id: str) -> dict:
    return (await rest.get(f"/ping-system/agents/{agent_id}")).json()


async def until_pinged(rest: httpx.AsyncClient, agent_id: str, pings: int = 1) -> dict:
    async with asyncio.timeout(60):
        while True:
            agent = await shown(rest, agent_id)
            if agent["total_pings"] >= pings:
                return agent
            await asyncio.sleep(0.05)


async def ping(rest: httpx.AsyncClient, agent_id: str) -> dict:
    """A ping by hand that is an outcome of its own: one agent has one a second at most."""
    before = (await shown(rest, agent_id))["total_pings"]
    async with asyncio.timeout(60):
        while True:
            answer = (await rest.post(f"/ping-system/agents/{agent_id}/ping")).json()
            outcome = answer.get("ping", answer)
            if outcome["ping_seq"] > before:
                return outcome
            await asyncio.sleep(0.1)


async def test_an_old_agent_is_pinged_escalates_when_it_is_away_and_recovers(rest):
    """Its history, its statement and its page say what it is: asked by HTTP, and not signed."""
    await clear_of_months_end()
    with OldHttpAgent() as agent:
        assert (await register(rest, "old", agent.url)).status_code == 201
        first = await until_pinged(rest, "old")
        assert (first["by_http"], first["status"], first["connected"]) == (True, "healthy", None)
        good = await ping(rest, "old")
        assert (good["verdict"], good["remarks"]) == ("good", ["by_http"])
        assert good["uptime_percent"] > 99
        assert good["seconds"]["up"] == pytest.approx(good["window_seconds"], rel=0.01)

        agent.stop()
        missed = [await ping(rest, "old") for _ in range(2)]
        assert [one["outcome"] for one in missed] == ["missed"] * 2
        assert [one["interval_minutes"] for one in missed] == [30.0, 60.0]
        assert missed[0]["reason"] == "timeout"
        assert (await shown(rest, "old"))["status"] == "missing"

        agent.start()
        back = [await ping(rest, "old") for _ in range(3)]
        assert back[0]["verdict"] == "poor"  # what it was away for counts
        assert [one["verdict"] for one in back[1:]] == ["good", "good"]
        assert back[-1]["interval_minutes"] == 15.0
        assert (await shown(rest, "old"))["status"] == "healthy"

        agent.share_up = 0.5
        poor = await ping(rest, "old")
        assert poor["verdict"] == "poor"
        assert poor["uptime_percent"] == pytest.approx(50, abs=3)

    async with asyncio.timeout(60):
        while True:
            history = (await rest.get("/ping-system/agents/old/history?hours=1")).json()
            if len(history["pings"]) == 8:
                break
            await asyncio.sleep(0.05)
    answered = [one for one in history["pings"] if one["outcome"] == "answered"]
    assert all("by_http" in one["remarks"] for one in answered)
    month = f"{datetime.now(UTC):%Y-%m}"
    statement = (await rest.get(f"/ping-system/agents/old/report?month={month}")).json()
    assert statement["remarks"]["by_http"] == len(answered) == 6
    page = await rest.get(f"/ping-system/agents/old/report?month={month}&format=html")
    assert "asked by HTTP: these reports are not signed" in page.text


async def test_a_host_that_has_no_gpu_and_one_that_never_says_since_when(rest):
    with OldHttpAgent(tells_length=False) as agent:
        agent.has_gpu = False
        agent.share_up = 0.0
        await register(rest, "bare", agent.url)
        assert (await until_pinged(rest, "bare"))["status"] == "poor"
        agent.has_gpu = True
        agent.share_up = 1.0
        good = await ping(rest, "bare")
        assert (good["verdict"], good["uptime_percent"]) == ("good", 100.0)


async def test_a_look_does_not_ask_such_an_agent_for_it_would_count_anew(rest):
    with OldHttpAgent() as agent:
        await register(rest, "looked-at", agent.url)
        await until_pinged(rest, "looked-at")
        for what in ("uptime", "gpu-status", "health"):
            answer = await rest.get(f"/ping-system/agents/looked-at/{what}")
            assert answer.status_code == 409, what
            assert "asked by HTTP" in answer.json()["detail"]
        assert agent.uptime_questions() == 1


async def test_an_answer_that_is_none_is_a_miss_that_is_kept_as_evidence(rest):
    with OldHttpAgent() as agent:
        agent.respond = lambda request: send(request, b"<html>", 200)
        await register(rest, "nonsense", agent.url)
        outcome = await ping(rest, "nonsense")
        assert (outcome["outcome"], outcome["reason"]) == ("missed", "bad_report")
        async with asyncio.timeout(60):
            while True:
                path = "/ping-system/agents/nonsense/history?hours=1&evidence=true"
                pings = (await rest.get(path)).json()["pings"]
                if pings and pings[0]["evidence"]:
                    break
                await asyncio.sleep(0.05)
        assert "its answer is no report: it is no JSON" in pings[0]["evidence"]["report"]
    metrics = (await rest.get("/metrics")).text
    assert 'gpuping_bridge_requests_total{result="bad_answer"}' in metrics
    assert "gpuping_bridge_agents" in metrics


NOT_ASKED = [
    ("http://169.254.169.254/latest/meta-data/", "never asked"),
    ("http://10.0.0.1:8001", "GATEWAY_BRIDGE_NETWORKS"),
    ("http://[::ffff:127.0.0.1]:8001", "IPv4 address written as IPv6"),
    ("http://[64:ff9b::7f00:1]", "NAT64"),
    ("http://2130706433", "another form"),
    ("http://user@127.0.0.1", "user"),
    ("file:///etc/passwd", "http://"),
]


async def test_a_registration_whose_address_is_not_asked_is_refused_with_the_reason(rest):
    """Every form is in tests/unit/test_agent_urls.py and tests/unit/test_bridge_networks.py."""
    for url, words in NOT_ASKED:
        answer = await register(rest, "bad", url)
        assert answer.status_code == 400, url
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["errors"][0]["pointer"] == "#/agent_url"
        assert words in problem["detail"]
    assert (await rest.get("/ping-system/agents/bad")).status_code == 404


async def test_a_name_that_cannot_be_resolved_now_may_be_registered_later(rest):
    answer = await register(rest, "late", "http://no-such-host.invalid:8001")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


async def test_a_host_with_an_agentd_is_never_asked_by_http(rest, own_server):
    """Neither by its own word nor by an operator's, or its reports would no longer be signed."""
    await keep_keys(own_server, "own")
    with OldHttpAgent() as agent:
        async with connection.connected(
            own_server.settings_of_agent("own"), "agentd:own", inbox_prefix="_INBOX.own"
        ) as host:
            request = RegisterRequest(agent_url=agent.url, mark="m")
            subject = subjects.register("own")
            reply = await micro_services.ask(host, subject, request, RegisterReply, who="x")
            assert not reply.agent.by_http
            again = await register(rest, "own", agent.url)
            assert again.status_code == 200
            assert (await shown(rest, "own"))["by_http"] is False
            with pytest.raises(UnavailableError, match="does not let you ask"):
                await micro_services.ask(
                    host,
                    subjects.bridge("own"),
                    BridgeRequest(agent_url=agent.url, by_http=True),
                    Agent,
                    who="x",
                    timeout=1,
                )


async def test_an_old_container_that_becomes_an_agentd_is_asked_on_the_bus_from_then_on(
    rest, own_server
):
    with OldHttpAgent() as agent:
        await register(rest, "new", agent.url)
        assert (await until_pinged(rest, "new"))["by_http"]
        async with connection.connected(
            own_server.settings_of_agent("new"), "agentd:new", inbox_prefix="_INBOX.new"
        ) as host:
            reply = await micro_services.ask(
                host, subjects.register("new"), RegisterRequest(mark="m"), RegisterReply, who="x"
            )
        assert not reply.agent.by_http
        await register(rest, "new", agent.url)
        assert (await shown(rest, "new"))["by_http"] is False


async def test_two_gateways_ask_an_agent_once_for_each_ping(rest, own_server):
    """Though the ping is sent again while the agent takes its time, and to another gateway."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(request: BaseHTTPRequestHandler) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)
        send(request, b'{"uptime_percent": 100}')

    async with (
        gateway_service.running(own_server.settings_of("gateway")) as other,
        httpx.AsyncClient(base_url=other.url, timeout=30) as other_rest,
        connection.connected(
            own_server.settings_of("scheduler"), "test", inbox_prefix="_INBOX._scheduler"
        ) as scheduler,
    ):
        with OldHttpAgent() as agent:
            await register(rest, "shared", agent.url)
            await register(other_rest, "shared", agent.url)
            await until_pinged(rest, "shared")
            agent.respond = slow
            request = encode(PingRequest(ping_id="p", nonce="n", window_seconds=10.0))
            inbox = scheduler.new_inbox()
            answered: asyncio.Queue[bytes] = asyncio.Queue()
            before = agent.uptime_questions()
            async with scheduler.listening(inbox, lambda one: answered.put_nowait(one.data)):
                await scheduler.publish(subjects.ping("shared"), request, reply=inbox)
                async with asyncio.timeout(60):
                    while agent.uptime_questions() == before:  # noqa: ASYNC110  # in a thread
                        await asyncio.sleep(0.01)
                for _ in range(20):  # the server hands them to either gateway
                    await scheduler.publish(subjects.ping("shared"), request, reply=inbox)
                await scheduler.flush()
                await asyncio.sleep(0.7)  # the claim is repeated meanwhile
                release.set()
                async with asyncio.timeout(60):
                    answer = decode(await answered.get(), UptimeReport)
            assert agent.uptime_questions() == before + 1
            assert (answer.ping_id, answer.uptime_percent) == ("p", 100.0)


async def test_without_credentials_of_its_own_the_bridge_does_not_start(own_server):
    settings = replace(own_server.settings_of("gateway"), NATS_BRIDGE_CREDS=None)
    with pytest.raises(SettingsError, match="NATS_BRIDGE_CREDS"):
        async with gateway_service.running(settings):
            pass


async def test_without_networks_an_address_is_a_label_whatever_it_is(rest, own_server):
    settings = replace(own_server.settings_of("gateway"), GATEWAY_BRIDGE_NETWORKS=None)
    async with (
        gateway_service.running(settings) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30) as label_rest,
    ):
        for url in ("http://169.254.169.254/", "file:///etc/passwd", "http://127.0.0.1:1"):
            answer = await register(label_rest, "label", url)
            assert answer.status_code in {200, 201}
            assert answer.json()["agent_url"] == url
        assert (await shown(rest, "label"))["by_http"] is False
