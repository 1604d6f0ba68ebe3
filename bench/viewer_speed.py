"""How quick the dashboard is in a real Chromium, on a fleet of 50,000 with 100 outcomes a second.

Everything is real: nats-server, scheduler, storage, gateway and browser; one process answers for
all hosts. Speeds of the browser are ratios to a static page: the same elements and styles without
any script, scrolled in turn with the live page in the same browser. The figures:

- viewer_first_load_requests, _kilobytes, and the same of a repeated load: what a page takes;
- viewer_first_row_seconds: from the start of the navigation to the first row, median of loads;
- viewer_scroll_to_static_ratio: frames a second of the live page over those of the static one,
  which has STATIC_ROWS rows as elements, more than are scrolled past;
- viewer_last_row_seconds: from a jump to the end of the list to its last row, median; and the
  elements of rows and of the whole page then;
- viewer_search_p95_ms, viewer_filter_p95_ms: the gateway's answers, over REST; viewer_floor_p95_ms
  is that of /healthz, which has nothing to look up: on a busy machine both wait for their turn;
- viewer_map_drawn_ms: the whole map on its canvas, median;
- viewer_heap_growth_percent: of the page's heap after collection, over the watched time; nodes and
  listeners as well.

    python -m bench viewer_speed
"""

import asyncio
import functools
import http.server
import itertools
import json
import re
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.progress import Progress

from bench import veterans
from bench.fleet import spread
from bench.processes import python_module
from bench.scheduler_throughput import history_messages
from bus import settings
from bus.transport import connection, embedded_server, layout
from scheduler.service import policy_of
from tests.browser import Browser, chromium

UPDATES = 100  # a second
QUICK: dict[str, Any] = {"agents": 2_000, "watched_seconds": 5.0, "rounds": 1}
FULL: dict[str, Any] = {"agents": 50_000, "watched_seconds": 300.0, "rounds": 4}
SCROLL_SECONDS = 3.0
LOADS = 3
QUESTIONS = 30
SCREEN = (1440, 1000)
STATIC_ROWS = 100
JUMPS = 5
READINGS = 5
LOAD_SECONDS_EACH = 500e-6  # until the fleet is enrolled, stored and loaded
SITES = ("FRA", "AMS", "NYC", "SIN", "ZRH", "OSL", "DUB", "TYO")
OWNERS = ("acme", "initech", "umbrella", "hooli", "stark")
KILO = 1000.0

# when the first row was there, in milliseconds since the navigation began
FIRST_ROW = """
new MutationObserver((_, observer) => {
  if (!document.querySelector("[data-agent]")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => (window.firstRowAt = performance.now())));
}).observe(document, { childList: true, subtree: true });
"""
# scrolls down and up again by a screen a second; calls back with frames a second
SCROLL = """
const [seconds, done] = arguments;
const began = performance.now();
let frames = 0;
let step = 18;
const frame = (now) => {
  frames += 1;
  const before = scrollY;
  scrollBy(0, step);
  if (scrollY === before) step = -step;
  if (now - began < seconds * 1000) requestAnimationFrame(frame);
  else done(frames / ((now - began) / 1000));
};
requestAnimationFrame(frame);
"""


# the page as it stands, with rows enough to scroll past instead of the boxes that stand for others
AS_STATIC = """
const page = document.documentElement.cloneNode(true);
for (const box of page.querySelectorAll(".unseen, script, link")) box.remove();
const rows = [...page.querySelectorAll("[data-agent]")];
for (let number = rows.length; number < arguments[0]; number += 1) {
  rows.at(-1).parentElement.append(rows[number % rows.length].cloneNode(true));
}
return page.outerHTML;
"""
LAST_ROW = """
const rows = document.querySelector("[role=table]").ariaRowCount;
return document.querySelector(`[data-agent][aria-rowindex="${rows}"]`) != null;
"""


async def measure(agents: int, watched_seconds: float, rounds: int) -> dict[str, float]:
    """Returns the figures of the module's docstring."""
    with tempfile.TemporaryDirectory() as folder, Progress() as bar:
        async with _system(Path(folder), agents, bar) as url:
            figures = await _questions(url, bar)
            looked = functools.partial(_look, url, Path(folder), watched_seconds, rounds, bar)
            return {"viewer_agents": float(agents)} | figures | await asyncio.to_thread(looked)


