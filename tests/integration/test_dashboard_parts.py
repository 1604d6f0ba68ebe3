"""The dashboard in a real browser, on a gateway whose services answer what the test says."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from bus.contract.messages import Status
from bus.contract.questions import GpuSummary, LiveEvent, Trouble
from bus.settings import Settings
from tests.acceptance.system import until
from tests.browser import Browser, violations
from tests.gateway_behind import NOW, Behind, agent, gateway_and_behind, ping, quick

# the dashboard's answer with something that the gateway would never let pass
WITH_ANSWER_CHANGED = """
const ask = window.fetch;
window.fetch = async (...request) => {
  const response = await ask(...request);
  if (!String(request[0]).startsWith("ping-system/dashboard")) return response;
  const answer = await response.json();
  %s
  return new Response(JSON.stringify(answer));
};
"""
BREAK_AGENT_A = """
const broken = answer.agents.find((agent) => agent.agent_id === "a");
broken.gpus = [{ uuid: 5, name: null, state: "up" }];
"""
BREAK_SUMMARY = "answer.longer = 5;"


STREAMS = "gpuping_gateway_event_streams"


class Page(NamedTuple):
    url: str
    behind: Behind
    browser: Browser


@pytest.fixture
async def page(base_settings: Settings, browser: Browser) -> AsyncIterator[Page]:
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        behind.agents["a"] = agent("a", status="healthy")
        behind.agents["b"] = agent("b", status="healthy")
        try:
            yield Page(str(http.base_url), behind, browser)
        finally:
            await asyncio.to_thread(browser.open, "about:blank")


async def in_browser(look: Callable[[], object]) -> None:
    await asyncio.to_thread(look)


async def test_the_readings_of_a_gpu_are_shown(page: Page):
    await page.behind.serve_agent("a")

    def look() -> None:
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see(".gpus .readings", "41 °C")

    await in_browser(look)


async def test_a_gpu_that_cannot_be_opened_is_shown_by_its_place(page: Page):
    """The agent itself names only the GPU that it reads."""
    seen = GpuSummary(uuid="GPU-a", index=0, name="NVIDIA H100", state="up")
    unopened = GpuSummary(
        uuid="unopened:0000:5e:00.0",
        index=1,
        name="not opened, 0000:5e:00.0",
        state="down",
        reasons=("lost",),
        expected=False,
    )
    page.behind.agents["a"] = agent("a", status="healthy", gpus=(seen, unopened))
    await page.behind.serve_agent("a")

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see("[data-agent=a]", "1 of 2 \N{MULTIPLICATION SIGN} H100")
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see(".gpus .readings", "41 °C")
        page.browser.see(".gpus", "not opened, 0000:5e:00.0")
        page.browser.see(".gpus", "lost: no longer on the bus")

    await in_browser(look)


async def test_a_host_that_simulates_is_marked_also_while_it_cannot_be_asked(page: Page):
    seen = GpuSummary(uuid="GPU-a", index=0, name="NVIDIA H100", state="up")
    page.behind.agents["a"] = agent("a", status="missing", gpus=(seen,), simulated=True)

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see("[data-agent=a]", "H100, simulated")
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see("[aria-label=GPUs] .note", "No readings just now")
        page.browser.see("[aria-label=GPUs] h2", "1, simulated")

    await in_browser(look)


async def test_two_agents_under_one_id_are_flagged_in_the_row_and_the_panel(page: Page):
    twins = {"conflicting_sessions": ("s1", "s2")}
    page.behind.agents["a"] = agent("a", status="healthy", **twins)
    await page.behind.serve_agent("a")

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see("[data-agent=a] .conflict-line", "two agents answer in turn under this id")
        assert page.browser.all("[data-agent=b] .conflict-line") == []
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see(".detail .problem", "Two agents answer in turn under this id")

    await in_browser(look)


async def test_one_broken_agent_leaves_the_others_and_comes_back(page: Page):
    def break_agent() -> None:
        with page.browser.running_first(WITH_ANSWER_CHANGED % BREAK_AGENT_A):
            page.browser.open(page.url)
        page.browser.see(".row .problem", "Agent a cannot be shown")
        page.browser.see("[data-agent=b]")
        page.browser.see(".live", "Live")

    await in_browser(break_agent)
    mended = agent("a", status="poor")
    await page.behind.happens(
        LiveEvent(
            kind="ping",
            agent_id="a",
            at=NOW,
            agent=mended,
            ping=ping("a", 1),
            previous_status="healthy",
        )
    )
    await in_browser(lambda: page.browser.see("[data-agent=a][data-status=poor]"))
    assert page.browser.all(".row .problem") == []


async def test_a_broken_part_leaves_the_rest_of_the_page(page: Page):
    def look() -> None:
        with page.browser.running_first(WITH_ANSWER_CHANGED % BREAK_SUMMARY):
            page.browser.open(page.url)
        page.browser.see(".problem", "summary cannot be shown")
        page.browser.see(".table [data-agent=a]").click()
        page.browser.see(".detail h1", "a")

    await in_browser(look)


@contextmanager
def other_site(folder: Path, page: str) -> Iterator[str]:
    """The address of a page of another site: to a browser, `localhost` is not 127.0.0.1."""
    (folder / "index.html").write_text(page)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


async def test_images_on_a_page_of_another_site_start_no_export(page: Page, tmp_path: Path):
    export = f"{page.url}/ping-system/export/history?hours=87600"
    images = "".join(f'<img src="{export}&amp;number={number}">' for number in range(3))
    badge = f'<img id="badge" src="{page.url}/badge/a.svg">'

    def look() -> None:
        with other_site(tmp_path, images + badge) as url:
            page.browser.open(url)
            page.browser.wait_for("return [...document.images].every((image) => image.complete)")

    await in_browser(look)
    assert page.browser.script("return document.querySelector('#badge').naturalWidth") != 0
    assert all(question != "table" for question, _ in page.behind.asked)


STORAGE = {"stats", "history", "series", "overview", "uptimes"}


@pytest.mark.slow
async def test_the_panel_recovers_when_storage_is_back(page: Page):
    page.behind.pings["a"] = [ping("a", 1)]
    page.behind.silent |= STORAGE

    def look_while_away() -> None:
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see(".live", "Storage away")
        page.browser.see(".trouble", "Storage cannot work")
        page.browser.see(".detail .problem", "could not be read", seconds=60)
        assert "not judged yet" not in page.browser.text(".detail")
        # of what storage does not tell, nothing is said to be none
        assert page.browser.text("[data-name=pings]") == "\N{EN DASH}"
        # beside the open panel the list is not shown
        feed = "return document.querySelector('.feed').textContent"
        page.browser.wait_for(f"{feed}.includes('Not known now')")

    await in_browser(look_while_away)
    page.behind.silent.clear()

    def look_when_back() -> None:
        page.browser.see(".live", "Live")
        page.browser.gone(".trouble")
        page.browser.gone(".detail .problem")
        page.browser.see(".outcomes td", "good")

    await in_browser(look_when_back)


async def test_the_page_says_what_to_put_right_and_how_far_back_the_bus_reaches(page: Page):
    page.behind.remarks = (
        "another scheduler judges by other rules: give all the same PING_ settings",
    )

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see(".remarks", "judges by other rules")
        since = f"{NOW - timedelta(days=28):%-d %b %Y}"
        page.browser.see(".operation", f"The bus holds outcomes since {since}")
        page.browser.see(".operation", "drops the oldest in about 3 days")
        page.browser.see(".operation", "2 days are in storage")
        page.behind.remarks = ()
        page.browser.gone(".remarks")

    await in_browser(look)


@pytest.mark.parametrize("address", ["", "map"])
async def test_the_page_says_that_the_scheduler_is_away(page: Page, address: str):
    def look() -> None:
        page.browser.open(f"{page.url}/{address}")
        page.browser.see(".live", "Live")
        page.behind.silent |= {"fleet", "list"}
        page.browser.see(".live", "Scheduler away")
        if not address:
            page.browser.see(".trouble", "Scheduler cannot work")
        assert "(stale)" in page.browser.driver.title
        page.behind.silent.clear()
        page.browser.see(".live", "Live")
        page.browser.gone(".trouble")

    await in_browser(look)


async def test_a_missing_host_keeps_the_names_of_its_gpus_and_mig_devices_differ(page: Page):
    mig = "GPU-11111111-2222-3333-4444-555555555555"
    gpus = tuple(
        GpuSummary(
            uuid=f"{mig}/{n}/0", index=0, name="NVIDIA A100", state="unknown", reported=False
        )
        for n in (1, 2)
    )
    page.behind.agents["a"] = agent("a", status="missing", gpus=gpus, last_answered_at=NOW)

    def look() -> None:
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see("[data-agent=a]", "A100 (MIG), as last reported")
        page.browser.see(".as-of", "does not answer")
        page.browser.see(".gpu", "MIG 1/0")
        page.browser.see(".gpu", "MIG 2/0")

    await in_browser(look)


async def test_a_figure_from_less_than_an_interval_says_so(page: Page):
    early = agent("a", status="healthy", uptime_24h_percent=None, current_interval_minutes=15.0)
    page.behind.agents = {"a": early}
    page.behind.uptimes["a"] = 100.0

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see(".early-note", "too early to tell: judged so far 1 s")
        page.browser.see("[data-agent=a] .chip", "Not judged")
        page.browser.see(".tile-note", "1 not judged yet")
        page.browser.see("[data-agent=a] .early", "of 1 s")

    await in_browser(look)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "route"), [(1440, "#/"), (1440, "#/agent/a"), (390, "#/agent/a")]
)
async def test_the_page_has_no_violation_of_axe(page: Page, width: int, route: str, scheme: str):
    await page.behind.serve_agent("a")
    page.behind.pings["a"] = [ping("a", 2), ping("a", 1, "missed")]
    page.behind.agents["b"] = agent("b", status="missing", last_reason="timeout")

    def look() -> None:
        page.browser.emulate(width, 900, scheme=scheme, reduced_motion=True)
        try:
            page.browser.open(f"{page.url}/{route}")
            page.browser.see(".live", "Live")
            page.browser.wait_for("return document.querySelector('[data-agent=b]')")
            if route != "#/":
                page.browser.see(".outcomes td", "good")
                page.browser.see(".gpus .readings", "41")
            assert violations(page.browser) == []
        finally:
            page.browser.emulate(1440, 1000)

    await in_browser(look)


async def test_the_keyboard_walks_the_rows_and_opens_one(page: Page):
    page.behind.pings["a"] = [ping("a", 2), ping("a", 1, "missed")]
    page.behind.agents["a"] = agent("a", status="healthy", total_pings=2)

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see("[data-agent=b]")
        body = page.browser.see("body")
        body.send_keys("j")
        page.browser.driver.switch_to.active_element.send_keys("j")
        assert page.browser.driver.switch_to.active_element.text == "b"
        page.browser.driver.switch_to.active_element.send_keys("k")
        assert page.browser.driver.switch_to.active_element.text == "a"
        page.browser.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
        page.browser.see(".tooltip", "#2")
        page.browser.see(".tooltip", "uptime 99.500% of 15 min")
        page.browser.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
        page.browser.see(".tooltip", "missed #1")
        page.browser.see(".tooltip", "nobody listens under this id")
        assert len(page.browser.all("[data-agent=a] .beat-read")) == 1
        page.browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
        page.browser.see(".detail h1", "a")
        page.browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        page.browser.gone(".detail")
        body.send_keys("?")
        page.browser.see("dialog[open]", "next agent")
        page.browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        page.browser.gone("dialog[open]")

    await in_browser(look)


async def test_below_1300_pixels_the_panel_is_a_dialog(page: Page):
    def look() -> None:
        page.browser.emulate(1100, 900)
        try:
            page.browser.open(f"{page.url}/#/agent/a")
            page.browser.see(".detail[role=dialog][aria-modal=true] h1", "a")
            page.browser.wait_for("return document.querySelector('main').inert")
            page.browser.emulate(1440, 900)
            page.browser.wait_for("return !document.querySelector('main').inert")
            assert page.browser.all(".detail[role=dialog]") == []
        finally:
            page.browser.emulate(1440, 1000)

    await in_browser(look)


# of the columns of pixels between the first and the last that the line fills, how many it fills
DRAWN = """
const canvas = document.querySelector(".detail .plot canvas");
const { width, height } = canvas;
const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
const isGreen = (at) => data[at + 3] > 20 && data[at + 1] > data[at] + 40;
const filled = [];
for (let x = 0; x < width; x += 1)
  for (let y = 0; y < height; y += 1)
    if (isGreen(4 * (y * width + x))) { filled.push(x); break; }
