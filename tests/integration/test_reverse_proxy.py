"""The gateway behind a real nginx and a real Caddy, as docs/reverse-proxy.md configures them."""

import asyncio
import re
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from bus import settings
from bus.contract import subjects
from bus.contract.messages import encode
from bus.contract.questions import LiveEvent
from bus.errors import SettingsError
from bus.identity import tokens
from tests.gateway_behind import NOW, agent, gateway_and_behind, ping, quick
from tests.reverse_proxies import PROXIES, documented, needs_caddy, needs_nginx, nginx

AGENTS = "ping-system/agents"
MINIMAL = """
upstream gateway {
    server 127.0.0.1:8000;
}

server {
    listen 443 ssl;
    ssl_certificate     /etc/ssl/certs/example.org.pem;
    ssl_certificate_key /etc/ssl/private/example.org.key;
    location / {
        proxy_pass http://gateway;
        proxy_set_header Host gateway.example;
    }
}
"""


def with_token(base_settings, folder: Path, **more) -> tuple[settings.Settings, str]:
    secret, entry = tokens.create("ada", "admin")
    (folder / "tokens.toml").write_text(tokens.as_toml(entry))
    path = str(folder / "tokens.toml")
    return quick(base_settings, GPUPING_TOKENS_FILE=path, **more), secret


@pytest.mark.parametrize("prefix", ["/gpuping/", "/"])
@pytest.mark.parametrize(
    "proxy",
    [pytest.param("nginx", marks=needs_nginx), pytest.param("Caddy", marks=needs_caddy)],
)
async def test_a_browser_signs_in_and_listens_through_a_proxy(
    base_settings, tmp_path, proxy, prefix
):
    public_url = f"https://example.org{prefix}"
    chosen, secret = with_token(base_settings, tmp_path, GATEWAY_PUBLIC_URL=public_url)
    server = documented(proxy).replace("/gpuping/", prefix)
    async with (
        gateway_and_behind(chosen) as (direct, behind),
        PROXIES[proxy](tmp_path, server, direct.base_url) as http,
    ):
        behind.agents["a"] = agent("a")
        behind.pings["a"] = [ping("a", 1)]
        page = await http.get(prefix)
        assert page.status_code == 200
        for linked in re.findall(r'(?:href|src)="(static/[^"]+)"', page.text):
            assert (await http.get(prefix + linked)).status_code == 200, linked
        bearer = {"Authorization": f"Bearer {secret}"}
        for address in (f"{prefix}schema", f"{prefix}schema/"):
            schema = await http.get(address, headers=bearer | {"Accept": "text/html"})
            linked = re.findall(r'(?:href|src)="([^"d][^"]+)"', schema.text)
            assert len(linked) == 8  # icon, font, style, two scripts, and three links
            for one in linked:
                there = await http.get(schema.url.join(one), headers=bearer)
                assert there.status_code == 200, (address, one)
        described = await http.get(f"{prefix}schema/openapi.json", headers=bearer)
        assert described.json()["servers"] == [{"url": prefix.rstrip("/") or "/"}]
        browser = {"Origin": "https://example.org", "Sec-Fetch-Site": "same-origin"}
        wrong = await http.post(f"{prefix}login", json={"token": "x"}, headers=browser)
        assert wrong.status_code == 401
        answer = await http.post(f"{prefix}login", json={"token": secret}, headers=browser)
        assert answer.status_code == 204
        cookie = SimpleCookie(answer.headers["set-cookie"])["gpuping_session"]
        assert cookie["secure"]
        assert cookie["path"] == prefix
        assert secret not in cookie.value
        assert (await http.get(f"{prefix}{AGENTS}/a")).status_code == 200
        body = {"agent_id": "b"}
        made = await http.post(f"{prefix}{AGENTS}/register", json=body, headers=browser)
        assert made.status_code == 201
        assert made.headers["location"] == f"{prefix}{AGENTS}/b"

        async with http.stream("GET", f"{prefix}ping-system/events") as events:
            lines = events.aiter_lines()
            assert await anext(lines) == ": gpuping"
            event = LiveEvent(kind="ping", agent_id="a", at=NOW)
            await behind.client.publish(subjects.event("a"), encode(event))
            async with asyncio.timeout(60):  # it is not buffered
                async for line in lines:
                    if line == "event: ping":
                        break
        assert (await http.post(f"{prefix}logout", headers=browser)).status_code == 204
        http.cookies.set("gpuping_session", cookie.value)
        assert (await http.get(f"{prefix}{AGENTS}/a")).status_code == 401


