"""Status pages, badges and a host's own view, with real services and a real gateway.

What is public shows no more than it should; every wrong address has the same answer.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from msgspec.structs import replace

import scheduler.service
import storage.service
from bus.client.fleet_client import FleetClient
from bus.contract.labels import LabelsRequest
from bus.contract.messages import PingRequest, encode
from bus.contract.questions import RegisterRequest
from bus.identity import tokens
from bus.settings import Settings
from bus.transport import connection
from gateway import service
from gateway.public.status_pages import StatusPages
from tests.agents import AnswerPing, answering, report
from tests.reverse_proxies import documented, needs_nginx, nginx
from tests.waiting import clear_of_midnight

PAGES = "/ping-system/status-pages"
LINKS = "/ping-system/links"
SECRETS = ("host-a", "host-b", "GPU-", "10.0.0.7", "acme", "rack-9", "Test GPU")
NOTHING_HERE = {"detail": "nothing is at this address", "status": 404}


class Fleet(NamedTuple):
    """Two gateways of one fleet, as an operator asks them, and as somebody without a token."""

    client: FleetClient
    operator: httpx.AsyncClient
    viewer: httpx.AsyncClient
    anyone: httpx.AsyncClient
    elsewhere: httpx.AsyncClient
    storage: AsyncExitStack
    scheduler: AsyncExitStack


def answer_once() -> AnswerPing:
    """Answers the first ping, and is silent from then on."""
    asked = []

    def answer(agent_id: str, request: PingRequest) -> bytes | None:
        asked.append(request)
        return encode(report(agent_id, request)) if len(asked) == 1 else None

    return answer


async def until_status(client: FleetClient, agent_id: str, status: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if (await client.agent(agent_id)).status == status:
                return
            await asyncio.sleep(0.05)


def bearer(url: str, secret: str | None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=20)


@pytest.fixture
async def fleet(
    bus: connection.Client, base_settings: Settings, tmp_path: Path
) -> AsyncIterator[Fleet]:
    """`host-a` answers, `host-b` does not. `storage` may be closed. It is all of one day."""
    await clear_of_midnight()
    secrets = {}
    text = ""
    for role in ("operator", "viewer"):
        secrets[role], token = tokens.create(f"{role}-1", role)  # type: ignore[arg-type]
        text += tokens.as_toml(token)
    tokens_file = tmp_path / "tokens.toml"
    tokens_file.write_text(text)
    config = replace(
        base_settings,
        GATEWAY_PORT=0,
        GPUPING_TOKENS_FILE=str(tokens_file),
        GATEWAY_PUBLIC_URL="https://fleet.example/gpuping/",
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_RESPONSE_TIMEOUT_SECONDS=2.0,
    )
    other = replace(config, GPUPING_DATA_DIR=str(tmp_path / "elsewhere"))
    async with AsyncExitStack() as stack:
        agents = await stack.enter_async_context(answering(config))
        await agents.add("host-a")
        await agents.add("host-b", answer_once())
        present = await stack.enter_async_context(AsyncExitStack())
        await present.enter_async_context(scheduler.service.running(config))
        past = await stack.enter_async_context(AsyncExitStack())
        await past.enter_async_context(storage.service.running(config))
        first = await stack.enter_async_context(service.running(config))
        second = await stack.enter_async_context(service.running(other))
        client = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
        about = RegisterRequest(agent_url="http://10.0.0.7:8001", metadata={"owner": "acme"})
        for agent_id in ("host-a", "host-b"):
            await client.register(agent_id, about)
            await client.change_labels(agent_id, LabelsRequest(labels={"rack": "rack-9"}))
        await until_status(client, "host-a", "healthy")
        await until_status(client, "host-b", "missing")
        asked = [
            await stack.enter_async_context(bearer(url, secret))
            for url, secret in (
                (first.url, secrets["operator"]),
                (first.url, secrets["viewer"]),
                (first.url, None),
                (second.url, None),
            )
        ]
        yield Fleet(client, *asked, past, present)


async def add_page(http: httpx.AsyncClient, **changes) -> httpx.Response:
    body = {"name": "fleet", "title": "Ours <b>&</b>", "agents": ["host-a", "host-b"]}
    return await http.post(PAGES, json=body | changes)


def without_nothing(answer: httpx.Response) -> dict:
    document = answer.json()
    return {"detail": document["detail"], "status": answer.status_code}


async def test_a_status_page_shows_what_it_may_and_costs_once_a_minute(fleet: Fleet):
    assert (await add_page(fleet.viewer)).status_code == 403
    assert (await add_page(fleet.anyone)).status_code == 401
    assert (await add_page(fleet.operator)).status_code == 201
    assert (await add_page(fleet.operator)).status_code == 409
    assert (await add_page(fleet.operator, name="x", agents=["nobody"])).status_code == 404
    assert (await add_page(fleet.operator, name="x", agents=[])).status_code == 400
    assert (await add_page(fleet.operator, name="X")).status_code == 400
    await until_known(fleet.anyone)

    page = await fleet.anyone.get("/status/fleet")
    shown = (await fleet.anyone.get("/status/fleet.json")).json()
    everything = page.text + json.dumps(shown) + str(page.headers) + await refusals(fleet)
    assert [secret for secret in SECRETS if secret in everything] == []
    assert "<b>&</b>" not in page.text
    assert "Ours &lt;b&gt;" in page.text
    assert "<script" not in page.text
    assert re.findall(r'(?:href|src)="/', page.text) == []  # a proxy may have a prefix
    assert [host["name"] for host in shown["hosts"]] == ["Host 1", "Host 2"]
    assert [host["state"] for host in shown["hosts"]] == ["up", "down"]
    assert [len(host["days"]) for host in shown["hosts"]] == [90, 90]
    assert shown["hosts"][0]["days"][-1]["uptime_percent"] is not None
    assert shown["summary"] == "1 of 2 hosts is down"
    assert page.text.count('class="spoken"') == 180

    again = await asyncio.gather(*[fleet.anyone.get("/status/fleet") for _ in range(50)])
    assert {answer.text for answer in again} == {page.text}  # `as_of` would differ otherwise
    unchanged = await fleet.anyone.get(
        "/status/fleet", headers={"If-None-Match": page.headers["etag"]}
    )
    assert unchanged.status_code == 304
    assert page.headers["cache-control"] == "public, max-age=30"

    await fleet.client.change_labels("host-a", LabelsRequest(labels={"public_name": "First"}))
    labelled = await add_page(
        fleet.operator, label="rack=rack-9", agents=[], show_ids=True, replace=True
    )
    assert labelled.status_code == 201
    shown = await until_shown(fleet.anyone, lambda view: view["hosts"][0]["name"] == "First")
    assert [host["agent_id"] for host in shown["hosts"]] == ["host-a", "host-b"]
    assert "rack-9" not in json.dumps(shown)

    assert (await fleet.viewer.delete(f"{PAGES}/fleet")).status_code == 403
    assert (await fleet.operator.delete(f"{PAGES}/fleet")).status_code == 200
    assert (await fleet.operator.delete(f"{PAGES}/fleet")).status_code == 404
    await until_refused(fleet.anyone, "/status/fleet")
    entries = (await fleet.client.audit(20)).entries
    actions = [entry.action for entry in entries if "status-page" in entry.action]
    assert actions == ["remove-status-page", "add-status-page", "add-status-page"]
    assert {entry.actor for entry in entries if "status-page" in entry.action} == {
        "token operator-1"
    }
    await services_away(fleet)


@needs_nginx
async def test_what_a_public_page_links_to_is_there_below_the_prefix_of_a_proxy(
    fleet: Fleet, tmp_path: Path
):
    """The addresses that an operator is given, opened by a visitor through a real nginx."""
    assert (await add_page(fleet.operator)).status_code == 201
    await until_known(fleet.anyone)
    given = {"status": "https://fleet.example/gpuping/status/fleet"}
    for kind in ("host", "badge"):
        made = await fleet.operator.post(LINKS, json={"kind": kind, "agent_id": "host-a"})
        given[kind] = made.json()["url"]
    async with nginx(tmp_path, documented("nginx"), fleet.anyone.base_url) as visitor:
        for kind, address in given.items():
            assert address.startswith("https://fleet.example/gpuping/")
            page = await visitor.get(address.removeprefix("https://fleet.example"))
            assert page.status_code == 200, address
            linked = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
            assert (len(linked) > 3) == (kind != "badge")  # a badge is one picture
            for one in linked:
                there = await visitor.get(page.url.join(one.replace("&amp;", "&")))
                assert there.status_code == 200, (kind, one)


async def services_away(fleet: Fleet) -> None:
    """What is not known, or was known before, is said to be so."""
    assert (await add_page(fleet.operator, name="kept")).status_code == 201
    pages = StatusPages(fleet.client, page_seconds=0.0)
    visits = await asyncio.gather(*[pages.page("kept") for _ in range(20)])
    assert pages.computed == 1
    assert visits[0] is not None
    known = visits[0].view
    await fleet.storage.aclose()
    without_storage = await pages.page("kept")
    assert without_storage is not None
    assert without_storage.view.history_as_of == known.history_as_of
    assert without_storage.view.hosts[0].days == known.hosts[0].days
    assert b"Days and incidents cannot be brought up to date" in without_storage.html.data
    await new_without_storage(fleet)
    await fleet.scheduler.aclose()
    without_anything = await pages.page("kept")
    assert without_anything is not None
    assert without_anything.view.stale
    assert without_anything.view.as_of == without_storage.view.as_of
    assert b"This page cannot be brought up to date" in without_anything.html.data
    assert (await fleet.elsewhere.get("/status/kept")).status_code == 503  # it never knew it


async def new_without_storage(fleet: Fleet) -> None:
    assert (await add_page(fleet.operator)).status_code == 201
    shown = await until_shown(fleet.anyone, lambda _: True)
    page = await fleet.anyone.get("/status/fleet")
    assert "Days and incidents cannot be shown at the moment." in page.text
    assert shown["history_as_of"] is None
    assert [host["state"] for host in shown["hosts"]] == ["up", "down"]


async def refusals(fleet: Fleet) -> str:
    """Every kind of wrong public address: all answers are alike. Returns their texts."""
    answers = []
    for path in (
        "/status/nothing",
        "/status/host-a",
        "/status/fleet.xml",
        "/status/FLEET",
        "/host/host-a",
        f"/host/{'A' * 100}",
        f"/badge/{'A' * 100}.svg",
    ):
        answers.append(await fleet.anyone.get(path))
    assert {json.dumps(without_nothing(answer)) for answer in answers} == {json.dumps(NOTHING_HERE)}
    return "".join(answer.text + str(answer.headers) for answer in answers)


async def until_shown(http: httpx.AsyncClient, is_so) -> dict:
    async with asyncio.timeout(60):
        while True:
            answer = await http.get("/status/fleet.json")
            if answer.status_code == 200 and is_so(answer.json()):
                return answer.json()
            await asyncio.sleep(0.2)


async def until_known(http: httpx.AsyncClient) -> dict:
    return await until_shown(http, lambda view: view["history_as_of"] is not None)


async def test_links_open_what_they_were_made_for_until_they_are_revoked(fleet: Fleet):
    await host_link(fleet)
    await badge_links(fleet)
    await maintained_and_labelled(fleet)


async def badge_links(fleet: Fleet) -> None:
    """They open at every gateway, and show no id."""
    assert (await fleet.anyone.get("/badge/host-a.svg")).status_code == 401
    assert (await fleet.viewer.get("/badge/host-a.svg")).status_code == 200
    wanted = {"kind": "badge", "agent_id": "host-a"}
    assert (await fleet.viewer.post(LINKS, json=wanted)).status_code == 403
    assert (await fleet.anyone.post(LINKS, json=wanted)).status_code == 401
    unknown = await fleet.operator.post(LINKS, json=wanted | {"agent_id": "nobody"})
    assert unknown.status_code == 404
    link = (await fleet.operator.post(LINKS, json=wanted)).json()
    path = link["path"]
    assert link["url"] == f"https://fleet.example/gpuping{path}"
    for http in (fleet.anyone, fleet.elsewhere):
        badge = await http.get(path)
        assert badge.status_code == 200
        assert badge.headers["content-type"] == "image/svg+xml"
        assert "GPU host" in badge.text
        assert "host-a" not in badge.text
    named = await fleet.operator.post(LINKS, json=wanted | {"shown_name": "Our <first>"})
    assert "Our &lt;first&gt;" in (await fleet.anyone.get(named.json()["path"])).text

    other = "A" if path[20] != "A" else "B"
    flipped = path[:20] + other + path[21:]
    as_host = path.replace("/badge/", "/host/").removesuffix(".svg")
    for wrong in (flipped, as_host):
        assert without_nothing(await fleet.anyone.get(wrong)) == NOTHING_HERE
    assert (await fleet.anyone.post(path)).status_code == 405

    assert (await fleet.viewer.delete(LINKS, params={"agent_id": "host-a"})).status_code == 403
    assert (await fleet.operator.delete(LINKS, params={"agent_id": "host-a"})).status_code == 200
    for http in (fleet.anyone, fleet.elsewhere):
        await until_refused(http, path)
    anew = (await fleet.operator.post(LINKS, json=wanted)).json()["path"]
    assert (await fleet.anyone.get(anew)).status_code == 200
    assert (await fleet.operator.delete(LINKS)).status_code == 200  # of all, by a new key
    for http in (fleet.anyone, fleet.elsewhere):
        await until_refused(http, anew)
    entries = (await fleet.client.audit(5)).entries
    actions = [entry.action for entry in entries if "link" in entry.action]
    assert actions == ["revoke-links", "make-link", "revoke-links", "make-link", "make-link"]
    secret = path.removeprefix("/badge/").removesuffix(".svg")
    assert secret not in str(entries)


async def maintained_and_labelled(fleet: Fleet) -> None:
    """The statement has the month's bookings; a label is a filter of lists and exports."""
    begin = datetime.now(UTC) + timedelta(minutes=5)
    body = {
        "agent_id": "host-a",
        "since": begin.isoformat(),
        "until": (begin + timedelta(hours=1)).isoformat(),
        "reason": "new <fans>",
    }
    assert (await fleet.operator.post("/ping-system/maintenance", json=body)).status_code == 201
    month = {"month": f"{begin:%Y-%m}"}
    if begin.month == datetime.now(UTC).month:  # not in the last minutes of a month
        report = "/ping-system/agents/host-a/report"
        stated = (await fleet.viewer.get(report, params=month)).json()
        assert [one["reason"] for one in stated["maintenance"]] == ["new <fans>"]
        printed = await fleet.viewer.get(report, params=month | {"format": "html"})
        assert "new &lt;fans&gt;" in printed.text
    label = {"label": "rack=rack-9"}
    listed = (await fleet.viewer.get("/ping-system/agents", params=label)).json()
    assert [agent["agent_id"] for agent in listed["agents"]] == ["host-a", "host-b"]
    listed = (await fleet.viewer.get("/ping-system/agents", params={"label": "rack=rack"})).json()
    assert listed["total"] == 0
    export = "/ping-system/export/agents"
    rows = (await fleet.viewer.get(export, params=label)).text.splitlines()
    assert [row.partition(",")[0] for row in rows] == ["agent_id", "host-a", "host-b"]
    await fleet.client.change_labels("host-b", LabelsRequest(labels={"rack": None}))
    rows = (await fleet.viewer.get(export, params=label)).text.splitlines()
    assert [row.partition(",")[0] for row in rows] == ["agent_id", "host-a"]
    assert (await fleet.viewer.get(export, params={"label": "rack=none"})).status_code == 404
    both = await fleet.viewer.get(export, params=label | {"agent_id": "host-a"})
    assert both.status_code == 400