const span = filled.at(-1) - filled[0] + 1;
return [span / width, filled.length / span];
"""


async def test_a_month_of_pings_every_minute_is_drawn_whole(page: Page):
    page.behind.series_pings = 44_640
    page.behind.agents["a"] = agent("a", registered_at=NOW - timedelta(days=60))

    def look() -> None:
        page.browser.open(f"{page.url}/#/agent/a")
        for period in ("month", "30d", "7d", "24h"):
            page.browser.see(f"[data-period='{period}']").click()
            page.browser.see(f"[data-period='{period}'][aria-pressed=true]")
            page.browser.see("[data-name=period-uptime]", "99.000% over 44,640 pings")
            page.browser.see(".detail .plot[data-buckets='400'][data-pings='44640'] canvas")
            page.browser.wait_for(f"const drawn = (() => {{{DRAWN}}})(); return drawn[0] > 0.8")
            wide, filled = page.browser.script(DRAWN)
            assert wide > 0.8, period
            assert filled > 0.99, period
        page.browser.see(".zone", "Times:")

    await in_browser(look)


IN_ZONE = "Emulation.setTimezoneOverride"
CHOOSE = """
const [field, value] = [document.querySelector(arguments[0]), arguments[1]];
field.value = value;
field.dispatchEvent(new Event("change", { bubbles: true }));
"""


def asked_periods(page: Page) -> list[tuple[str, str]]:
    """The periods of which a chart was asked for, to the minute."""
    questions = [question for name, question in page.behind.asked if name == "series"]
    return [(f"{one.since:%Y-%m-%dT%H:%M}", f"{one.until:%Y-%m-%dT%H:%M}") for one in questions]


async def test_a_month_and_any_two_times_are_drawn_in_the_zone_that_is_shown(page: Page):
    page.behind.series_pings = 2_976
    registered = datetime(2026, 9, 12, tzinfo=UTC)
    page.behind.agents["a"] = agent("a", registered_at=registered)
    october = ping("a", 1, pinged_at=datetime(2026, 10, 7, tzinfo=UTC))
    page.behind.pings["a"] = [ping("a", 2, pinged_at=NOW), october]
    await page.behind.serve_agent("a")
    driver = page.browser.driver

    def until_asked(*period: str) -> None:
        until(lambda: period in asked_periods(page), f"a chart of {period}")

    def look() -> None:
        driver.execute_cdp_cmd(IN_ZONE, {"timezoneId": "America/New_York"})
        page.browser.open(f"{page.url}/#/agent/a")
        page.browser.see("[data-period=month]").click()
        page.browser.see(".period-choice select", "September 2026")
        driver.execute_script(CHOOSE, ".period-choice select", "2026-10")
        until_asked("2026-10-01T00:00", "2026-11-01T00:00")
        page.browser.see("[data-name=period-uptime]", "99.000% over 2,976 pings")
        assert [row.text.split("\n")[0] for row in page.browser.all(".outcomes tbody tr")] == [
            "6 Oct, 20:00:00 good 99.500% 1.5 ms 15 min"
        ]
        page.browser.see("[data-period=custom]").click()
        driver.execute_script(CHOOSE, "[name=since]", "2026-11-03T10:00")
        driver.execute_script(CHOOSE, "[name=until]", "2026-11-04T09:30")
        page.browser.see(".period-choice button", "Show").click()
        until_asked("2026-11-03T15:00", "2026-11-04T14:30")
        page.browser.see(".zone", "3 Nov 2026, 10:00:00 to 4 Nov 2026, 09:30:00")
        page.browser.see(".zone", "Times: America/New_York")
        page.browser.see("header .zone-switch", "America/New_York").click()
        page.browser.see(".zone", "3 Nov 2026, 15:00:00 to 4 Nov 2026, 14:30:00")
        assert page.browser.script("return document.querySelector('[name=since]').value") == (
            "2026-11-03T15:00"
        )
        page.browser.open(page.browser.driver.current_url)  # the address has all of it
        page.browser.see(".zone", "3 Nov 2026, 15:00:00 to 4 Nov 2026, 14:30:00")
        assert page.browser.console_errors() == []

    try:
        await in_browser(look)
    finally:
        driver.execute_cdp_cmd(IN_ZONE, {"timezoneId": ""})
        driver.execute_script("localStorage.clear()")


async def test_what_changed_names_the_gpu_and_the_site(page: Page):
    """A site that goes missing is one line, and the trouble of a GPU is a line of its own."""
    ids = [f"fra-{number:02}" for number in range(14)]
    for agent_id in ids:
        page.behind.agents[agent_id] = agent(agent_id, status="healthy", metadata={"site": "FRA"})
    ended = NOW + timedelta(seconds=6)
    page.behind.troubles = (
        Trouble(
            agent_id="b",
            gpu="GPU-b",
            index=5,
            state="down",
            reason="lost",
            since=NOW,
            until=ended,
            times=3,
            told_at=ended,
        ),
    )

    def look() -> None:
        page.browser.open(page.url)
        page.browser.see(".feed li[data-kind=over]", "GPU 5 was down for 6 s: lost")
        page.browser.see(".feed li[data-kind=over]", "3 times in 24 h")
        page.browser.see(".live", "Live")

    await in_browser(look)
    for agent_id in ids:
        missing = agent(agent_id, status="missing", metadata={"site": "FRA"}, total_pings=2)
        missed = ping(agent_id, 2, "missed")
        await page.behind.happens(
            LiveEvent(
                kind="ping",
                agent_id=agent_id,
                at=NOW,
                agent=missing,
                ping=missed,
                previous_status="healthy",
            )
        )
    await in_browser(lambda: page.browser.see(".feed li[data-kind=missed]", "14 hosts of FRA"))
    assert len(page.browser.all(".feed li[data-kind=missed]")) == 1


SHOWN_ROWS = """
const rows = [...document.querySelectorAll("[data-agent]")];
return rows.map((row) => [Number(row.ariaRowIndex) - 2, row.dataset.agent]);
"""


def shown_rows(page: Page) -> list[tuple[int, str]]:
    """The place in the list and the id of each row that is an element."""
    found = page.browser.script(SHOWN_ROWS)
    assert isinstance(found, list)
    return [(index, agent_id) for index, agent_id in found]


@pytest.mark.parametrize(
    ("width", "height"), [(1440, 1000), pytest.param(390, 844, marks=pytest.mark.slow)]
)
async def test_a_long_list_is_a_few_elements_and_reaches_its_last_row(
    page: Page, width: int, height: int
):
    """Filtered, searched and scrolled anywhere, the rows are those that REST lists there."""
    for number in range(1_200):
        status: Status = "healthy" if number % 3 else "missing"
        page.behind.agents[f"host-{number:04}"] = agent(f"host-{number:04}", status=status)
    query = {"status": "healthy", "search": "host-"}

    def see_what_rest_lists(last: int) -> None:
        def is_right() -> bool:
            shown = shown_rows(page)
            if not shown or shown[-1][0] < last:
                return False
            place = {"offset": shown[0][0], "limit": len(shown)}
            answer = httpx.get(f"{page.url}/ping-system/agents", params=query | place)
            expected = [one["agent_id"] for one in answer.json()["agents"]]
            indexes = list(range(shown[0][0], shown[0][0] + len(shown)))
            return shown == list(zip(indexes, expected, strict=True))

        until(is_right, "the rows that REST lists", 60)
        assert len(shown_rows(page)) <= 110

    def look() -> None:
        page.browser.emulate(width, height)
        page.browser.open(f"{page.url}/#/?status=healthy&q=host-")
        page.browser.see("h2 [role=status]", "800 found, of 1,202")
        see_what_rest_lists(20)
        for share, last in ((1.0, 799), (0.5, 380), (0.0, 20)):
            page.browser.script(f"scrollTo(0, {share} * document.documentElement.scrollHeight)")
            see_what_rest_lists(last)
        page.browser.open(f"{page.url}/#/")
        page.browser.see("h2 [role=status]", "1,202")
        page.browser.script("scrollTo(0, document.documentElement.scrollHeight)")
        query.clear()
        see_what_rest_lists(1_201)

    await in_browser(look)


CELLS = """
const canvas = document.querySelector("canvas");
const { data } = canvas.getContext("2d").getImageData(0, %d, canvas.width, 1);
const row = [...new Uint32Array(data.buffer)];
return row.filter((pixel, at) => pixel !== row[at - 1] && pixel !== 0).length;
"""


def drag(browser: Browser, begin: tuple[int, int], end: tuple[int, int]) -> None:
    """Draws from one point of the map to another, in pixels from its upper left corner."""
    canvas = browser.see("canvas")
    middle = (canvas.size["width"] // 2, canvas.size["height"] // 2)
    actions = ActionChains(browser.driver, duration=0)
    actions.move_to_element_with_offset(canvas, begin[0] - middle[0], begin[1] - middle[1])
    actions.click_and_hold()
    actions.move_by_offset(end[0] - begin[0], end[1] - begin[1])
    actions.release().perform()


async def test_hosts_that_are_drawn_around_on_the_map_filter_the_table(page: Page):
    """Few are in the address; many are kept by the browser, and where it has none it says so."""
    page.behind.agents.clear()
    for number in range(30):
        name = f"host-{number:02}-{'x' * 45}"
        page.behind.agents[name] = agent(name, status="poor" if number % 2 else "healthy")
    browser = page.browser

    def look() -> None:
        browser.emulate(1440, 1000)
        browser.open(f"{page.url}/map")
        browser.wait_for("return document.querySelector('canvas')?.dataset.drawnMs")
        drag(browser, (2, 2), (300, 20))
        browser.see(".chosen h2", "hosts")
        named = [one.text for one in browser.all(".chosen li a")]
        browser.see(".chosen h2 a").click()
        browser.see("h2 [role=status]", f"{len(named)} found, of 30")
        assert sorted(agent_id for _, agent_id in shown_rows(page)) == sorted(named)
        assert named[0] in browser.driver.current_url
        browser.see("[data-status=poor]").click()
        browser.wait_for("return !document.querySelector('.row[data-status=healthy]')")
        browser.see("[data-filter=hosts]", f"{len(named)} hosts of the map").click()
        browser.see("h2 [role=status]", "15 found, of 30")
        browser.open(f"{page.url}/map")
        browser.wait_for("return document.querySelector('canvas')?.dataset.drawnMs")
        size = browser.see("canvas").size
        drag(browser, (1, 1), (size["width"] - 2, size["height"] - 20))
        browser.see(".chosen h2", "30 hosts")
        browser.see(".chosen h2 a").click()
        browser.see("[data-filter=hosts]", "30 hosts of the map")
        browser.see("h2 [role=status]", "30 found, of 30")
        browser.driver.refresh()
        browser.see("h2 [role=status]", "30 found, of 30")
        browser.script("localStorage.clear()")
        browser.driver.refresh()
        browser.see(".problem", "only that one knows them")
        browser.see("[data-filter=hosts]", "hosts of the map").click()
        browser.see("h2 [role=status]", "30")

    await in_browser(look)


async def test_the_map_follows_hosts_that_change_come_and_go(page: Page):
    up, down = (
        (GpuSummary(uuid="GPU-a", index=0, name="H100", state=state),) for state in ("up", "down")
    )
    for name in ("a", "b"):
        page.behind.agents[name] = agent(name, status="healthy", gpus=up)
    browser = page.browser

    def look() -> None:
        browser.open(f"{page.url}/map")
        browser.see(".counts", "2 of 2 GPUs up, 2 hosts")
        browser.see(".live", "Live")

    await in_browser(look)
    poor = agent("b", status="poor", gpus=down)
    event = LiveEvent(kind="ping", agent_id="b", at=NOW, agent=poor, ping=ping("b", 1))
    await page.behind.happens(event)
    await in_browser(lambda: browser.see(".counts", "1 of 2 GPUs up, 2 hosts"))
    del page.behind.agents["b"]
    await page.behind.happens(LiveEvent(kind="removed", agent_id="b", at=NOW))
    await in_browser(lambda: browser.see(".counts", "1 of 1 GPU up, 1 host", seconds=15))


async def test_the_map_splits_a_missing_host_and_colours_the_uptime_of_a_day(page: Page):
    gpus = tuple(
        GpuSummary(uuid=f"GPU-{index}", index=index, name="H100", state="up") for index in range(4)
    )
    page.behind.agents.clear()
    page.behind.agents["lost"] = agent("lost", status="missing", gpus=gpus, uptime_percent=100.0)
    page.behind.uptimes = {"lost": 42.0}
    browser = page.browser

    def look() -> None:
        browser.emulate(1100, 800)
        browser.open(f"{page.url}/map")
        browser.wait_for("return document.querySelector('canvas')?.dataset.drawnMs")
        assert browser.script(CELLS % 10) == 4
        canvas = browser.see("canvas")
        to = (10 - canvas.size["width"] // 2, 10 - canvas.size["height"] // 2)
        ActionChains(browser.driver).move_to_element_with_offset(canvas, *to).perform()
        browser.see(".map-note", "42.0% in 24 h, 100% at the last ping")
        browser.open(f"{page.url}/map?colour=uptime")
        browser.wait_for("return document.querySelector('canvas')?.dataset.drawnMs")
        assert browser.script(CELLS % 10) == 1
        browser.gone(".map-trouble")

    await in_browser(look)


async def test_a_host_may_have_the_name_of_what_every_object_has(page: Page):
    """Of the first one no outcome reached history yet: the others' are asked for all the same."""
    for name in ("constructor", "toString"):
        page.behind.agents[name] = agent(name, status="healthy", total_pings=1)
    asked = "return performance.getEntriesByType('resource').some(({name}) => /beats/.test(name))"

    def look() -> None:
        page.browser.emulate(1440, 1000)
        page.browser.open(f"{page.url}/#/?q=o")
        page.browser.see("[data-agent=constructor]")
        page.browser.wait_for(asked)
        page.browser.open(f"{page.url}/#/agent/toString?sort=constructor&status=valueOf")
        page.browser.see("[data-agent=toString]")
        page.browser.wait_for(asked)
        page.browser.see(".outcomes, .detail p", "Nothing in this period")
        errors = [error for error in page.browser.console_errors() if "TypeError" in error]
        assert errors == []

    await in_browser(look)


