"""The `/agent/*` endpoints of agent mode, over real sockets, and with badly behaved clients."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import msgspec
import pytest

from agentd import service
from bus import settings
from bus.contract.messages import UptimeReport, decode
from bus.errors import SettingsError
from bus.monitoring import http_server


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def quick(nats_server, tmp_path):
    return settings.load(
        {},
        NATS_URL=nats_server.url,
        GPUPING_DATA_DIR=str(tmp_path),
        AGENT_ID="agent-001",
        AGENT_SCENARIO="healthy",
        AGENT_HTTP_PORT=0,
        AGENT_GPU_CHECK_INTERVAL_SECONDS=0.2,
    )


@pytest.fixture
async def agent(quick):
    async with service.running(quick, serve_http=True) as running:
        yield running


async def send(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def ask(port: int, path: str, method: str = "GET") -> Answer:
    head, _, body = (
        await send(port, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    ).partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body)


async def test_the_three_endpoints_answer(agent):
    answer = await ask(agent.http_port, "/agent/uptime-since-last-ping")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert decode(answer.body, UptimeReport).agent_id == "agent-001"
    assert (await ask(agent.http_port, "/agent/gpu-status?pretty=1")).json()["gpus"][0][
        "state"
    ] == "up"
    assert (await ask(agent.http_port, "/agent/health")).json()["status"] == "ok"
    assert agent.check_loop.ledger.counted_until is None  # a look over HTTP counts for nothing


async def test_head_has_no_body(agent):
    answer = await ask(agent.http_port, "/agent/health", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 100


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/agent", "GET", 404),
        ("/agent/health/", "GET", 404),
        ("/agent/health", "POST", 405),
    ],
)
async def test_errors_are_problem_documents(agent, path, method, status):
    answer = await ask(agent.http_port, path, method)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert {"type", "title", "detail"} <= answer.json().keys()
    assert status != 405 or answer.headers["allow"] == "get, head"


@pytest.mark.parametrize(
    ("nonsense", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"\xff\xfe\x00\r\n\r\n", 400),
        (b"GET http://x/agent/health HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET /agent/health HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_nonsense_is_refused_and_the_next_request_is_answered(agent, nonsense, status):
    assert (await send(agent.http_port, nonsense)).startswith(f"HTTP/1.1 {status} ".encode())
    assert (await ask(agent.http_port, "/agent/health")).status == 200


async def test_too_many_connections_are_told_to_come_again(agent):
    async with AsyncExitStack() as stack:
        for _ in range(http_server.MOST_CONNECTIONS):
            _, idle = await asyncio.open_connection("127.0.0.1", agent.http_port)
            stack.callback(idle.close)
        answer = await ask(agent.http_port, "/agent/health")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
    async with asyncio.timeout(60):
        while (await ask(agent.http_port, "/agent/health")).status != 200:
            pass  # until it has noticed that they are gone


async def test_a_port_that_is_taken_is_one_clear_error(agent, quick):
    taken = msgspec.structs.replace(quick, AGENT_ID="agent-002", AGENT_HTTP_PORT=agent.http_port)
    with pytest.raises(http_server.PortError, match=f"AGENT_HTTP_PORT={agent.http_port}"):
        async with service.running(taken, serve_http=True):
            pass


async def test_a_body_that_nobody_reads_does_not_reset_the_answer(agent):
    request = b"POST /agent/health HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    for _ in range(20):
        assert (await send(agent.http_port, request)).startswith(b"HTTP/1.1 405 ")


async def test_an_idle_client_does_not_hold_up_the_exit(quick):
    async with service.running(quick, serve_http=True) as agent:
        _, idle = await asyncio.open_connection("127.0.0.1", agent.http_port)
        assert (await ask(agent.http_port, "/agent/health")).status == 200
        began = time.monotonic()
    assert time.monotonic() - began < http_server.REQUEST_SECONDS / 2
    idle.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8001", 200),
        ("127.0.0.1", 200),
        ("[::1]:8001", 200),
        ("agent.localhost", 200),
        ("evil.example", 403),
        ("evil.example:8001", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
async def test_only_loopback_names_are_answered(agent, host, status):
    request = f"GET /agent/health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    answer = await send(agent.http_port, request)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_outside_loopback_it_needs_a_token(quick):
    everywhere = "0.0.0.0"  # noqa: S104  # what must be refused
    with pytest.raises(SettingsError, match=r"AGENT_HTTP_HOST='0\.0\.0\.0'"):
        async with service.running(
            msgspec.structs.replace(quick, AGENT_HTTP_HOST=everywhere), serve_http=True
        ):
            pass
    token = "a-long-secret-of-this-host"
    guarded = msgspec.structs.replace(quick, AGENT_HTTP_HOST=everywhere, AGENT_HTTP_TOKEN=token)
    async with service.running(guarded, serve_http=True) as running:
        port = running.http_port
        assert (await ask(port, "/agent/health")).status == 401
        for presented, status in ((token, 200), (token + "x", 401), ("", 401)):
            head = f"Host: gpu-1.example\r\nAuthorization: Bearer {presented}\r\n\r\n"
            answer = await send(port, f"GET /agent/health HTTP/1.1\r\n{head}".encode())
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
