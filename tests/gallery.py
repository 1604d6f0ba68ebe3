"""Pictures of every page: at five widths, in light, dark and forced colours.

    python -m tests.gallery --output /tmp/pictures
    python -m tests.gallery --output /tmp/pictures --only fleet,panel --widths 390 --schemes dark

The pages are of real systems: the demo, with a month of history, and a fleet of hosts that strain a
layout (tests/odd_hosts.py). Services that are away are a gateway's that has none. To be looked at
by people, so it judges nothing. `make screenshots ALL=1 OUT=folder` is the same.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
from msgspec.structs import replace
from nats.micro.request import Request
from rich.progress import Progress

import gateway.service
import scheduler.service
import storage.service
from bus import logs, settings
from bus.contract import subjects
from bus.contract.agent_answers import GpuStatus
from bus.contract.durations import uptime_percent
from bus.contract.messages import (
    GpuReport,
    Incident,
    PingRequest,
    Seconds,
    UptimeReport,
    encode,
)
from bus.settings import Settings
from bus.transport import connection, embedded_server, micro_services
from bus.transport.micro_services import Endpoint
from tests.acceptance.system import Up, run
from tests.agents import TestAgents, answering, report
from tests.browser import Browser, chromium
from tests.odd_hosts import LONGEST_ID, ODD_HOSTS, OddHost, readings
from tests.ports import free_port

WIDTHS = (320, 390, 1100, 1440, 2560)
HEIGHTS = {320: 700, 390: 844, 1100: 900, 1440: 1000, 2560: 1440}
SCHEMES = ("light", "dark", "forced")
TALLEST = 6000  # pixels of a picture of a whole page
# of the page, or of the panel over it, which scrolls by itself
WHOLE_HEIGHT = """
const parts = [document.documentElement, ...document.querySelectorAll(".detail")];
return Math.max(...parts.map((part) => part.scrollHeight));
"""
DEMO_HOST = "ams-l40-03"
LIVE_SECONDS = 45.0  # until hosts have failed, recovered and been pinged less often
MONTH = datetime.now(UTC).strftime("%Y-%m")


class Shown(NamedTuple):
    """A running system, and the addresses of its pages that cannot be known before it runs."""

    url: str
    links: Mapping[str, str] = {}


class Scene(NamedTuple):
    """A page as it is to be taken: `ready` waits for it, `is_whole` takes all of its height.

    `{host}` in an address is one of the system's links.
    """

    name: str
    system: str
    address: str
    ready: Callable[[Browser], object]
    is_whole: bool = True


def _sees(selector: str, text: str = "") -> Callable[[Browser], object]:
    return lambda browser: browser.see(selector, text)


def _presses(opener: str, opened: str) -> Callable[[Browser], object]:
    def press(browser: Browser) -> None:
        browser.see(".live", "Live")
        browser.script(f"document.querySelector({opener!r}).click()")
        browser.see(opened)

    return press


_fleet = _sees(".row:not(.head)")
_chart = _sees(".detail .plot canvas")
_month = _sees(".month .lanes")
_map = _sees("canvas")
_wall = _sees(".wall-worst li, .wall-worst p")

SCENES = (
    Scene("fleet", "demo", "#/", _fleet),
    Scene("panel", "demo", f"#/agent/{DEMO_HOST}", _chart),
    Scene("month", "demo", f"#/agent/{DEMO_HOST}/{MONTH}", _month),
    Scene("map", "demo", "map?by=site", _map),
    Scene("wall", "demo", "#/wall?every=3600", _wall, is_whole=False),
    Scene(
        "statement",
        "demo",
        f"ping-system/agents/{DEMO_HOST}/report?month={MONTH}&format=html",
        _sees("h1"),
    ),
    Scene("status", "demo", "status/fleet", _sees(".now strong")),
    Scene("host", "demo", "{host}", _sees(".now strong")),
    Scene("api", "demo", "schema", _sees(".swagger-ui .opblock")),
    Scene("help", "demo", "#/", _presses(".help-button", "dialog[open]"), is_whole=False),
    Scene("add-host", "demo", "#/", _presses(".add-host", "#add-host[open]"), is_whole=False),
    Scene("no-such-agent", "demo", "#/agent/nobody-here", _sees(".detail"), is_whole=False),
    Scene("no-such-month", "demo", f"#/agent/nobody-here/{MONTH}", _sees(".month .trouble")),
    Scene("none-found", "demo", "#/?q=nothing-is-called-this", _sees(".no-rows button")),
    Scene("odd-fleet", "odd", "#/", _fleet),
    Scene("odd-panel", "odd", f"#/agent/{LONGEST_ID}", _chart),
    Scene("odd-panel-mig", "odd", "#/agent/mig-7", _chart),
    Scene("odd-panel-unicode", "odd", "#/agent/zrh-unicode-01", _chart),
    Scene("odd-panel-labels", "odd", "#/agent/many-labels", _chart),
    Scene("odd-month", "odd", f"#/agent/{LONGEST_ID}/{MONTH}", _month),
    Scene("odd-map", "odd", "map?by=site", _map),
    Scene("odd-wall", "odd", "#/wall?every=3600", _wall, is_whole=False),
    Scene(
        "odd-statement",
        "odd",
        f"ping-system/agents/{LONGEST_ID}/report?month={MONTH}&format=html",
        _sees("h1"),
    ),
    Scene("empty", "empty", "#/", _sees(".empty h1")),
    Scene("empty-map", "empty", "map", _sees(".map-page p")),
    Scene("login", "locked", "#/", _sees(".login input")),
    Scene("storage-away", "no-storage", "#/", _sees(".trouble")),
    Scene("scheduler-away", "away", "#/", _sees(".trouble")),
)


def main() -> int:
    """Takes the pictures that were asked for."""
    given = _arguments()
    logs.setup(settings.load({}, LOG_LEVEL="error"))
    asyncio.run(_take_all(given))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [scene.name for scene in SCENES]
    parser.add_argument("--output", type=Path, required=True, help="a folder, outside the clone")
    parser.add_argument("--only", type=_list_of(names), default=names, metavar="SCENE,...")
    parser.add_argument("--widths", type=_list_of(map(str, WIDTHS)), default=list(map(str, WIDTHS)))
    parser.add_argument("--schemes", type=_list_of(SCHEMES), default=list(SCHEMES))
    return parser.parse_args()


def _list_of(known: object) -> Callable[[str], list[str]]:
    choices = list(known)  # type: ignore[call-overload]

    def chosen(text: str) -> list[str]:
        wanted = text.split(",")
        unknown = [name for name in wanted if name not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(choices)}")
        return wanted

    return chosen


async def _take_all(given: argparse.Namespace) -> None:
    given.output.mkdir(parents=True, exist_ok=True)
    scenes = [scene for scene in SCENES if scene.name in given.only]
    systems = {scene.system for scene in scenes}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shown = {
            name: await stack.enter_async_context(SYSTEMS[name](folder / name)) for name in systems
        }
        browser = await asyncio.to_thread(
            stack.enter_context,
            chromium(folder / "profile"),  # type: ignore[arg-type]
        )
        with Progress() as bar:
            total = len(scenes) * len(given.widths) * len(given.schemes)
            task = bar.add_task("pictures", total=total)
            for scene in scenes:
                for width in map(int, given.widths):
                    for scheme in given.schemes:
                        path = given.output / f"{scene.name}-{width}-{scheme}.png"
                        system = shown[scene.system]
                        url = f"{system.url}/{scene.address.format_map(system.links)}"
                        await asyncio.to_thread(_take, browser, scene, url, width, scheme, path)
                        bar.advance(task)


def _take(browser: Browser, scene: Scene, url: str, width: int, scheme: str, path: Path) -> None:
    height = HEIGHTS[width]
    browser.emulate(
        width,
        height,
        scheme="light" if scheme == "light" else "dark",
        reduced_motion=True,
        forced_colours=scheme == "forced",
    )
    browser.open(url)
    try:
        scene.ready(browser)
    except Exception as error:  # noqa: BLE001  # the picture shows what is there instead
        print(f"{path.name}: {str(error).splitlines()[0]}", file=sys.stderr)  # noqa: T201
    browser.script("return document.fonts.ready.then(() => true)")
    time.sleep(0.5)  # canvases
    if scene.is_whole:
        whole = int(str(browser.script(WHOLE_HEIGHT)))
        browser.emulate(
            width,
            min(TALLEST, max(height, whole)),
            scheme="light" if scheme == "light" else "dark",
            reduced_motion=True,
            forced_colours=scheme == "forced",
        )
        time.sleep(0.3)
    browser.driver.save_screenshot(str(path))


# ---- the systems ----


@asynccontextmanager
async def _demo(folder: Path) -> AsyncIterator[Shown]:
    up = await asyncio.to_thread(lambda: Up(folder, "--demo").ready())
    try:
        await asyncio.to_thread(up.printed, "first answered ping", 60)
        await asyncio.sleep(LIVE_SECONDS)
        async with httpx.AsyncClient(base_url=up.url) as http:
            links = await _publish(http)
        yield Shown(up.url, links)
    finally:
        await asyncio.to_thread(up.stop, seconds=30)


async def _publish(http: httpx.AsyncClient) -> dict[str, str]:
    """Makes a status page of all hosts, and a link to a host's own view."""
    agents = (await http.get("/ping-system/agents")).json()["agents"]
    ids = [agent["agent_id"] for agent in agents]
    page = {"name": "fleet", "title": "Rendering hosts", "agents": ids, "show_ids": True}
    (await http.post("/ping-system/status-pages", json=page)).raise_for_status()
    body = {"kind": "host", "agent_id": DEMO_HOST}
    link = (await http.post("/ping-system/links", json=body)).raise_for_status()
    return {"host": link.json()["path"].lstrip("/")}