async def test_what_is_not_there_is_said_once_and_nothing_else_is_offered(page: Page):
    def look() -> None:
        page.browser.emulate(1440, 1000)
        page.browser.open(f"{page.url}/#/agent/nobody-here?status=poor")
        page.browser.see(".detail .problem", "No agent “nobody-here” is registered")
        assert len(page.browser.all(".detail .problem")) == 1
        assert not page.browser.all(".detail .copyable, .detail .periods, .detail [download]")
        page.browser.see(".detail .after a", "Back to the fleet").click()
        page.browser.gone(".detail")
        page.browser.see(".no-rows", "No agent is poor.")
        page.browser.open(f"{page.url}/#/agent/a.b")
        page.browser.see(".detail .problem", "“a.b” cannot be the id of an agent")
        page.browser.open(f"{page.url}/#/?q=nothing-is-called-this")
        page.browser.see(".no-rows", "No agent fits “nothing-is-called-this”.")

    await in_browser(look)


WORST_OF_WALL = "String([...document.querySelectorAll('.wall-worst li b')].map((b) => b.innerText))"


@pytest.mark.slow
async def test_the_wall_says_of_nothing_that_it_is_none_before_it_knows(page: Page):
    """A place's worst hosts are asked of the scheduler, uptimes and changes of storage."""
    for agent_id, site in (("a", "AMS"), ("b", "FRA"), ("c", "AMS2")):
        page.behind.agents[agent_id] = agent(agent_id, status="poor", metadata={"site": site})
    page.behind.silent |= STORAGE
    shows_a_place = "return document.querySelector('.wall-map h2')?.innerText.trim() == 'AMS'"

    def look() -> None:
        browser = page.browser
        browser.open(f"{page.url}/#/wall?every=5")
        browser.see(".wall-uptime", "not known now")
        browser.see(".wall-changes", "Not known now: storage does not answer.")
        page.behind.silent.add("list")
        browser.wait_for(shows_a_place)
        assert "No host is missing or poor" not in browser.text(".wall-worst")
        page.behind.silent.clear()
        browser.see(".wall-worst [data-agent=a]")
        browser.see(".wall-worst [data-agent=b]")
        browser.wait_for(f"{shows_a_place} && {WORST_OF_WALL} == 'a'")  # those of AMS2 are not
        browser.see(".wall-changes", "Nothing in the last 24")

    await in_browser(look)


