"""What the page says is what REST says: of every visible row, under filter, search and outage."""

import asyncio
import math
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bus.settings import Settings
from bus.transport.embedded_server import EmbeddedServer
from tests.acceptance.system import Program, Up, until
from tests.browser import Browser
from tests.integration.test_dashboard_page import is_ready
from tests.ports import free_port

AGENTS = 130  # more than the dashboard's answer lists
QUICK = {
    "PING_BASE_INTERVAL_MINUTES": "0.2",
    "PING_RESPONSE_TIMEOUT_SECONDS": "5",
    "AGENT_GPU_CHECK_INTERVAL_SECONDS": "5",
}
AUDIT_SECONDS = 45.0
ROWS = """
const said = (row, column) => {
  const cell = row.querySelector(`.cell-${column}`);
  const text = cell.querySelector(".early")?.firstChild?.textContent ?? cell.textContent;
  return text.replaceAll("\\u00a0", " ").trim();
};
return [...document.querySelectorAll("[data-agent]")].map((row) => ({
  agent_id: row.dataset.agent,
  status: row.dataset.status,
  uptime: said(row, "uptime"),
  interval: said(row, "interval").replace(/ *escalation level.*/, ""),
  response: said(row, "response"),
  pings: Number(row.querySelector(".beats")?.dataset.newest ?? 0),
  late: row.querySelector(".is-late") != null,
  seen: row.getBoundingClientRect().top < innerHeight && row.getBoundingClientRect().bottom > 0,
}));
"""


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
        system.stop()


def rows(page: Browser) -> list[dict[str, Any]]:
    found = page.script(ROWS)
    assert isinstance(found, list)
    return found


def listed(up: Up, **query: object) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{up.url}/ping-system/agents", params=dict(query), timeout=30)
    assert answer.is_success, answer.text
    return {agent["agent_id"]: agent for agent in answer.json()["agents"]}


def figures(agent: dict[str, Any]) -> dict[str, str]:
    """The columns of a row, as they have to be said of what REST answers."""
    return {
        "uptime": percent(agent["uptime_24h_percent"]),
        "interval": duration(agent["current_interval_minutes"] * 60),
        "response": milliseconds(agent["last_response_ms"]),
    }


def percent(value: float | None) -> str:
    """Cut, never rounded up; with three decimals above 99."""
    if value is None:
        return "\N{EN DASH}"
    if value >= 100:
        return "100%"
    places = 3 if value >= 99 else 1 if value >= 10 else 2
    return f"{math.floor(value * 10**places + 1e-9) / 10**places:.{places}f}%"


def duration(seconds: float) -> str:
    """Two units at most, such as `1 min 12 s`."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    parts = [f"{minutes} min" if minutes else "", f"{rest} s" if rest else ""]
    return " ".join(filter(None, parts))


def milliseconds(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1000:
        return f"{math.floor(value + 0.5)} ms"
    return f"{value / 1000:.2f} s"


def audit(page: Browser, up: Up, **query: object) -> set[str]:
    """Waits until every row has said in all columns what REST said then; returns their ids.

    A row may lag behind REST by the moment that an event takes, and its uptime by the time between
    two answers of the dashboard. The outcomes of a row are read once it is on the screen.
    """
    deadline = time.monotonic() + AUDIT_SECONDS
    right: set[str] = set()
    while True:
        before = listed(up, **query)
        shown = rows(page)
        truth = listed(up, **query)
        wrong = []
        for row in shown:
            agent_id = row["agent_id"]
            found = [answer[agent_id] for answer in (before, truth) if agent_id in answer]
            if not found:
                wrong.append((agent_id, "is not in the answer"))
            elif row["late"]:
                wrong.append((agent_id, "is said to be late"))
            elif row["status"] not in {agent["status"] for agent in found}:
                wrong.append((agent_id, row["status"], found[-1]["status"]))
            elif row["seen"] and row["pings"] not in {agent["total_pings"] for agent in found}:
                wrong.append((agent_id, row["pings"], found[-1]["total_pings"]))
            elif agent_id not in right:
                differing = [
                    figures(agent) for agent in found if not figures(agent).items() <= row.items()
                ]
                if len(differing) < len(found):
                    right.add(agent_id)
                else:
                    said = {column: row[column] for column in differing[-1]}
                    wrong.append((agent_id, said, differing[-1]))
        if shown and not wrong:
            return {row["agent_id"] for row in shown}
        assert time.monotonic() < deadline, wrong[:5] or "no rows"
        time.sleep(0.3)


def seen_pings(up: Up, agent_id: str) -> int:
    return int(up.get(f"/ping-system/agents/{agent_id}")["total_pings"])


def test_rows_that_a_search_found_stay_alive(up: Up, browser: Browser) -> None:
    browser.open(f"{up.url}/#/?q=IM-12")  # any case, any part of the id
    browser.see("[data-agent=sim-129]")
    browser.see("h2 [role=status]", "10 found, of 130")
    assert audit(browser, up, search="im-12") == {f"sim-{n}" for n in range(120, 130)}
    before = seen_pings(up, "sim-129")
    until(lambda: seen_pings(up, "sim-129") > before, "another ping")
    audit(browser, up, search="im-12")


def test_a_filter_shows_all_that_it_counts(up: Up, browser: Browser) -> None:
    browser.open(f"{up.url}/#/?status=healthy")
    browser.see("h2 [role=status]", "found, of 130")
    until(lambda: len(listed(up, status="healthy")) == AGENTS, "all healthy")
    browser.see("h2 [role=status]", "130 found, of 130")
    first = audit(browser, up, status="healthy")
    assert "sim-001" in first
    assert len(first) < AGENTS / 2  # only rows near the screen are elements
    browser.script("scrollTo(0, document.documentElement.scrollHeight)")
    browser.wait_for(f"return document.querySelector('[data-agent=sim-{AGENTS}]')")
    assert f"sim-{AGENTS}" in audit(browser, up, status="healthy")


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
    until(lambda: "status=healthy" in str(link.get_attribute("href")), "the filter in the link")
    link.click()
    browser.see(".detail h1", "sim-002")
    assert "status=healthy" in browser.driver.current_url
    assert browser.see("[data-status=healthy].tile").get_attribute("aria-pressed") == "true"


@pytest.mark.slow
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


@pytest.mark.slow
async def test_the_badge_names_the_part_that_was_ended(
    base_settings: Settings,
    nats_server: EmbeddedServer,
    browser: Browser,
    tmp_path: Path,
) -> None:
    """Real services, each ended and started again while the page is open."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    data = ("--data-dir", str(tmp_path))
    variables = {"NATS_URL": base_settings.nats_url} | QUICK
    commands: dict[str, tuple[str, ...]] = {
        "scheduler": ("scheduler", *data),
        "storage": ("storage", *data),
        "gateway": ("gateway", *data, "--port", str(port)),
    }
    running = {name: Program(*command, **variables) for name, command in commands.items()}

    def is_live() -> None:
        until(lambda: is_ready(f"{url}/readyz"), "every part")
        browser.see(".live", "Live", seconds=60)
        browser.gone(".trouble")

    def look() -> None:
        until(lambda: is_ready(f"{url}/readyz"), "every part")
        browser.open(url)
        for name in ("storage", "scheduler"):
            is_live()
            running[name].kill()
            browser.see(".live", f"{name.capitalize()} away", seconds=60)
            browser.see(".trouble", f"{name.capitalize()} cannot work", seconds=60)
            running[name] = Program(*commands[name], **variables)
        is_live()

    try:
        await asyncio.to_thread(look)
        await nats_server.stop()
        await asyncio.to_thread(lambda: browser.see(".live", "Bus away", seconds=60))
        await nats_server.start()
        await asyncio.to_thread(is_live)
    finally:
        for program in running.values():
            program.kill()