@needs_nginx
async def test_the_shortest_nginx_configuration_and_no_public_url(base_settings, tmp_path):
    chosen, secret = with_token(base_settings, tmp_path)
    async with (
        gateway_and_behind(chosen) as (direct, _),
        nginx(tmp_path, MINIMAL, direct.base_url) as http,
    ):
        browser = {"Origin": "https://example.org", "Sec-Fetch-Site": "same-origin"}
        answer = await http.post("/login", json={"token": secret}, headers=browser)
        assert answer.status_code == 204
        assert (await http.get("/ping-system/agents")).status_code == 200


async def test_origins(base_settings, tmp_path):
    url = "http://Fleet.example:80/x"
    chosen, secret = with_token(base_settings, tmp_path, GATEWAY_PUBLIC_URL=url)
    body = {"token": secret}
    async with gateway_and_behind(chosen) as (http, _):
        own = str(http.base_url).rstrip("/")
        for headers, allowed in (
            ({"Origin": "http://fleet.example"}, True),  # plain HTTP: no Sec-Fetch-Site
            ({"Origin": own}, True),
            ({"Origin": "https://fleet.example"}, False),
            ({"Origin": "http://evil.example"}, False),
            ({"Origin": "http://fleet.example", "Sec-Fetch-Site": "cross-site"}, False),
            ({"Origin": "http://fleet.example", "Sec-Fetch-Site": "same-site"}, False),
            ({"Origin": "null"}, False),
        ):
            answer = await http.post("/login", json=body, headers=headers)
            assert answer.status_code == (204 if allowed else 403), headers
        assert "Secure" not in (await http.post("/login", json=body)).headers["set-cookie"]


async def test_a_session_is_no_token_and_ends(base_settings, tmp_path):
    chosen, secret = with_token(base_settings, tmp_path)
    async with gateway_and_behind(chosen) as (http, _):
        answer = await http.post("/login", json={"token": secret})
        session = SimpleCookie(answer.headers["set-cookie"])["gpuping_session"].value
        http.cookies.clear()
        as_token = {"Authorization": f"Bearer {session}"}
        assert (await http.get("/ping-system/agents", headers=as_token)).status_code == 401
        raw = {"Cookie": f"gpuping_session={secret}"}
        assert (await http.get("/ping-system/agents", headers=raw)).status_code == 401
        in_session = {"Cookie": f"gpuping_session={session}"}
        assert (await http.get("/ping-system/agents", headers=in_session)).status_code == 200
        _, other = tokens.create("other", "viewer")
        (tmp_path / "tokens.toml").write_text(tokens.as_toml(other))
        async with asyncio.timeout(60):
            while (await http.get("/ping-system/agents", headers=in_session)).is_success:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_session_outlives_a_restart_where_the_data_dir_is_kept(base_settings, tmp_path):
    data = str(tmp_path / "data")
    chosen, secret = with_token(base_settings, tmp_path, GPUPING_DATA_DIR=data)
    async with gateway_and_behind(chosen) as (http, _):
        answer = await http.post("/login", json={"token": secret})
        session = SimpleCookie(answer.headers["set-cookie"])["gpuping_session"].value
    in_session = {"Cookie": f"gpuping_session={session}"}
    async with gateway_and_behind(chosen) as (http, _):
        assert (await http.get("/ping-system/agents", headers=in_session)).status_code == 200
        forged = {"Cookie": f"gpuping_session={session[:-4]}AAAA"}
        assert (await http.get("/ping-system/agents", headers=forged)).status_code == 401
    assert (tmp_path / "data/gateway-session.key").stat().st_mode & 0o077 == 0
    (tmp_path / "data/gateway-session.key").unlink()
    async with gateway_and_behind(chosen) as (http, _):
        assert (await http.get("/ping-system/agents", headers=in_session)).status_code == 401


async def test_the_audit_log_has_the_address_that_a_proxy_on_this_machine_saw(
    base_settings, tmp_path, bus
):
    chosen, secret = with_token(base_settings, tmp_path, GATEWAY_PUBLIC_URL="https://a.example/")
    bearer = {"Authorization": f"Bearer {secret}"}
    async with gateway_and_behind(chosen) as (http, _):
        for forwarded in ("10.9.9.9, 192.0.2.7", "nonsense"):
            headers = bearer | {"X-Forwarded-For": forwarded}
            body = {"agent_id": "b"}
            await http.post("/ping-system/agents/register", json=body, headers=headers)
        page = (await http.get("/ping-system/audit", headers=bearer)).json()
        assert [one["address"] for one in page["entries"]] == ["127.0.0.1", "192.0.2.7"]


@pytest.mark.parametrize(
    "url", ["fleet.example", "ftp://fleet.example", "https://", "https://a b/", "https://a/?x=1"]
)
def test_a_bad_public_url_is_one_line(url):
    with pytest.raises(SettingsError, match="GATEWAY_PUBLIC_URL="):
        settings.load({"GATEWAY_PUBLIC_URL": url})