# At first the page is of another build, as after an upgrade, and a form of it is filled in.
OF_ANOTHER_BUILD = """
addEventListener("DOMContentLoaded", () => {
  if (sessionStorage.getItem("was-old")) return;
  sessionStorage.setItem("was-old", "yes");
  document.querySelector("meta[name=page-build]").content = "0123456789abcdef";
  document.body.insertAdjacentHTML("beforeend", "<form class='book-form'></form>");
});
"""
HOW_LOADED = "return performance.getEntriesByType('navigation')[0].type"


@pytest.mark.parametrize("address", ["#/agent/a?status=healthy", "map?by=site"])
async def test_a_page_of_an_older_build_loads_itself_anew_when_nobody_types(
    page: Page, address: str
):
    browser = page.browser

    def look() -> None:
        with browser.running_first(OF_ANOTHER_BUILD):
            browser.open(f"{page.url}/{address}")
            browser.see(".live", "Live")  # so that `health` came
            assert browser.script(HOW_LOADED) == "navigate"
            browser.script("document.querySelector('body > .book-form').remove()")
            browser.wait_for(f"{HOW_LOADED} === 'reload'")
            browser.see(".live", "Live")
            assert browser.driver.current_url == f"{page.url}/{address}"

    await in_browser(look)


async def test_three_tabs_share_one_stream(page: Page):
    """A browser keeps six connections to one host; each tab shows what happens all the same."""
    driver = page.browser.driver

    def streams() -> str:
        answer = httpx.get(f"{page.url}/metrics", timeout=20).text
        return next(line for line in answer.splitlines() if line.startswith(STREAMS))

    def open_three() -> None:
        page.browser.open(page.url)
        for _ in range(2):
            driver.switch_to.new_window("tab")
            driver.get(page.url)
        for tab in driver.window_handles:
            driver.switch_to.window(tab)
            page.browser.see("[data-agent=a][data-status=healthy]")
            page.browser.see(".live", "Live")
        until(lambda: streams() == f"{STREAMS} 1.0", "one stream of three tabs")

    def look() -> None:
        for tab in driver.window_handles:
            driver.switch_to.window(tab)
            page.browser.see("[data-agent=a][data-status=missing]")
            page.browser.wait_for("return document.title.startsWith('(1)')")
            assert "%3E1%3C%2Ftext" in str(
                page.browser.script("return document.querySelector('link[rel=icon]').href")
            )

    try:
        await in_browser(open_three)
        missing = agent("a", status="missing", total_pings=1)
        page.behind.agents["a"] = missing
        await page.behind.happens(
            LiveEvent(
                kind="ping",
                agent_id="a",
                at=NOW,
                agent=missing,
                ping=ping("a", 1, "missed"),
                previous_status="healthy",
            )
        )
        await in_browser(look)
    finally:
        for tab in driver.window_handles[1:]:
            driver.switch_to.window(tab)
            driver.close()
        driver.switch_to.window(driver.window_handles[0])
