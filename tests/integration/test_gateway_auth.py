"""Access on a running gateway: tokens, roles, sessions, foreign pages, listening addresses."""

import asyncio
import socket
from datetime import timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from bus.clock import utc_now
from bus.errors import SettingsError
from bus.identity import tokens
from gateway import service
from gateway.web.access.auth import BURST_SECONDS
from tests.gateway_behind import agent, gateway_and_behind, ping, quick

AGENTS = "/ping-system/agents"
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what must be refused without tokens


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    made = {role: tokens.create(f"the-{role}", role) for role in ("viewer", "operator", "admin")}
    made["late"] = tokens.create("late", "admin", utc_now() - timedelta(seconds=1))
    (tmp_path / "tokens.toml").write_text(
        "\n".join(tokens.as_toml(entry) for _, entry in made.values())
    )
    return {name: secret for name, (secret, _) in made.items()}


@pytest.fixture
def guarded(base_settings, secrets, tmp_path: Path):
    return quick(base_settings, GPUPING_TOKENS_FILE=str(tmp_path / "tokens.toml"))


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def test_each_role_may_do_what_it_should(guarded, secrets):
    calls = [
        ("GET", AGENTS, None, 0),
        ("GET", "/metrics", None, 0),
        ("GET", "/badge/a.svg", None, 0),
        ("POST", "/gpu-check", {"agent_id": "a"}, 0),
        ("POST", "/ping-system/chosen-agents", {"agent_ids": ["a"]}, 0),
        ("POST", f"{AGENTS}/register", {"agent_id": "b"}, 1),
        ("POST", f"{AGENTS}/a/ping", None, 1),
        ("DELETE", f"{AGENTS}/b", None, 2),
    ]
    async with gateway_and_behind(guarded) as (http, behind):
        for rank, role in enumerate(("viewer", "operator", "admin")):
            behind.agents = {"a": agent("a"), "b": agent("b")}
            behind.pings["a"] = [ping("a", 1)]
            for method, path, body, needed in calls:
                answer = await http.request(method, path, json=body, headers=bearing(secrets[role]))
                assert (answer.status_code == 403) is (rank < needed), (role, path, answer.text)
                assert answer.status_code in {200, 201, 204, 403}


PATHS_OF_THE_AUDIT_LOG = [
    "/ping-system/audit",
    "/ping-system/audit/",
    "/ping-system/audit//",
    "/ping-system//audit",
    "//ping-system/audit",
    "/ping-system/%2faudit",
    "/ping-system%2f%2faudit",
    "/ping-system/%61udit",
    "/static//../ping-system/audit",
    "/ping-system/x/..//audit",
]


async def test_no_way_of_writing_a_path_gets_round_a_role(guarded, secrets, bus):
    """The router takes several slashes for one; the guard must decide about the same path."""
    operator = bearing(secrets["operator"])
    async with gateway_and_behind(guarded) as (http, _):
        for path in PATHS_OF_THE_AUDIT_LOG:
            answer = await raw_get(http.base_url, path, operator)
            assert answer.split()[1] in {b"403", b"404"}, path
        for public in ("//", "//healthz"):
            assert (await raw_get(http.base_url, public, {})).split()[1] == b"404"


