"""Pages without a login, and maintenance in the panel, in a real browser on a whole system."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from bus import settings
from bus.identity import tokens
from bus.transport.embedded_server import EmbeddedServer
from gpuping.up import system
from tests.browser import Browser, origins, violations

AGENT = "sim-001"
SCROLLS_SIDEWAYS = "return document.documentElement.scrollWidth > innerWidth"
SIGN_IN = """
return await fetch("login", { method: "POST", headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ token: "%s" }) }).then(({ status }) => status);
"""
# A form's own event, as typing and a click on its button make it.
BOOK = """
const form = document.querySelector(".book-form");
form.reason.value = "new <fans>";
form.requestSubmit();
"""


class Whole(NamedTuple):
    url: str
    operator: httpx.AsyncClient
    secrets: dict[str, str]


@pytest.fixture
async def whole(nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Whole]:
    """A system with two simulated agents, a status page, and tokens of an operator and a viewer."""
    secrets = {}
    text = ""
    for role in ("operator", "viewer"):
        secrets[role], token = tokens.create(f"{role}-1", role)  # type: ignore[arg-type]
        text += tokens.as_toml(token)
    tokens_file = tmp_path / "tokens.toml"
    tokens_file.write_text(text)
    chosen = settings.load(
        {},
        NATS_URL=nats_server.url,
        GPUPING_DATA_DIR=str(tmp_path / "data"),
        GPUPING_TOKENS_FILE=str(tokens_file),
        GATEWAY_PORT=0,
        PING_BASE_INTERVAL_MINUTES=0.1,
    )
    options = system.Options(local_agent=False, test_agents=2)
    headers = {"Authorization": f"Bearer {secrets['operator']}"}
    async with (
        system.running(chosen, options) as running,
        httpx.AsyncClient(base_url=running.gateway_url, headers=headers, timeout=20) as operator,
    ):
        yield Whole(running.gateway_url, operator, secrets)


def look_at(browser: Browser, url: str, widths: tuple[int, ...]) -> None:
    """No violation of axe, no script, nothing from elsewhere, and no scrolling sideways."""
    for width, scheme in zip(widths, ("light", "dark") * len(widths), strict=False):
        browser.emulate(width, 900, scheme=scheme, reduced_motion=True)
        browser.open(url)
        browser.see(".now strong")
        assert browser.all("script") == []
        assert browser.script(SCROLLS_SIDEWAYS) is False, (url, width)
        assert len(origins(browser.addresses())) == 1
        assert browser.console_errors() == []
        assert violations(browser) == [], (url, width, scheme)
    browser.emulate(1440, 1000)


def sign_in(browser: Browser, whole: Whole, role: str) -> None:
    browser.open(whole.url)
    assert browser.script(SIGN_IN % whole.secrets[role]) == 204
    browser.open(f"{whole.url}/#/agent/{AGENT}")
    browser.see("#detail-title", AGENT)
    browser.see(".facts")


def books_and_cancels(browser: Browser, whole: Whole) -> None:
    sign_in(browser, whole, "operator")
    browser.see(".maintenance .book", "Book").click()
    browser.see(".book-form input[name=until]")
    assert violations(browser) == []
    browser.script(BOOK)
    browser.see(".booking", "new <fans>")
    browser.see(".booking", "begins in")
    sign_in(browser, whole, "viewer")
    browser.see(".booking", "new <fans>")
    assert browser.all(".maintenance button") == []
    sign_in(browser, whole, "operator")
    browser.see(".booking button", "Cancel").click()
    browser.see(".booking button", "Cancel it").click()
    browser.gone(".booking:not(.is-over)")
    assert violations(browser) == []


async def until_added(http: httpx.AsyncClient, page: dict) -> None:
    """The agents register in their own time."""
    async with asyncio.timeout(60):
        while True:
            answer = await http.post("/ping-system/status-pages", json=page)
            if answer.status_code == 201:
                return
            await asyncio.sleep(0.1)


async def test_what_everybody_sees_and_what_operators_do(whole: Whole, browser: Browser):
    page = {"name": "fleet", "title": "Our GPU fleet", "agents": ["sim-001", "sim-002"]}
    await until_added(whole.operator, page)
    wanted = {"kind": "host", "agent_id": AGENT}
    link = (await whole.operator.post("/ping-system/links", json=wanted)).json()
    await asyncio.to_thread(books_and_cancels, browser, whole)
    await asyncio.to_thread(look_at, browser, f"{whole.url}/status/fleet", (320, 1440))
    await asyncio.to_thread(look_at, browser, f"{whole.url}{link['path']}", (1100, 390))
    await _check_simulated(whole, link["path"])


async def _check_simulated(whole: Whole, host_path: str) -> None:
    """GPUs that do not exist are never shown as if they did."""
    page = await whole.operator.get("/status/fleet")
    assert page.text.count("simulated GPUs") == 2
    shown = (await whole.operator.get("/status/fleet.json")).json()
    assert [host["simulated"] for host in shown["hosts"]] == [True, True]
    assert "simulated GPUs" in (await whole.operator.get(host_path)).text
    assert (await whole.operator.get(f"{host_path}.json")).json()["simulated"] is True
