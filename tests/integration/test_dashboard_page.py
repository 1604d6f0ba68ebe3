"""The dashboard in a real browser on a real system: live pings, filters, details, privacy."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from tests.acceptance.system import Program, Up, until
from tests.browser import Browser, origins
from tests.ports import free_port

AGENT = "dash-001"
GHOST = "ghost-001"  # registered, but nobody answers for it
READABLE = Path(__file__).parents[1] / "web/readable.js"
QUICK = {
    "PING_BASE_INTERVAL_MINUTES": "0.06",
    "PING_RESPONSE_TIMEOUT_SECONDS": "3",
    "AGENT_GPU_CHECK_INTERVAL_SECONDS": "0.5",
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A system without agents."""
    system = Up(tmp_path_factory.mktemp("data"), "--no-agent", **QUICK)
    try:
        yield system.ready()
    finally:
        system.stop()


@pytest.fixture(scope="module")
def watched(
    up: Up, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """The page, opened before there is any agent, and never loaded again while the agent comes."""
    browser.open(up.url)
    browser.see("h1", "Nobody to ping yet")
    browser.see("[data-name=bus]", up.nats_url)
    browser.see(".new-host button", "Make the command")
    browser.script("window.wasNeverLoadedAgain = true")
    state = str(tmp_path_factory.mktemp("agentd"))
    agent = Program(
        "agentd",
        AGENT_ID=AGENT,
        AGENT_STATE_DIR=state,
        AGENT_SCENARIO="healthy",
        NATS_URL=up.nats_url,
        NATS_CREDS=up.credentials_of(AGENT),
        **QUICK,
    )
    try:
        browser.see(f"[data-agent={AGENT}]")
        yield browser
    finally:
        agent.stop()


def newest_beat(page: Browser) -> int:
    return int(
        str(
            page.script(
                f"return document.querySelector('[data-agent={AGENT}] .beats')?.dataset.newest ?? 0"
            )
        )
    )


def until_beat(page: Browser, number: int) -> None:
    page.see(f"[data-agent={AGENT}] .cell-next")
    deadline = time.monotonic() + 60
    while newest_beat(page) < number:
        assert time.monotonic() < deadline, (
            f"outcome {number} did not show up; the page says:\n{page.text('body')}"
        )
        time.sleep(0.05)


def test_the_first_ping_and_the_next_show_up_live(watched: Browser) -> None:
    until_beat(watched, 1)
    watched.see(f"[data-agent={AGENT}] .beat-first")
    watched.see(".feed", "first ping")
    until_beat(watched, 2)
    watched.see(f"[data-agent={AGENT}] .chip", "Healthy")
    watched.see(f"[data-agent={AGENT}] .beat-good")
    watched.see(
        "[data-name=uptime]", "100%"
    )  # the fleet's, asked for again a moment after the event
    assert watched.script("return window.wasNeverLoadedAgain") is True
    assert watched.text(".live") == "Live"
    assert watched.console_errors() == []


def test_the_countdown_ticks(watched: Browser) -> None:
    until_beat(watched, 1)
    selector = f"[data-agent={AGENT}] .cell-next .countdown"
    seen: list[str] = []
    deadline = time.monotonic() + 60
    while len(falling(seen)) < 3 and time.monotonic() < deadline:
        shown = watched.text(selector).splitlines()[0]
        if shown[:1].isdigit() and shown not in seen[-1:]:
            seen.append(shown)
        time.sleep(0.05)
    assert len(falling(seen)) >= 3, seen


def falling(seen: list[str]) -> list[int]:
    """The longest run at the end of the list that counts down by single seconds."""
    values = [
        int(minutes) * 60 + int(seconds)
        for minutes, _, seconds in (text.partition(":") for text in seen)
    ]
    run: list[int] = []
    for value in values:
        run = [*run, value] if run and value == run[-1] - 1 else [value]
    return run


@pytest.fixture(scope="module")
def two(watched: Browser, up: Up) -> Browser:
    """A second agent, registered over REST, shows up without a reload."""
    httpx.post(f"{up.url}/ping-system/agents/register", json={"agent_id": GHOST}).raise_for_status()
    watched.see(f"[data-agent={GHOST}][data-status=pending]")
    return watched


def listed(page: Browser) -> list[str]:
    return [str(row.get_attribute("data-agent")) for row in page.all("[data-agent]")]


def test_a_press_on_a_status_filters_the_table(two: Browser) -> None:
    until_beat(two, 1)
    assert two.see("[data-status=pending].tile").text.startswith("1")
    two.see("[data-status=pending].tile").click()
    two.gone(f"[data-agent={AGENT}]")
    assert listed(two) == [GHOST]
    assert two.see("[data-status=pending].tile").get_attribute("aria-pressed") == "true"
    assert "status=pending" in two.driver.current_url
    two.see("[data-status=pending].tile").click()
    two.see(f"[data-agent={AGENT}]")


def test_search_and_sort(two: Browser) -> None:
    field = two.see(".search input")
    field.send_keys("ghost")
    two.gone(f"[data-agent={AGENT}]")
    field.send_keys("-nobody")
    two.see(".no-rows", "No agent")
    field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    two.see(f"[data-agent={AGENT}]")
    two.driver.find_element(
        "xpath", "//button[contains(@class, 'sort')][starts-with(., 'Agent')]"
    ).click()
    two.see("[aria-sort=ascending]", "Agent")
    assert listed(two) == [AGENT, GHOST]
    two.see("[aria-sort=ascending] button").click()
    two.see("[aria-sort=descending]", "Agent")
    assert listed(two) == [GHOST, AGENT]
    two.driver.find_element(
        "xpath", "//button[contains(@class, 'sort')][starts-with(., 'Status')]"
    ).click()


def test_one_agent_in_detail_and_pinged_by_hand(two: Browser) -> None:
    until_beat(two, 2)
    two.see(f"[data-agent={AGENT}] .cell-status").click()
    two.see(".detail h1", AGENT)
    two.see(".gpus .chip", "up")
    two.see(".outcomes td", "good")
    two.see(".detail .plot canvas")
    two.see(".copyable code", f"nats req gpuping.ping.{AGENT} ''")
    before = newest_beat(two)
    two.see(".pingnow button", "Ping now").click()
    result = two.see(".pingnow p", "Ping #").text
    assert "good" in result
    number = int(result.partition("#")[2].partition(":")[0])
    assert number >= before  # within a second of the last outcome it is that outcome that is told
    until_beat(two, number)
    two.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    two.gone(".detail")
    assert two.console_errors() == []


def test_a_missed_manual_ping_is_shown_as_a_sentence(two: Browser) -> None:
    two.see(f"[data-agent={GHOST}] .cell-id a").send_keys(Keys.ENTER)
    two.see(".detail h1", GHOST)
    two.see(".pingnow button", "Ping now").click()
    two.see(".pingnow .problem", f"Agent {GHOST} did not answer")
    two.see(f"[data-agent={GHOST}] .beat-missed")
    two.see(".detail .close").click()
    two.gone(".detail")
    assert all(
        " 504 " in error for error in two.console_errors()
    )  # the browser tells of each refused request


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_makes_no_outside_request(
    two: Browser, up: Up, scheme: str
) -> None:
    two.emulate(360, 740, scheme=scheme, reduced_motion=True)
    try:
        two.open(up.url)
        until_beat(two, 1)
        assert scrolls_sideways(two, "html") is False
        two.open(f"{up.url}/#/agent/{AGENT}")
        two.see(".detail .plot canvas")
        two.see(".outcomes td", "good")
        assert scrolls_sideways(two, ".detail") is False
        asked = two.addresses()
        assert two.console_errors() == []
    finally:
        two.emulate(1440, 1000)
    assert origins(asked) == {up.url}
    assert f"{up.url}/ping-system/dashboard?beats=30" in asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_and_every_control_a_name(
    two: Browser, up: Up, scheme: str
) -> None:
    two.emulate(1440, 1000, scheme=scheme, reduced_motion=True)
    two.open(f"{up.url}/#/agent/{AGENT}")
    two.see(".outcomes td", "good")
    two.see(".gpus .chip", "up")
    assert two.script(READABLE.read_text()) == {"faint": {}, "nameless": []}


@pytest.mark.slow
def test_the_schema_page_makes_no_outside_request(two: Browser, up: Up) -> None:
    two.open(f"{up.url}/schema")
    two.see(".swagger-ui", "Register an agent")
    assert origins(two.addresses()) == {up.url}
    assert two.console_errors() == []


def test_hidden_pages_hold_no_connection(two: Browser, up: Up) -> None:
    for _ in range(8):  # a browser keeps six connections to one address
        two.open(up.url)
        two.see(".live", "Live")


def scrolls_sideways(page: Browser, selector: str) -> bool:
    widths = (
        f"const it = document.querySelector('{selector}'); return it.scrollWidth > it.clientWidth"
    )
    return bool(page.script(widths))


def test_a_gateway_with_tokens_asks_for_one(two: Browser, up: Up, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    made = Program("token", "viewer", "--role", "viewer", "--file", str(tokens))
    secret = made.printed(r"gpuping_[\w-]{20,}")[0]
    assert made.process.wait(60) == 0
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    gateway = gateway_with(up, tokens, port)
    try:
        two.open(url)
        two.see(".login input").send_keys("gpuping_wrong", Keys.ENTER)
        two.see(".login .problem", "That token is not known here.")
        field = two.see(".login input")
        field.clear()
        field.send_keys(secret, Keys.ENTER)
        two.see(f"[data-agent={AGENT}]")
        two.see(".live", "Live")
        two.see(f"[data-agent={AGENT}] .cell-status").click()
        two.see(".detail .facts", "connected")
        # a viewer sees no button that refuses
        assert two.all(".pingnow, .add-host") == []
        two.see(".detail .close").click()
        two.gone(".detail")
        gateway.kill()
        two.see(".live", "Reconnecting")
        two.see(".trouble", "The gateway does not answer")
        gateway = gateway_with(up, tokens, port)
        two.see(".live", "Live")
        two.gone(".trouble")
        seen = newest_beat(two)
        until_beat(two, seen + 1)
    finally:
        gateway.kill()


def gateway_with(up: Up, tokens: Path, port: int) -> Program:
    """Answers when this returns."""
    variables = {
        "NATS_URL": up.nats_url,
        "NATS_CREDS": str(up.users / "gateway.creds"),
        "GPUPING_TOKENS_FILE": str(tokens),
    } | QUICK
    gateway = Program("gateway", "--port", str(port), **variables)
    until(lambda: is_ready(f"http://127.0.0.1:{port}/readyz"), f"the gateway on port {port}")
    return gateway


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
