"""What one viewer of the dashboard takes of the network, with 50,000 agents.

A real gateway on a real bus gets UPDATES outcomes a second, of agents in turn; a stand-in answers
for the scheduler, because only sizes are measured. Streams are read as browsers read them, with
gzip, and the bytes on the wire are counted: the full stream, the slim one of a screen of rows, the
slim one with the map, and the slim one while nothing happens.
"""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from nats.micro.request import Request

from bus import clock, settings
from bus.contract import subjects
from bus.contract.messages import Seconds, encode
from bus.contract.questions import Agent, Fleet, GpuCounts, GpuSummary, LiveEvent, Ping
from bus.transport import micro_services
from bus.transport.connection import Client, connected
from bus.transport.embedded_server import running as server_running
from bus.transport.micro_services import Endpoint
from gateway import service

QUICK: dict[str, Any] = {"seconds": 4.0}
FULL: dict[str, Any] = {"seconds": 20.0}
AGENTS = 50_000
UPDATES = 100  # a second
ROWS = 20  # on a screen
GPUS = 8
NOW = datetime(2026, 11, 26, tzinfo=UTC)


async def measure(seconds: float) -> dict[str, float]:
    """Returns kilobytes a second of each kind of stream."""
    figures = {}
    async with _gateway() as (client, url):
        rows = ",".join(_name(number) for number in range(ROWS))
        updating = asyncio.create_task(_update(client))
        try:
            for key, query, encoding in (
                ("viewer_full_plain_kilobytes_per_second", "", "identity"),
                ("viewer_full_kilobytes_per_second", "", "gzip"),
                ("viewer_slim_kilobytes_per_second", f"view=slim&agents={rows}", "gzip"),
                ("viewer_map_kilobytes_per_second", "view=slim&map=true", "gzip"),
            ):
                figures[key] = await _rate(url, query, encoding, seconds)
        finally:
            updating.cancel()
            await asyncio.gather(updating, return_exceptions=True)
        key = "viewer_idle_kilobytes_per_second"
        figures[key] = await _rate(url, f"view=slim&agents={rows}", "gzip", seconds)
    return figures


@asynccontextmanager
async def _gateway() -> AsyncIterator[tuple[Client, str]]:
    with tempfile.TemporaryDirectory() as folder:
        async with server_running(Path(folder), port=0) as server:
            chosen = settings.load({}, NATS_URL=server.url, GATEWAY_PORT=0)
            async with connected(chosen, "bench") as client:
                fleet = Endpoint("fleet", subjects.FLEET, _fleet)
                await micro_services.serve(client, subjects.SCHEDULER_SERVICE, "bench", [fleet])
                async with service.running(chosen) as gateway:
                    yield client, gateway.url


async def _rate(url: str, query: str, encoding: str, seconds: float) -> float:
    """Kilobytes a second of one stream, after its first second."""
    taken = 0
    began = 0.0
    headers = {"Accept-Encoding": encoding}
    address = f"{url}/ping-system/events?{query}"
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", address, headers=headers) as response,
    ):
        async for piece in response.aiter_raw():
            now = clock.boottime()
            if began == 0.0:
                began = now + 1.0
            if now >= began + seconds:
                break
            if now >= began:
                taken += len(piece)
    return round(taken / seconds / 1000, 2)


async def _update(client: Client) -> None:
    """Publishes outcomes at the rate, of one agent after the other; every twentieth is poor.

    It catches up where the machine was busy, so that the rate holds over a second.
    """
    began = clock.boottime()
    for number in itertools.count():
        ahead = number / UPDATES - (clock.boottime() - began)
        if ahead > 0:
            await asyncio.sleep(ahead)
        await client.publish(subjects.event(_name(number % AGENTS)), encode(_event(number)))


def _name(number: int) -> str:
    return f"gpu-host-{number:05d}"


def _event(number: int) -> LiveEvent:
    agent_id = _name(number % AGENTS)
    is_poor = number % 20 == 0
    gpus = tuple(
        GpuSummary(
            uuid=f"GPU-{number:08x}-0000-4000-8000-{index:012x}",
            index=index,
            name="NVIDIA H100 80GB HBM3",
            state="down" if is_poor and index == 3 else "up",
        )
        for index in range(GPUS)
    )
    agent = Agent(
        agent_id=agent_id,
        agent_url=None,
        capabilities=("gpu-compute",),
        metadata={"site": "FRA", "owner": "acme"},
        status="poor" if is_poor else "healthy",
        registered_at=NOW,
        uptime_percent=97.0 if is_poor else 99.98,
        uptime_24h_percent=None,
        consecutive_poor_uptime=int(is_poor),
        good_streak=3,
        current_interval_minutes=15.0,
        next_ping_at=NOW + timedelta(seconds=number),
        last_ping_at=NOW,
        last_answered_at=NOW,
        total_pings=number,
        missed_pings=0,
        last_response_ms=2.5 + number % 7,
        connected=True,
        gpus=gpus,
    )
    ping = Ping(
        agent_id=agent_id,
        ping_seq=number + 1,
        pinged_at=NOW + timedelta(milliseconds=10 * number),
        outcome="answered",
        reason="uptime_below_threshold" if is_poor else None,
        verdict="poor" if is_poor else "good",
        uptime_percent=agent.uptime_percent,
        seconds=Seconds(up=900.0),
        window_seconds=900.0,
        consecutive_poor_uptime=int(is_poor),
        interval_minutes=15.0,
        next_ping_at=NOW,
        response_ms=2.5 + number % 7,
        late_ms=4.0,
    )
    return LiveEvent(
        kind="ping",
        agent_id=agent_id,
        at=NOW,
        agent=agent,
        ping=ping,
        previous_status="healthy",
    )


async def _fleet(_request: Request) -> Fleet:
    return Fleet(
        agents=AGENTS,
        pings=1,
        missed=0,
        due=0,
        in_flight=0,
        by_status={"healthy": AGENTS},
        next_ping_at=NOW,
        gpus=GpuCounts(total=AGENTS * GPUS, up=AGENTS * GPUS),
        base_interval_minutes=15.0,
    )
