"""The layout of the page at every width, with hosts that strain it. Nothing overlaps or is cut."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bus.contract.questions import Agent, GpuCounts, GpuSummary
from bus.settings import Settings
from tests.browser import Browser
from tests.gateway_behind import NOW, Behind, agent, gateway_and_behind, ping, quick
from tests.odd_hosts import LONGEST_ID, LONGEST_PLACE, ODD_HOSTS, OddHost, readings

LAYOUT = (Path(__file__).parents[1] / "web/layout.js").read_text()
WIDTHS = (320, 390, 768, 1100, 1440, 2560)
WHOLE = 4000  # pixels: a window in which nothing has to be scrolled
NOTHING_WRONG: dict[str, list[str]] = {
    "tooWide": [],
    "beyond": [],
    "cutOff": [],
    "overprinted": [],
}


@pytest.fixture
async def url(base_settings: Settings) -> AsyncIterator[str]:
    async with gateway_and_behind(quick(base_settings)) as (http, behind):
        for host in ODD_HOSTS:
            behind.agents[host.agent_id] = shown(host)
            seqs = range(40, 0, -1)
            kinds = ("answered", "answered", "missed", "answered", "excused")
            behind.pings[host.agent_id] = [ping(host.agent_id, n, kinds[n % 5]) for n in seqs]
        behind.series_pings = 44_640
        behind.gpus = GpuCounts(
            total=1_259_448, up=1_242_609, degraded=1_425, down=11_351, unknown=4_063
        )
        await answer_for(behind, ODD_HOSTS[0])
        yield str(http.base_url)


def shown(host: OddHost) -> Agent:
    """The host in a list, with figures as large as they get."""
    is_down = any(gpu.state == "down" for gpu in host.gpus)
    gpus = [
        GpuSummary(uuid=gpu.uuid, index=gpu.index, name=gpu.name, state=gpu.state)
        for gpu in host.gpus
    ]
    status = "missing" if host.silent else "poor" if is_down else "healthy"
    return agent(
        host.agent_id,
        status=status,
        metadata=host.metadata,
        gpus=tuple(gpus),
        uptime_percent=99.95 if status == "healthy" else 12.345,
        uptime_24h_percent=99.954 if status == "healthy" else 12.345,
        consecutive_poor_uptime=0 if status == "healthy" else 1234,
        current_interval_minutes=15.0 if status == "healthy" else 83.5,
        next_ping_at=NOW + timedelta(days=400),
        last_ping_at=NOW,
        last_answered_at=NOW,
        registered_at=NOW - timedelta(days=4000),
        total_pings=123_456_789,
        missed_pings=98_765_432,
        last_response_ms=59_999.4,
        conflicting_connections=("c1", "c2") if host.gpus else (),
    )


async def answer_for(behind: Behind, host: OddHost) -> None:
    await behind.serve_agent(host.agent_id, gpus=tuple(readings(gpu) for gpu in host.gpus))


# The wall shows a place an hour. Its clock is put on hour by hour; it looks at it each second.
PUT_ON = """
const [name, done] = arguments;
const now = Date.now;
let hours = 0;
Date.now = () => now() + hours * 3600_000;
const look = () => {
  if (document.querySelector(".wall-map h2").textContent.includes(name)) done(clearInterval(timer));
  else hours += 1;
};
const timer = setInterval(look, 1100);
"""


@pytest.mark.parametrize(
    "widths", [WIDTHS[::2], pytest.param(WIDTHS, marks=pytest.mark.slow)], ids=["some", "all"]
)
async def test_nothing_overlaps_or_is_cut_at_any_width(
    url: str, browser: Browser, widths: tuple[int, ...]
):
    """All widths of a page are of one load: the page follows the window."""

    def look() -> None:
        wrong = {}
        for route, part, height, opened in (
            ("#/", ".row:not(.head)", WHOLE, None),
            (f"#/agent/{LONGEST_ID}", ".detail .readings", WHOLE, None),
            ("#/wall?every=3600", ".wall-canvas canvas", 900, None),
            ("map?by=site", ".map-canvas", 900, None),
            ("#/?q=nobody", ".no-rows button", 900, "#keys"),
            ("#/?q=nobody-else", ".no-rows button", 900, "#add-host"),
        ):
            browser.emulate(1440, height, reduced_motion=True)
            browser.open(f"{url}/{route}")
            browser.see(part)
            if "wall" in route:
                browser.driver.execute_async_script(PUT_ON, LONGEST_PLACE)
            if opened:
                browser.wait_for(f"return document.querySelector('{opened}')")
                browser.script(f"document.querySelector('{opened}').showModal()")
            for width in widths:
                browser.emulate(width, height, reduced_motion=True)
                browser.wait_for(f"return innerWidth === {width}")
                browser.driver.execute_async_script(TWO_FRAMES)
                found = browser.script(LAYOUT)
                if found != NOTHING_WRONG:
                    wrong[f"{route} at {width}"] = found
        assert not wrong, json.dumps(wrong, indent=1)

    await asyncio.to_thread(look)


COLOURS = """
const canvas = document.querySelector("canvas");
const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const solid = [...new Uint32Array(data.buffer)].filter((pixel) => pixel >>> 24 === 255);
return new Set(solid.filter((pixel, at) => pixel === solid[at + 1])).size;
"""


async def test_the_map_tells_states_apart_in_forced_colours(url: str, browser: Browser):
    def look() -> None:
        browser.emulate(1100, 800, scheme="dark", forced_colours=True)
        browser.open(f"{url}/map")
        browser.wait_for("return document.querySelector('canvas')?.dataset.drawnMs")
        assert browser.script(COLOURS) >= 2  # up and down
        swatches = "return new Set([...document.querySelectorAll('.map-legend i')].map((i) => "
        assert browser.script(f"{swatches}getComputedStyle(i).backgroundColor)).size") == 5

    await asyncio.to_thread(look)


# a chart follows the window by an observer, which is called after the next frame
TWO_FRAMES = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]));"
