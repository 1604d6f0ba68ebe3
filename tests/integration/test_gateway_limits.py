"""What one client of the gateway can hold: connections, streams, files. Each has a bound."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from bus.identity import tokens
from gateway import broadcast
from gateway.routes.events import PERMISSION_CHECK_SECONDS
from gateway.web import concurrency, connections
from tests.gateway_behind import agent, gateway_and_behind, ping, quick
from tests.ports import free_port

EVENTS = "/ping-system/events"
EXPORT = "/ping-system/export/history?hours=1"


def connect(base_url: httpx.URL) -> socket.socket:
    return socket.create_connection((base_url.host, base_url.port), timeout=20)


async def reader_of(base_url: httpx.URL, sent: bytes):
    reader, writer = await asyncio.open_connection(base_url.host, base_url.port)
    writer.write(sent)
    return reader, writer


@pytest.mark.parametrize(
    "half",
    [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "],
)
async def test_half_a_request_is_answered_408_in_time(base_settings, monkeypatch, half):
    monkeypatch.setattr("gateway.web.server.HEAD_SECONDS", 1.0)
    async with gateway_and_behind(quick(base_settings)) as (http, _):
        reader, writer = await reader_of(http.base_url, half)
        began = time.monotonic()
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert time.monotonic() - began > 0.9
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"application/problem+json" in answer
        writer.close()


async def test_one_byte_at_a_time_does_not_put_the_end_off(base_settings, monkeypatch):
    monkeypatch.setattr("gateway.web.server.HEAD_SECONDS", 1.0)
    async with gateway_and_behind(quick(base_settings)) as (http, _):
        reader, writer = await reader_of(http.base_url, b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        ending = asyncio.create_task(reader.read())
        async with asyncio.timeout(60):
            while not ending.done():
                writer.write(b"x")
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                await asyncio.wait([ending], timeout=0.1)
        writer.close()


async def test_half_a_body_ends_in_time(base_settings, monkeypatch):
    monkeypatch.setattr("gateway.web.server.BODY_SECONDS", 1.0)
    head = (
        b"POST /ping-system/agents/register HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    async with gateway_and_behind(quick(base_settings)) as (http, _):
        reader, writer = await reader_of(http.base_url, head)
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
        assert (await http.get("/healthz")).status_code == 200


async def test_an_event_stream_and_an_idle_connection_stay(base_settings, monkeypatch):
    monkeypatch.setattr("gateway.web.server.HEAD_SECONDS", 0.5)
    monkeypatch.setattr("gateway.web.server.KEEP_ALIVE_SECONDS", 60)
    async with (
        gateway_and_behind(quick(base_settings)) as (http, _),
        http.stream("GET", EVENTS) as response,
    ):
        reader, writer = await reader_of(
            http.base_url, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await response.aread()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(60):
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_beyond_the_limit_half_requests_make_room_for_whole_ones(base_settings, monkeypatch):
    monkeypatch.setattr("gateway.service.connection_limit", lambda: 20)
    async with gateway_and_behind(quick(base_settings)) as (http, _):
        half_open = [connect(http.base_url) for _ in range(60)]
        try:
            async with asyncio.timeout(60):
                for _ in range(5):
                    answer = await http.get("/healthz", headers={"Connection": "close"})
                    assert answer.status_code == 200
            assert await metric(http, "connections_limit") == 20
            assert await metric(http, "connections_exhausted_total") >= 40
            first = await asyncio.to_thread(half_open[0].recv, 4096)
            assert first.startswith(b"HTTP/1.1 503")
            assert b"retry-after" in first.lower()
        finally:
            for one in half_open:
                one.close()


async def metric(http: httpx.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    return float(text.partition(f"\ngpuping_gateway_{name} ")[2].split()[0])


async def test_who_takes_nothing_of_an_answer_is_ended_and_its_file_freed(
    base_settings, monkeypatch
):
    monkeypatch.setattr("gateway.web.server.STALLED_WRITE_SECONDS", 1.0)
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        behind.agents["a"] = agent("a")
        behind.pings["a"] = [ping("a", 1)]
        behind.file = os.urandom(16 * 2**20)
        before = await metric(http, "connections_late_total")
        with connect(http.base_url) as stalled:
            stalled.sendall(f"GET {EXPORT} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await asyncio.to_thread(stalled.recv, 100)
            assert head.startswith(b"HTTP/1.1 200")
            assert behind.offered is not None
            async with asyncio.timeout(60):
                while behind.offered.exists():  # noqa: ASYNC110  # storage deletes it
                    await asyncio.sleep(0.05)
            assert await metric(http, "connections_late_total") == before + 1
        async with asyncio.timeout(60):
            whole = await http.get(EXPORT)  # who takes it has it whole, however large
        assert whole.content == behind.file


async def test_where_all_connections_are_streams_the_next_is_told_503(base_settings, monkeypatch):
    monkeypatch.setattr("gateway.service.connection_limit", lambda: 6)
    monkeypatch.setattr("gateway.service.MAX_SUBSCRIBERS", 100)
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        behind.silent.add("fleet")  # these requests wait for an answer
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                response = await stack.enter_async_context(http.stream("GET", EVENTS))
                assert response.status_code == 200
            fourth = await http.get(EVENTS, headers={"Connection": "close"})
            assert fourth.status_code == 503  # half of the connections are kept for requests
            assert (await http.get("/healthz", headers={"Connection": "close"})).is_success
            waiting = [asyncio.create_task(http.get("/ping-system/dashboard")) for _ in range(3)]
            async with asyncio.timeout(60):
                while True:  # until all three are there
                    refused = await http.get("/healthz", headers={"Connection": "close"})
                    if refused.status_code == 503:
                        break
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) >= 1
            for task in waiting:
                task.cancel()


async def test_one_caller_has_a_bounded_number_of_streams(base_settings, monkeypatch, tmp_path):
    monkeypatch.setattr(broadcast, "MAX_STREAMS_OF_CALLER", 3)
    made = {name: tokens.create(name, "viewer") for name in ("ada", "eve")}
    text = "".join(tokens.as_toml(entry) for _, entry in made.values())
    (tmp_path / "tokens.toml").write_text(text)
    chosen = quick(base_settings, GPUPING_TOKENS_FILE=str(tmp_path / "tokens.toml"))
    ada, eve = ({"Authorization": f"Bearer {secret}"} for secret, _ in made.values())
    async with gateway_and_behind(chosen) as (http, _), contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(http.stream("GET", EVENTS, headers=ada))
        refused = await http.get(EVENTS, headers=ada)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        other = await stack.enter_async_context(http.stream("GET", EVENTS, headers=eve))
        assert other.status_code == 200


async def test_a_revoked_tokens_stream_ends_within_two_seconds(base_settings, tmp_path):
    secret, entry = tokens.create("ada", "viewer")
    _, other = tokens.create("other", "viewer")
    path = tmp_path / "tokens.toml"
    path.write_text(tokens.as_toml(entry))
    chosen = quick(base_settings, GPUPING_TOKENS_FILE=str(path))
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        gateway_and_behind(chosen) as (http, _),
        http.stream("GET", EVENTS, headers=headers) as response,
    ):
        path.write_text(tokens.as_toml(other))
        async with asyncio.timeout(60):
            await response.aread()
    # How often is looked decides how long it takes; a busy machine decides the rest.
    assert tokens.RECHECK_SECONDS + PERMISSION_CHECK_SECONDS <= 1.5


async def test_files_of_one_caller_are_bounded_and_freed_when_it_leaves(base_settings):
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        behind.agents["a"] = agent("a")
        behind.pings["a"] = [ping("a", 1)]
        behind.file = os.urandom(16 * 2**20)
        request = f"GET {EXPORT} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        readers = []
        paths: list[Path] = []
        for _ in range(concurrency.MAX_LONG_REQUESTS):
            reader, writer = await reader_of(http.base_url, request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert behind.offered is not None
            paths.append(behind.offered)
            readers.append((reader, writer))
        refused = await http.get(EXPORT)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        for _, writer in readers:
            writer.transport.abort()
        async with asyncio.timeout(60):
            while any(path.exists() for path in paths):  # noqa: ASYNC110  # storage deletes them
                await asyncio.sleep(0.02)
        behind.file = b"small"
        async with asyncio.timeout(60):
            while (await http.get(EXPORT)).status_code != 200:  # noqa: ASYNC110  # as a user would
                await asyncio.sleep(0.02)


def test_the_limit_leaves_descriptors_for_others():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for chosen in (64, 256, 1024, 4096):
            resource.setrlimit(resource.RLIMIT_NOFILE, (chosen, hard))
            limit = connections.connection_limit()
            at_once = limit + connections.BACKLOG + connections.MAX_REFUSALS
            assert limit >= 1
            assert chosen < 512 or at_once <= chosen - connections.DESCRIPTORS_FOR_OTHERS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


_SMALL_SYSTEM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
from gpuping.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
async def test_3000_half_open_connections_at_1024_descriptors(tmp_path):
    arguments = ["up", "--port", "0", "--data-dir", str(tmp_path / "data"), "--no-agent"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "NATS_PORT": str(free_port()),
    }
    up = subprocess.Popen(  # noqa: ASYNC220  # it outlives this statement
        [sys.executable, "-c", _SMALL_SYSTEM, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    half_open: list[socket.socket] = []
    try:
        bus_file = tmp_path / "data" / "bus.json"
        async with asyncio.timeout(60):
            while not bus_file.exists():
                assert up.poll() is None
                await asyncio.sleep(0.05)
        url = httpx.URL(json.loads(bus_file.read_text())["gateway_url"])
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            for number in range(3000):
                half_open.append(connect(url))
                half_open[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
                if number % 250 == 0:
                    answer = await http.get("/readyz", headers={"Connection": "close"})
                    assert answer.status_code == 200, answer.text
            answer = await http.get("/readyz", headers={"Connection": "close"})
            assert answer.status_code == 200, answer.text
    finally:
        for one in half_open:
            one.close()
        up.terminate()
        output, _ = up.communicate(timeout=20)
    assert "EMFILE" not in output
    assert "Too many open files" not in output
    assert "Traceback" not in output
