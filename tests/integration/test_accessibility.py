"""Every page of the dashboard as it is in every state, judged by axe, in light and dark.

Pages that need storage's own files are judged where those are: the wall, a month and the statement
in tests/acceptance/test_demo.py, the public ones in test_public_in_browser.py, the API's in
test_gateway_schema_page.py.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bus.identity import tokens
from bus.settings import Settings
from bus.transport.embedded_server import EmbeddedServer
from tests.browser import Browser, violations
from tests.gateway_behind import Behind, agent, gateway_and_behind, ping, quick

SCHEMES = ("light", "dark")
STORAGE = {"stats", "history", "series", "overview", "uptimes"}
SCHEDULER = {"fleet", "list"}


class Pages(NamedTuple):
    url: str
    behind: Behind
    browser: Browser


@pytest.fixture
async def pages(base_settings: Settings, browser: Browser) -> AsyncIterator[Pages]:
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        try:
            yield Pages(str(http.base_url), behind, browser)
        finally:
            await asyncio.to_thread(browser.open, "about:blank")
            await asyncio.to_thread(browser.emulate, 1440, 1000)


def judge(browser: Browser, name: str) -> None:
    """The page as it stands, in both schemes: it is not loaded again."""
    for scheme in SCHEMES:
        browser.emulate(1440, 1000, scheme=scheme, reduced_motion=True)
        browser.wait_for(f"return matchMedia('(prefers-color-scheme: {scheme})').matches")
        assert violations(browser) == [], f"{name}, {scheme}"


def opened(pages: Pages, address: str, part: str, text: str = "") -> None:
    pages.browser.emulate(1440, 1000, reduced_motion=True)
    pages.browser.open(f"{pages.url}/{address}")
    pages.browser.see(part, text)


async def test_an_empty_fleet(pages: Pages):
    def look() -> None:
        opened(pages, "", ".empty .new-host")
        pages.browser.see(".live", "Live")
        judge(pages.browser, "empty")
        opened(pages, "map", ".map-page p", "No agent")
        judge(pages.browser, "empty map")

    await asyncio.to_thread(look)


async def test_a_fleet_with_every_dialog_and_what_is_not_found(pages: Pages):
    await pages.behind.serve_agent("a")
    pages.behind.pings["a"] = [ping("a", 2), ping("a", 1, "missed")]
    pages.behind.agents["a"] = agent("a", status="healthy")
    pages.behind.agents["b"] = agent("b", status="missing", last_reason="timeout")
    browser = pages.browser

    def look() -> None:
        opened(pages, "#/", "[data-agent=b]")
        browser.see(".help-button").click()
        browser.see("#keys[open]")
        judge(browser, "keyboard shortcuts")
        browser.script("document.querySelector('#keys').close()")
        browser.see(".add-host").click()
        browser.see("#add-host[open]")
        judge(browser, "add a host")
        opened(pages, "#/?q=nothing-is-called-this", ".no-rows button")
        judge(browser, "nothing found")
        opened(pages, "#/agent/nobody", ".detail .problem")
        judge(browser, "no such agent")
        opened(pages, "#/wall", ".wall-canvas canvas")
        judge(browser, "wall")
        opened(pages, "map?by=site", "canvas")
        judge(browser, "map")

    await asyncio.to_thread(look)


@pytest.mark.slow
async def test_parts_that_are_away(pages: Pages, nats_server: EmbeddedServer):
    pages.behind.agents["a"] = agent("a", status="healthy")
    pages.behind.pings["a"] = [ping("a", 1)]
    browser = pages.browser

    def look_at(address: str, name: str) -> None:
        opened(pages, address, ".live", name)
        judge(browser, f"{name}, {address or 'agents'}")

    def look_without_storage_and_scheduler() -> None:
        pages.behind.silent |= STORAGE
        look_at("#/agent/a", "Storage away")
        browser.see(".detail .problem", "could not be read", seconds=60)
        judge(browser, "panel without storage")
        pages.behind.silent -= STORAGE
        look_at("#/", "Live")
        pages.behind.silent |= SCHEDULER
        browser.see(".live", "Scheduler away")
        judge(browser, "scheduler away")
        opened(pages, "#/", ".trouble")
        judge(browser, "opened without a scheduler")

    def look_without_bus() -> None:
        browser.see(".live", "Bus away", seconds=60)
        judge(browser, "bus away")

    await asyncio.to_thread(look_without_storage_and_scheduler)
    pages.behind.silent.clear()
    await asyncio.to_thread(look_at, "#/", "Live")
    await nats_server.stop()
    await asyncio.to_thread(look_without_bus)


async def test_signing_in(base_settings: Settings, browser: Browser, tmp_path: Path):
    _secret, token = tokens.create("viewer-1", "viewer")
    tokens_file = tmp_path / "tokens.toml"
    tokens_file.write_text(tokens.as_toml(token))
    chosen = quick(base_settings, GPUPING_TOKENS_FILE=str(tokens_file))
    async with gateway_and_behind(chosen, scheduler=False, storage=False) as (http, behind):
        pages = Pages(str(http.base_url), behind, browser)

        def look() -> None:
            opened(pages, "", ".login input")
            judge(browser, "sign in")
            browser.see(".login input").send_keys("wrong", "\n")
            browser.see(".login .problem", "not known")
            judge(browser, "refused")

        await asyncio.to_thread(look)