def test_the_gpus_of_the_fleet_are_those_of_rest(up: Up, browser: Browser) -> None:
    browser.open(up.url)
    browser.see("[data-name=gpus-up]")

    def is_said() -> bool:
        gpus = up.get("/ping-system/dashboard")["gpus"]
        assert gpus["total"] == 2 * AGENTS
        return browser.text("[data-name=gpus-up]") == f"{gpus['up']} of {gpus['total']}"

    until(is_said, "the GPUs that REST counts")
    browser.open(f"{up.url}/map")

    def is_said_on_the_map() -> bool:
        gpus = up.get("/ping-system/dashboard")["gpus"]
        return browser.text(".counts strong") == f"{gpus['up']} of {gpus['total']}"

    until(is_said_on_the_map, "the map counts them alike")


def test_a_label_finds_its_hosts_and_a_chip_takes_it_away(up: Up, browser: Browser) -> None:
    """An operator sets the label, the scheduler searches, and the URL keeps all of it."""
    for agent_id in ("sim-117", "sim-118"):
        labels = {"site": "FRA", "owner": "acme" if agent_id == "sim-118" else "zeta"}
        path = f"/ping-system/agents/{agent_id}/labels"
        changed = httpx.patch(f"{up.url}{path}", json={"labels": labels}, timeout=30)
        assert changed.is_success, changed.text
    browser.open(f"{up.url}/#/?status=healthy&q=site:fra")
    browser.see("h2 [role=status]", "2 found, of 130")
    assert audit(browser, up, search="site:fra", status="healthy") == {"sim-117", "sim-118"}
    browser.see("[data-agent=sim-118] .cell-status").click()
    browser.see(".labels a", "acme").click()
    browser.see("h2 [role=status]", "1 found, of 130")
    browser.gone(".detail")
    address = str(browser.script("return decodeURIComponent(location.hash)"))
    assert address == "#/?status=healthy&q=site:fra+owner:acme"
    browser.open(f"{up.url}/{address}")
    browser.see("[data-agent=sim-118]")
    assert [chip.text for chip in browser.all(".chips .filter")] == [
        "Healthy",
        "site:fra",
        "owner:acme",
    ]
    browser.see("[data-filter='site:fra']").click()
    browser.see("[data-filter='status:healthy']").click()
    browser.see("h2 [role=status]", "1 found, of 130")
    browser.driver.find_element(
        "xpath", "//button[contains(@class, 'sort')][starts-with(., 'Interval')]"
    ).click()
    browser.see("[data-filter='owner:acme']").click()
    browser.gone(".chips")
    browser.see("h2 [role=status]", "130")
    assert "sort=interval" in browser.driver.current_url
    shown = [row["agent_id"] for row in rows(browser)]
    assert shown == list(listed(up, order="interval", limit=len(shown)))