@asynccontextmanager
async def _system(folder: Path, agents: int, bar: Progress) -> AsyncIterator[str]:
    """A fleet at work. Yields the gateway's address."""
    interval = agents / UPDATES
    lead = 10.0 + agents * LOAD_SECONDS_EACH
    due_at = spread(datetime.now(UTC) + timedelta(seconds=lead), interval, agents)
    async with embedded_server.running(folder / "bus", port=0) as server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {
            "NATS_URL": server.url,
            "PING_BASE_INTERVAL_MINUTES": f"{interval / 60:g}",
            "GPUPING_DATA_DIR": str(folder / "data"),
            "GATEWAY_PORT": str(port),
            "LOG_LEVEL": "error",
        }
        chosen = settings.load({}, **env)
        async with connection.connected(chosen, "bench") as client:
            await layout.ensure(client, chosen)
            task = bar.add_task("enrol", total=agents)
            await veterans.enrol(
                client, agents, due_at, policy_of(chosen), lambda n: bar.advance(task, n), _labels
            )
            while await history_messages(client) < agents:  # noqa: ASYNC110  # nothing tells it
                await asyncio.sleep(0.5)
        async with (
            python_module("bench.responder", server.url),
            python_module("storage", env=env),
            python_module("scheduler", env=env, ready_seconds=300),
            python_module("gateway", env=env),
        ):
            yield f"http://127.0.0.1:{port}"


def _labels(number: int) -> dict[str, Any]:
    return {
        "site": SITES[number % len(SITES)],
        "owner": OWNERS[number % len(OWNERS)],
        "rack": f"r{number % 977:03d}",
    }


async def _questions(url: str, bar: Progress) -> dict[str, float]:
    """What a page asks while somebody types, or presses a status, from the first letter on."""
    searches = itertools.cycle(("b", "bench-00", "4242", "fra", "h100", "site:AMS owner:acme"))
    filtered = {"status": "healthy", "limit": 100, "order": "uptime"}
    agents = "/ping-system/agents"
    kinds: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
        "floor": lambda: ("/healthz", {}),
        "search": lambda: (agents, {"search": next(searches), "limit": 100, "order": "worst"}),
        "filter": lambda: (agents, filtered),
    }
    figures = {}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        # nobody types before the page is there; the scheduler has read every report by then
        (await client.get("/ping-system/dashboard")).raise_for_status()
        for name, question in kinds.items():
            task = bar.add_task(name, total=QUESTIONS)
            took = []
            for _ in range(QUESTIONS):
                path, query = question()
                began = time.perf_counter()
                answer = await client.get(path, params=query)
                took.append(1000 * (time.perf_counter() - began))
                answer.raise_for_status()
                bar.advance(task)
                await asyncio.sleep(0.1)
            figures[f"viewer_{name}_p50_ms"] = round(statistics.median(took), 1)
            figures[f"viewer_{name}_p95_ms"] = round(statistics.quantiles(took, n=20)[-1], 1)
    return figures


# ---- the browser ----


def _look(
    url: str, folder: Path, watched_seconds: float, rounds: int, bar: Progress
) -> dict[str, float]:
    with chromium(folder / "profile") as browser:
        browser.emulate(*SCREEN)
        figures = _loads(browser, url)
        figures |= _map(browser, url)
        figures |= _scroll(browser, url, folder / "static", rounds, bar)
        figures |= _jump(browser, url)
        return figures | _heap(browser, url, watched_seconds, bar)


def _loads(browser: Browser, url: str) -> dict[str, float]:
    """A first load with an empty cache, and further ones."""
    first_rows = []
    figures = {}
    for kind in ("first", *["repeated"] * LOADS):
        with browser.running_first(FIRST_ROW):
            browser.open(f"{url}/#/")
            browser.wait_for("return window.firstRowAt > 0")
        browser.see(".live", "Live")
        time.sleep(1.0)  # what is asked for after the first rows
        first_rows.append(float(str(browser.script("return window.firstRowAt"))) / KILO)
        requests, size = _taken(browser)
        figures[f"viewer_{kind}_load_requests"] = float(requests)
        figures[f"viewer_{kind}_load_kilobytes"] = round(size / KILO, 1)
    figures["viewer_first_row_cold_seconds"] = round(first_rows[0], 3)
    figures["viewer_first_row_seconds"] = round(statistics.median(first_rows), 3)
    return figures


def _taken(browser: Browser) -> tuple[int, int]:
    """Requests that went over the network, and their bytes, since the page was opened."""
    cached = set()
    asked = set()
    size = 0
    entries = browser.driver.get_log("performance")  # type: ignore[no-untyped-call]
    for entry in entries:
        event = json.loads(entry["message"])["message"]
        kind, of = event["method"], event["params"]
        if kind == "Network.requestWillBeSent" and of["request"]["url"].startswith("http"):
            asked.add(of["requestId"])
        if kind == "Network.requestServedFromCache":
            cached.add(of["requestId"])
        if kind == "Network.responseReceived" and of["response"].get("fromDiskCache"):
            cached.add(of["requestId"])
        if kind == "Network.loadingFinished":
            size += of["encodedDataLength"]
    return len(asked - cached), size