async def until_refused(http: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = await http.get(path)
            if answer.status_code == 404:
                assert without_nothing(answer) == NOTHING_HERE
                return
            await asyncio.sleep(0.2)


async def host_link(fleet: Fleet) -> None:
    """A host sees itself, and nobody else."""
    wanted = {"kind": "host", "agent_id": "host-b"}
    link = (await fleet.operator.post(LINKS, json=wanted)).json()
    assert link["expires_at"] is not None  # thirty days, without any
    path = link["path"]
    await until_200(fleet.anyone, f"{path}/statement")
    view = (await fleet.anyone.get(f"{path}.json")).json()
    page = await fleet.anyone.get(path)
    statement = (await fleet.operator.get("/ping-system/agents/host-b/report")).json()
    assert view["agent_id"] == "host-b"
    assert view["conditions"]["threshold_percent"] == 99.0
    assert {ping["outcome"] for ping in view["pings"]} >= {"missed"}
    assert 0.0 <= view["own_month"]["uptime_percent"] < 100.0
    assert statement["agent_id"] == "host-b"
    for answer in (
        page,
        await fleet.anyone.get(f"{path}.json"),
        await fleet.anyone.get(f"{path}/statement"),
        await fleet.anyone.get(f"{path}/history?hours=24"),
        await fleet.anyone.get(f"{path}/history?hours=24&format=csv"),
        await fleet.anyone.get(f"{path}/statement?format=html"),
        await fleet.anyone.get(f"{path}/statement?format=bundle"),
    ):
        assert answer.status_code == 200
        assert "host-a" not in answer.text
    assert "<script" not in page.text
    assert re.findall(r'(?:href|src)="/', page.text) == []  # a proxy may have a prefix
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    slash = await fleet.anyone.get(f"{path}/")
    assert (slash.status_code, slash.headers["location"]) == (308, f"..{path[5:]}")
    for beyond in ("/../host-a", "/gpu-status", "/ping", "/statement/host-a"):
        assert (await fleet.anyone.get(path + beyond)).status_code in {401, 404}
    for wrong in ("?month=2026", "/history?hours=0", "/statement?format=exe"):
        assert (await fleet.anyone.get(path + wrong)).status_code == 400
    short = await fleet.operator.post(LINKS, json=wanted | {"valid_seconds": 1})
    assert short.status_code == 400
    assert (await fleet.operator.delete(LINKS, params={"agent_id": "host-b"})).status_code == 200
    await until_refused(fleet.anyone, path)
    await until_refused(fleet.anyone, f"{path}/statement")


async def until_200(http: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if (await http.get(path)).status_code == 200:
                return
            await asyncio.sleep(0.1)