@asynccontextmanager
async def _server(folder: Path, **more: object) -> AsyncIterator[Settings]:
    async with embedded_server.running(folder / "bus", port=free_port()) as server:
        yield settings.load(
            {},
            NATS_URL=server.url,
            GPUPING_DATA_DIR=str(folder / "data"),
            GATEWAY_PORT=0,
            PING_BASE_INTERVAL_MINUTES=0.1,
            PING_MAX_INTERVAL_HOURS=0.02,
            PING_RESPONSE_TIMEOUT_SECONDS=1.0,
            **more,
        )


@asynccontextmanager
async def _odd(folder: Path) -> AsyncIterator[Shown]:
    async with (
        _server(folder) as chosen,
        scheduler.service.running(chosen),
        storage.service.running(chosen),
        gateway.service.running(chosen) as served,
        answering(chosen) as agents,
        connection.connected(chosen, "odd") as client,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        for host in ODD_HOSTS:
            await _join(host, agents, client, http)
        await asyncio.sleep(LIVE_SECONDS)
        yield Shown(served.url)


async def _join(
    host: OddHost, agents: TestAgents, client: connection.Client, http: httpx.AsyncClient
) -> None:
    answers = 0

    def answer(agent_id: str, request: PingRequest) -> bytes | None:
        nonlocal answers
        answers += 1
        is_silent = host.silent and answers > 1
        return None if is_silent else encode(_report(host, request))

    async def details(_request: Request) -> GpuStatus:
        return GpuStatus(
            agent_id=host.agent_id,
            gpu_available=bool(host.gpus),
            simulated=False,
            gpus=tuple(readings(gpu) for gpu in host.gpus),
            reported_at=datetime.now(UTC),
        )

    await agents.add(host.agent_id, answer)
    looked = Endpoint("gpu-status", subjects.gpu_status(host.agent_id), details)
    await micro_services.serve(client, subjects.AGENTD_SERVICE, "of a picture", [looked])
    body = {"agent_id": host.agent_id, "metadata": host.metadata}
    (await http.post("/ping-system/agents/register", json=body)).raise_for_status()


def _report(host: OddHost, request: PingRequest) -> UptimeReport:
    """The report of a host whose bad GPUs were down for the second half of the window."""
    plain = report(host.agent_id, request, gpus=0)
    length = plain.window.seconds
    half = round(length / 2, 3)
    gpus = []
    incidents = []
    for gpu in host.gpus:
        seconds = Seconds(up=length)
        if gpu.state == "down":
            seconds = Seconds(up=half, down=round(length - half, 3))
            begin = plain.window.until - (plain.window.until - plain.window.since) / 2
            for reason in gpu.reasons:
                incidents.append(
                    Incident(gpu=gpu.uuid, state="down", reason=reason, since=begin, until=None)
                )
        gpus.append(
            GpuReport(
                uuid=gpu.uuid,
                index=gpu.index,
                name=gpu.name,
                state=gpu.state,
                reasons=gpu.reasons,
                uptime_percent=_percent(seconds),
                seconds=seconds,
            )
        )
    worst = min(
        (gpu.seconds for gpu in gpus), key=lambda one: one.up, default=Seconds(unknown=length)
    )
    return replace(
        plain,
        gpu_available=bool(gpus),
        gpus=tuple(gpus),
        seconds=worst,
        uptime_percent=_percent(worst),
        incidents=tuple(incidents),
    )


def _percent(seconds: Seconds) -> float | None:
    good = round(seconds.up * 1000)
    return uptime_percent(good, good + round((seconds.down + seconds.unknown) * 1000))


@asynccontextmanager
async def _empty(folder: Path) -> AsyncIterator[Shown]:
    up = await asyncio.to_thread(lambda: Up(folder, "--no-agent").ready())
    try:
        yield Shown(up.url)
    finally:
        await asyncio.to_thread(up.stop, seconds=30)


@asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[Shown]:
    folder.mkdir()
    file = folder / "tokens.toml"
    await asyncio.to_thread(run, "token", "viewer", "--file", str(file))
    async with (
        _server(folder, GPUPING_TOKENS_FILE=str(file)) as chosen,
        gateway.service.running(chosen) as served,
    ):
        yield Shown(served.url)


@asynccontextmanager
async def _no_storage(folder: Path) -> AsyncIterator[Shown]:
    async with (
        _server(folder) as chosen,
        scheduler.service.running(chosen),
        gateway.service.running(chosen) as served,
        answering(chosen) as agents,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        for name in ("fra-a100-01", "fra-a100-02"):
            await agents.add(name)
            await http.post("/ping-system/agents/register", json={"agent_id": name})
        yield Shown(served.url)


@asynccontextmanager
async def _away(folder: Path) -> AsyncIterator[Shown]:
    async with _server(folder) as chosen, gateway.service.running(chosen) as served:
        yield Shown(served.url)


SYSTEMS = {
    "demo": _demo,
    "odd": _odd,
    "empty": _empty,
    "locked": _locked,
    "no-storage": _no_storage,
    "away": _away,
}

if __name__ == "__main__":
    sys.exit(main())