def _map(browser: Browser, url: str) -> dict[str, float]:
    drawn = []
    began = time.perf_counter()
    browser.open(f"{url}/map?by=site")
    browser.wait_for("return document.querySelector('canvas')?.dataset.drawnMs")
    shown = time.perf_counter() - began
    for _ in range(9):
        before = "document.querySelector('canvas').dataset"
        browser.script(f"delete {before}.drawnMs; dispatchEvent(new Event('resize'))")
        browser.wait_for(f"return {before}.drawnMs")
        drawn.append(float(str(browser.script(f"return {before}.drawnMs"))))
    return {
        "viewer_map_shown_seconds": round(shown, 2),
        "viewer_map_drawn_ms": round(statistics.median(drawn), 1),
    }


def _scroll(
    browser: Browser, url: str, folder: Path, rounds: int, bar: Progress
) -> dict[str, float]:
    """The live page and its static copy, in turn: both are scrolled in the same seconds."""
    task = bar.add_task("scroll", total=rounds)
    rates: dict[str, list[float]] = {"live": [], "static": []}
    browser.open(f"{url}/#/")
    browser.see("[data-agent]")
    browser.see(".live", "Live")
    time.sleep(2.0)
    _save(browser, url, folder)
    with _served(folder) as static_url:
        for _ in range(rounds):
            for kind, address in (("live", f"{url}/#/"), ("static", static_url)):
                browser.open(address)
                browser.see("[data-agent]")
                time.sleep(2.0)
                browser.driver.set_script_timeout(60)
                rate = browser.driver.execute_async_script(SCROLL, SCROLL_SECONDS)
                rates[kind].append(float(rate))
            bar.advance(task)
    live, static = (statistics.median(rates[kind]) for kind in ("live", "static"))
    return {
        "viewer_scroll_frames_per_second": round(live, 1),
        "static_scroll_frames_per_second": round(static, 1),
        "viewer_scroll_to_static_ratio": round(live / static, 3),
    }


def _save(browser: Browser, url: str, folder: Path) -> None:
    """The page as it stands, without its scripts, with the style sheet beside it."""
    folder.mkdir()
    page = str(browser.driver.execute_script(AS_STATIC, STATIC_ROWS))
    style = browser.script("return document.querySelector('link[rel=stylesheet]').href")
    page = page.replace("</head>", '<link rel="stylesheet" href="style.css"></head>')
    (folder / "index.html").write_text(f"<!doctype html>{page}")
    (folder / "style.css").write_text(httpx.get(str(style)).text)
    for name in ("inter", "jetbrains-mono"):
        for address in re.findall(rf"{name}-\w+\.woff2", (folder / "style.css").read_text()):
            (folder / address).write_bytes(httpx.get(f"{url}/static/built/{address}").content)


def _jump(browser: Browser, url: str) -> dict[str, float]:
    """To the last row and back, as the key End and the key Home do it."""
    took = []
    browser.open(f"{url}/#/")
    browser.see("[data-agent]")
    for _ in range(JUMPS):
        began = time.perf_counter()
        browser.script("scrollTo(0, document.documentElement.scrollHeight)")
        browser.wait_for(LAST_ROW)
        took.append(time.perf_counter() - began)
        browser.script("scrollTo(0, 0)")
        browser.wait_for("return document.querySelector('[data-agent][aria-rowindex=\"2\"]')")
    return {
        "viewer_last_row_seconds": round(statistics.median(took), 2),
        "viewer_row_elements": float(len(browser.all(".row"))),
        "viewer_elements": float(str(browser.script("return document.all.length"))),
    }


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing of requests."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _heap(browser: Browser, url: str, seconds: float, bar: Progress) -> dict[str, float]:
    """A page that is left open, from when it has settled on."""
    browser.open(f"{url}/#/")
    browser.see("[data-agent]")
    browser.driver.execute_cdp_cmd("Performance.enable", {})
    time.sleep(min(20.0, seconds))
    task = bar.add_task("watch", total=round(seconds))
    before = _metrics(browser)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        browser.driver.get_log("performance")  # type: ignore[no-untyped-call]  # or it piles up
        bar.update(task, completed=round(seconds - left))
    after = _metrics(browser)
    return {
        "viewer_heap_megabytes": round(after["JSHeapUsedSize"] / 1e6, 2),
        "viewer_heap_growth_percent": _growth(before, after, "JSHeapUsedSize"),
        "viewer_nodes_growth_percent": _growth(before, after, "Nodes"),
        "viewer_listeners_growth_percent": _growth(before, after, "JSEventListeners"),
    }


def _metrics(browser: Browser) -> dict[str, float]:
    """The least of a few readings: an answer that is being read is no growth."""
    readings = []
    for _ in range(READINGS):
        browser.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        answer = browser.driver.execute_cdp_cmd("Performance.getMetrics", {})
        readings.append({one["name"]: one["value"] for one in answer["metrics"]})
        time.sleep(0.5)
    least = {}
    for name in readings[0]:
        least[name] = min(reading[name] for reading in readings)
    return least


def _growth(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return round(100 * (after[name] / before[name] - 1), 1)
