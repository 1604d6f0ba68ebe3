"""Every error is a problem document that says what is wrong, and no bad input reaches the bus."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx

from tests.gateway_behind import agent, gateway_and_behind, quick

AGENTS = "/ping-system/agents"
REGISTER = f"{AGENTS}/register"


def assert_problem(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "about:blank"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in answer.text
    return problem


async def test_invalid_hours_and_limits(http, behind):
    behind.agents["a"] = agent("a")
    for hours in ("0", "-1", "1e9", "x", "nan", "inf", "", "0x10", "87600.01", "1,5"):
        problem = assert_problem(
            await http.get(f"{AGENTS}/a/history", params={"hours": hours}), 400
        )
        assert problem["errors"][0]["parameter"] == "hours"
    for limit in ("0", "1001", "-5", "1.5", "x", "", "99999999999999999999"):
        for path in (AGENTS, f"{AGENTS}/due-for-ping", f"{AGENTS}/a/history"):
            problem = assert_problem(await http.get(path, params={"limit": limit}), 400)
            assert problem["errors"][0]["parameter"] == "limit"
    assert not behind.asked


async def test_a_parameter_counts_once_and_null_is_no_value(http, behind):
    behind.agents["a"] = agent("a")
    for query in ("limit=3&limit=4", "before=null", "before=null&before=null", "limit=null"):
        problem = assert_problem(await http.get(f"{AGENTS}/a/history?{query}"), 400)
        assert query.split("=")[0] in problem["detail"]
    assert (await http.get(f"{AGENTS}?search=null")).status_code == 200


async def test_hours_at_and_within_the_bounds(http, behind):
    behind.agents["a"] = agent("a")
    for hours in ("0.001", "24", "87600", "1e3"):
        assert (await http.get(f"{AGENTS}/a/history", params={"hours": hours})).status_code == 200


async def test_invalid_query_parameters(http, behind):
    for query in ("status=good", "capability=", "cursor=a.b", "cursor=*"):
        assert_problem(await http.get(f"{AGENTS}?{query}"), 400)
    for query in (
        "format=xml",
        "cursor=-1",
        "cursor=x",
        "cursor=30",
        "cursor=1-2%0A",
        "cursor=1-2-3",
    ):
        assert_problem(await http.get(f"{AGENTS}/a/history?{query}"), 400)
    assert_problem(await http.get("/metrics?agents=perhaps"), 400)
    assert not behind.asked


BAD_IDS = [
    "a.b",
    "a b",
    "a%20b",
    "a%2Fb",
    "a%2fhistory",
    "%2E%2E",
    "*",
    "%3E",
    "-a",
    "_a",
    "a" * 64,
    "a%0A",
    "ä",
    "a%00",
]


async def test_invalid_agent_ids(http, behind):
    for agent_id in [*BAD_IDS, "register", "due-for-ping"]:
        for method, rest in (
            ("GET", "/history"),
            ("POST", "/ping"),
            ("GET", "/uptime"),
            ("GET", "/gpu-status"),
        ):
            assert_problem(await http.request(method, f"{AGENTS}/{agent_id}{rest}"), 400)
    for agent_id in BAD_IDS:
        assert_problem(await http.get(f"{AGENTS}/{agent_id}"), 400)
        assert_problem(await http.delete(f"{AGENTS}/{agent_id}"), 400)
    for agent_id in ("register", "due-for-ping", "a.b", "a b", "", "a" * 64, 7, None, "a\n"):
        assert_problem(await http.post(REGISTER, json={"agent_id": agent_id}), 400)
    assert not behind.asked


BAD_BODIES = [
    b"",
    b"   ",
    b"{",
    b"[]",
    b"null",
    b'"agent-001"',
    b"{}",
    b"\xff\xfe\x00",
    b'{"agent_id": "a",}',
    b'{"agent_id": "a", "metadata": {"x": NaN}}',
    b'{"agent_id": "a", "metadata": {"x": 1e999}}',
    b'{"agent_id": "a", "metadata": {"x": "\\ud800"}}',
    b'{"agent_id": "a", "metadata": []}',
    b'{"agent_id": "a", "metadata": "x"}',
    b'{"agent_id": "a", "capabilities": "gpu"}',
    b'{"agent_id": "a", "capabilities": [""]}',
    b'{"agent_id": "a", "capabilities": [1]}',
    b'{"agent_id": "a", "agent_url": 8001}',
    b'{"agent_id": "a", "agent_url": "http://x/\\r\\nSet-Cookie: a"}',
    b'{"agent_id": "a", "metadata": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
    b"[" * 60_000,
    b'{"agent_id": "a", "metadata": ' + b'{"a":' * 9_000,
]


async def test_invalid_bodies(http, behind):
    for content in BAD_BODIES:
        answer = await http.post(
            REGISTER, content=content, headers={"Content-Type": "application/json"}
        )
        problem = assert_problem(answer, 400)
        assert problem["errors"], content  # docs/api.md promises them for every bad body
        assert all(
            error["pointer"].startswith("#") and error["detail"] for error in problem["errors"]
        )
    assert not behind.asked


async def test_an_invalid_id_in_a_body_is_pointed_at(http, behind):
    for path in (REGISTER, "/gpu-check", "/worker/gpu-check"):
        for agent_id in ("register", "a.b", 7):
            problem = assert_problem(await http.post(path, json={"agent_id": agent_id}), 400)
            assert [error["pointer"] for error in problem["errors"]] == ["#/agent_id"]
    assert not behind.asked


async def test_a_fault_in_a_body_is_pointed_at(http):
    problem = assert_problem(
        await http.post(REGISTER, json={"agent_id": "a", "capabilities": ["x", 7]}), 400
    )
    assert problem["errors"] == [{"detail": "Expected str, got int", "pointer": "#/capabilities/1"}]


async def test_bodies_of_another_media_type(http):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = await http.post(
            REGISTER, content=b'{"agent_id": "a"}', headers={"Content-Type": content_type}
        )
        assert content_type in assert_problem(answer, 400)["detail"]


async def test_bodies_that_are_too_large(http, behind):
    large = json.dumps({"agent_id": "a", "metadata": {"x": "y" * 70_000}}).encode()
    headers = {"Content-Type": "application/json"}
    assert_problem(await http.post(REGISTER, content=large, headers=headers), 413)

    async def unannounced() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    assert_problem(await http.post(REGISTER, content=unannounced(), headers=headers), 413)
    assert not behind.asked


async def test_unknown_paths_are_a_404(http):
    for path in (
        "/nope",
        "/ping-system",
        f"{AGENTS}/a/nope",
        "/schema/nope",
        "/static/nope.js",
        "/badge/a.png",
    ):
        assert_problem(await http.get(path), 404)


async def test_unsupported_methods_are_a_405_with_allow(http):
    for method, path, allowed in (
        ("PUT", AGENTS, {"GET"}),
        ("GET", REGISTER, {"POST"}),
        ("DELETE", f"{AGENTS}/due-for-ping", {"GET"}),
        ("PATCH", f"{AGENTS}/a", {"GET", "DELETE"}),
        ("GET", f"{AGENTS}/a/ping", {"POST"}),
        ("POST", "/", {"GET"}),
        ("BREW", "/healthz", {"GET"}),
    ):
        answer = await http.request(method, path)
        assert_problem(answer, 405)
        assert set(answer.headers["allow"].split(", ")) - {"OPTIONS"} == allowed


async def test_options_names_every_method_of_a_path(http):
    described = (await http.get("/schema/openapi.json")).json()
    for path, operations in described["paths"].items():
        answer = await http.options(path.replace("{", "").replace("}", ""))
        assert answer.status_code == 204, path
        documented = {method.upper() for method in operations}
        assert set(answer.headers["allow"].split(", ")) == documented | {"OPTIONS"}, path


async def test_unavailable_services_are_a_503_with_retry_after(base_settings):
    paths = (AGENTS, f"{AGENTS}/a", f"{AGENTS}/a/history", "/ping-system/dashboard", "/badge/a.svg")
    async with gateway_and_behind(quick(base_settings), scheduler=False, storage=False) as (
        http,
        _,
    ):
        for path in paths:
            answer = await http.get(path)
            assert_problem(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1


async def test_history_without_storage_is_a_503(base_settings):
    async with gateway_and_behind(quick(base_settings), storage=False) as (http, behind):
        behind.agents["a"] = agent("a")
        answer = await http.get(f"{AGENTS}/a/history")
        assert "storage" in assert_problem(answer, 503)["detail"]


async def test_an_unreadable_answer_of_a_service_is_a_500(http, behind):
    behind.agents["a"] = agent("a")
    behind.nonsense = {"list", "get"}
    for path in (AGENTS, f"{AGENTS}/a"):
        problem = assert_problem(await http.get(path), 500)
        assert "log" in problem["detail"]


async def test_a_frozen_bus_is_a_503_until_it_recovers(http, behind, nats_server):
    behind.agents["a"] = agent("a")
    nats_server.process.kill()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 30
    seen = set()
    while loop.time() < deadline:
        answer = await http.get(f"{AGENTS}/a")
        seen.add(answer.status_code)
        if seen == {503, 200}:
            break
        await asyncio.sleep(0.05)  # polling: there is no event for a recovered bus
    assert seen == {503, 200}


TWO_LENGTHS = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
)


async def test_bytes_that_are_not_http_get_a_problem_document(http):
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        TWO_LENGTHS,
    ):
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(nonsense)
        async with asyncio.timeout(60):
            answer = await reader.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == 400
        writer.close()
