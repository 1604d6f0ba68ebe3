"""What the page says is what REST says: of every visible row, under filter, search and outage."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.system import Program, Up, until
from tests.browser import Browser, chromium
from tests.integration.test_dashboard_page import free_port, is_ready

AGENTS = 130  # more than the dashboard's answer lists
QUICK = {
    "PING_BASE_INTERVAL_MINUTES": "0.2",
    "PING_RESPONSE_TIMEOUT_SECONDS": "5",
    "AGENT_GPU_CHECK_INTERVAL_SECONDS": "5",
}
AUDIT_SECONDS = 30.0
ROWS = """
return [...document.querySelectorAll("[data-agent]")].map((row) => ({
  agent_id: row.dataset.agent,
  status: row.dataset.status,
  pings: Number(row.querySelector(".beats")?.dataset.newest ?? 0),
  late: row.querySelector(".is-late") != null,
  seen: row.getBoundingClientRect().top < innerHeight && row.getBoundingClientRect().bottom > 0,
}));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    system = Up(
        tmp_path_factory.mktemp("data"), "--no-agent", "--register-agents", str(AGENTS), **QUICK
    )
    try:
        system.ready()
        until(lambda: system.get("/ping-system/dashboard")["totals"]["agents"] == AGENTS, "agents")
        yield system
    finally:
        system.stop(seconds=30)


def rows(page: Browser) -> list[dict[str, Any]]:
    found = page.script(ROWS)
    assert isinstance(found, list)
    return found


def listed(up: Up, **query: object) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{up.url}/ping-system/agents", params=dict(query), timeout=10)
    assert answer.is_success, answer.text
    return {agent["agent_id"]: agent for agent in answer.json()["agents"]}


def audit(page: Browser, up: Up, **query: object) -> set[str]:
    """Waits until every row says what REST says; returns their ids.

    A row may lag behind REST by the moment that an event takes. The outcomes of a row are read once
    it is on the screen.
    """
    deadline = time.monotonic() + AUDIT_SECONDS
    while True:
        shown = rows(page)
        truth = listed(up, **query)
        wrong = []
        for row in shown:
            agent = truth.get(row["agent_id"])
            if agent is None:
                wrong.append((row["agent_id"], "is not in the answer"))
            elif row["late"]:
                wrong.append((row["agent_id"], "is said to be late"))
            elif row["status"] != agent["status"]:
                wrong.append((row["agent_id"], row["status"], agent["status"]))
            elif row["seen"] and row["pings"] != agent["total_pings"]:
                wrong.append((row["agent_id"], row["pings"], agent["total_pings"]))
        if shown and not wrong:
            return {row["agent_id"] for row in shown}
        assert time.monotonic() < deadline, wrong[:5] or "no rows"
        time.sleep(0.1)


def seen_pings(up: Up, agent_id: str) -> int:
    return int(up.get(f"/ping-system/agents/{agent_id}")["total_pings"])


def test_rows_that_a_search_found_stay_alive(up: Up, browser: Browser) -> None:
    browser.open(f"{up.url}/#/?q=IM-12")  # any case, any part of the id
    browser.see("[data-agent=sim-129]")
    browser.see("h2 [role=status]", "10 found, of 130")
    assert audit(browser, up, search="im-12") == {f"sim-{n}" for n in range(120, 130)}
    before = seen_pings(up, "sim-129")
    until(lambda: seen_pings(up, "sim-129") >= before + 2, "two more pings", 90)
    audit(browser, up, search="im-12")


def test_a_filter_shows_all_that_it_counts(up: Up, browser: Browser) -> None:
    browser.open(f"{up.url}/#/?status=healthy")
    browser.see("h2 [role=status]", "found, of 130")
    until(lambda: len(listed(up, status="healthy")) == AGENTS, "all healthy", 60)
    while browser.all(".more button"):
        shown = len(rows(browser))
        browser.see(".more button", "Show more").click()
        browser.wait_for(f"return document.querySelectorAll('[data-agent]').length > {shown}")
    browser.see("h2 [role=status]", "130 found, of 130")
    assert len(audit(browser, up, status="healthy")) == AGENTS


def test_no_answer_is_not_shown_as_none(up: Up, browser: Browser) -> None:
    browser.open(up.url)
    browser.see("[data-agent]")
    browser.script("""
        window.flashes = 0;
        new MutationObserver(() => {
          if (document.querySelector(".no-rows button")) window.flashes += 1;
        }).observe(document.body, { childList: true, subtree: true });
    """)
    field = browser.see(".search input")
    for letter in "sim-13":
        field.send_keys(letter)
        time.sleep(0.05)  # as a person types
    browser.see("h2 [role=status]", "1 found")
    assert rows(browser)[0]["agent_id"] == "sim-130"
    assert browser.script("return window.flashes") == 0
    field.send_keys("-nobody")
    browser.see(".no-rows", "No agent")


def test_a_link_to_a_host_keeps_the_filter(up: Up, browser: Browser) -> None:
    browser.open(f"{up.url}/#/")
    browser.see("[data-agent]")
    browser.see("[data-status=healthy].tile").click()
    link = browser.see("[data-agent=sim-002] .cell-id a")
    until(lambda: "status=healthy" in str(link.get_attribute("href")), "the filter in the link", 10)
    link.click()
    browser.see(".detail h1", "sim-002")
    assert "status=healthy" in browser.driver.current_url
    assert browser.see("[data-status=healthy].tile").get_attribute("aria-pressed") == "true"


def test_a_page_that_hears_nothing_says_so(up: Up, browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {"NATS_URL": up.nats_url, "NATS_CREDS": str(up.users / "gateway.creds")} | QUICK
    gateway = Program("gateway", "--port", str(port), "--data-dir", str(tmp_path), **variables)
    try:
        until(lambda: is_ready(f"{url}/readyz"), "the gateway")
        browser.open(url)
        browser.see(".live", "Live")
        gateway.process.send_signal(signal.SIGSTOP)  # the stream stays open, and nothing comes
        stale = browser.see(".live", "Stale", seconds=40).text
        assert re.fullmatch(r"Stale 0:[1-9]\d", stale)
        gateway.process.send_signal(signal.SIGCONT)
        browser.see(".live", "Live", seconds=40)
        audit(browser, up)
    finally:
        gateway.kill()


def test_the_gpus_of_the_fleet_are_those_of_rest(up: Up, browser: Browser) -> None:
    browser.open(up.url)
    browser.see("[data-name=gpus-up]")
    gpus = up.get("/ping-system/dashboard")["gpus"]
    assert gpus["total"] == 2 * AGENTS
    assert browser.text("[data-name=gpus-up]") == f"{gpus['up']} of {gpus['total']}"