async def raw_get(url: httpx.URL, path: str, headers: dict[str, str]) -> bytes:
    """The first line of the answer to a path that no client may put in order."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    line = await reader.readline()
    writer.close()
    return line


async def test_a_request_without_a_valid_token_is_a_401(guarded, secrets):
    async with gateway_and_behind(guarded) as (http, behind):
        behind.agents["a"] = agent("a")
        wrong = [
            {},
            bearing("x"),
            {"Authorization": "Bearer"},
            bearing(secrets["late"]),
            {"Authorization": f"Basic {secrets['admin']}"},
        ]
        wrong += [
            {"Cookie": "gpuping_session=x"},
            bearing(secrets["admin"] + "x"),
            bearing("x" * 5000),
        ]
        for headers in wrong:
            for path in (
                AGENTS,
                f"{AGENTS}/a",
                f"{AGENTS}/a.b",
                "/nope",
                "/ping-system/events",
                "/schema",
            ):
                answer = await http.get(path, headers=headers)
                if answer.status_code == 429:
                    continue
                assert answer.status_code == 401
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for path in ("/healthz", "/readyz", "/", "/static/favicon.svg"):
            assert (await http.get(path)).status_code == 200
        assert not behind.asked


async def test_wrong_tokens_are_rate_limited_and_right_ones_are_not(guarded, secrets):
    async with gateway_and_behind(guarded) as (http, _):
        number = 0
        answer = await http.get(AGENTS, headers=bearing("guess"))
        while answer.status_code == 401:
            number += 1
            answer = await http.get(AGENTS, headers=bearing(f"guess-{number}"))
        assert 0 < number < 1000
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert (await http.get(AGENTS, headers=bearing(secrets["viewer"]))).status_code == 200


async def test_a_browser_session(guarded, secrets):
    async with gateway_and_behind(guarded) as (http, _):
        assert (await http.post("/login", json={"token": "wrong"})).status_code == 401
        answer = await http.post("/login", json={"token": secrets["viewer"]})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (
            await http.get(AGENTS)
        ).status_code == 200  # the client sends the cookie, as a browser does
        async with http.stream("GET", "/ping-system/events") as response:
            assert response.status_code == 200
        assert (await http.post("/logout")).status_code == 204
        assert (await http.get(AGENTS)).status_code == 401


async def test_a_token_removed_from_the_file_is_refused(guarded, secrets, tmp_path):
    path = tmp_path / "tokens.toml"
    async with gateway_and_behind(guarded) as (http, _):
        headers = bearing(secrets["viewer"])
        assert (await http.get(AGENTS, headers=headers)).status_code == 200
        path.write_text("half a file [[")
        await asyncio.sleep(1.1)  # the gateway checks the file once a second
        assert (await http.get(AGENTS, headers=headers)).status_code == 200
        _, other = tokens.create("other", "viewer")
        path.write_text(tokens.as_toml(other))
        async with asyncio.timeout(60):
            status = 200
            while status != 401:
                await asyncio.sleep(0.05)
                status = (await http.get(AGENTS, headers=headers)).status_code


async def test_the_event_stream_of_a_removed_token_ends(guarded, secrets, tmp_path):
    async with gateway_and_behind(guarded) as (http, _):
        operator = bearing(secrets["operator"])
        viewer = bearing(secrets["viewer"])
        events = "/ping-system/events"
        async with (
            http.stream("GET", events, headers=viewer) as revoked,
            http.stream("GET", events, headers=operator) as kept,
        ):
            kept_entry = tokens.Token(
                name="the-operator", role="operator", sha256=tokens.digest(secrets["operator"])
            )
            (tmp_path / "tokens.toml").write_text(tokens.as_toml(kept_entry))
            async with asyncio.timeout(60):
                await revoked.aread()
            assert kept.status_code == 200
            assert (await http.get(events, headers=viewer)).status_code == 401
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await kept.aread()


async def test_pages_of_other_sites_are_refused(base_settings):
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        behind.agents["a"] = agent("a")
        for host in (
            "evil.example",
            "evil.example:8000",
            "10.0.0.1",
            "localhost.evil.example",
            "[2001:db8::1]:80",
        ):
            assert (await http.get(AGENTS, headers={"Host": host})).status_code == 403, host
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "fleet.localhost"):
            assert (await http.get(AGENTS, headers={"Host": host})).status_code == 200, host
        foreign = [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "http://evil.example"},
        ]
        foreign += [{"Origin": "null"}, {"Origin": "http://localhost:1"}]
        for headers in foreign:
            assert (await http.delete(f"{AGENTS}/a", headers=headers)).status_code == 403, headers
        own = {"Origin": str(http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert (await http.delete(f"{AGENTS}/a", headers=own)).status_code == 204


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_pages_of_other_sites_may_link_here_but_embed_only_badges(base_settings, site):
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        behind.agents["a"] = agent("a")
        export = "/ping-system/export/history?hours=87600"
        for mode, destination in (
            ("no-cors", "image"),
            ("no-cors", "script"),
            ("cors", "empty"),
            ("navigate", "iframe"),
        ):
            headers = {
                "Sec-Fetch-Site": site,
                "Sec-Fetch-Mode": mode,
                "Sec-Fetch-Dest": destination,
            }
            for path in (AGENTS, export, "/ping-system/events", "/metrics", "/"):
                refused = await http.get(path, headers=headers)
                assert refused.status_code == 403, (path, headers)
            assert (await http.get("/badge/a.svg", headers=headers)).status_code == 200
        link = {
            "Sec-Fetch-Site": site,
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        for path in (AGENTS, "/"):
            assert (await http.get(path, headers=link)).status_code == 200
        assert all(question != "table" for question, _ in behind.asked)


async def test_too_many_requests_are_a_429_with_retry_after(base_settings):
    slow = quick(base_settings, GATEWAY_REQUESTS_PER_SECOND=0.5)
    async with gateway_and_behind(slow) as (http, _):
        answer = await http.get("/healthz")
        allowed = 0
        while answer.status_code == 200:
            allowed += 1
            answer = await http.get("/healthz")
        assert allowed >= 0.5 * BURST_SECONDS
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 2
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.org", ""])
async def test_listening_outside_loopback_requires_tokens(base_settings, host):
    with pytest.raises(SettingsError, match="GPUPING_TOKENS_FILE"):
        async with service.running(quick(base_settings, GATEWAY_HOST=host)):
            pass


async def test_outside_loopback_with_tokens_the_gateway_answers(
    guarded, base_settings, secrets, tmp_path
):
    wide = msgspec.structs.replace(guarded, GATEWAY_HOST=EVERYWHERE)
    async with gateway_and_behind(wide) as (http, _):
        assert str(http.base_url).startswith("http://127.0.0.1:")
        headers = bearing(secrets["viewer"]) | {"Host": "gpuping.example"}
        assert (await http.get(AGENTS, headers=headers)).status_code == 200


async def test_a_busy_port_is_a_one_line_error(base_settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"GATEWAY_PORT={port}: cannot listen") as caught:
            async with service.running(_with_port(base_settings, port)):
                pass
        assert "\n" not in str(caught.value)


def _with_port(base_settings, port: int):
    return msgspec.structs.replace(base_settings, GATEWAY_PORT=port)


@pytest.mark.parametrize(
    "content",
    ["", "token = 1", "[[token]]\nname='x'\nrole='king'\nsha256='0'", "\x00", "[[token]]"],
)
async def test_an_invalid_tokens_file_stops_the_start(base_settings, tmp_path, content):
    (tmp_path / "bad.toml").write_text(content)
    for name in ("bad.toml", "absent.toml"):
        with pytest.raises(SettingsError, match="GPUPING_TOKENS_FILE="):
            async with service.running(
                quick(base_settings, GPUPING_TOKENS_FILE=str(tmp_path / name))
            ):
                pass
