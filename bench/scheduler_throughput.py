"""Durable pings a second: the whole loop, from the due time to a message in GPUPING_HISTORY.

Two figures: sustained (agents that are due again a second later, more than can be pinged), and for
a backlog (a whole fleet due at once, as after an outage). Raw request-reply over the same server
and responder is measured before and after the sustained pings, because the speed of the machine
changes within minutes.
"""

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import lateness
from bench.fleet import enrol
from bench.processes import cpu_seconds, python_module
from bus import settings
from bus.contract import subjects
from bus.transport import connection, embedded_server, jetstream_api, layout
from bus.transport.connection import Client

IN_FLIGHT = 200
INTERVAL_SECONDS = 1.0  # the shortest there is: outcomes of one agent are at least a second apart
LONGEST_SECONDS = 300.0

QUICK: dict[str, Any] = {
    "agents": 20_000,
    "seconds": 6.0,
    "raw_seconds": 1.5,
    "backlog": 20_000,
    "check": False,
}
FULL: dict[str, Any] = {
    "agents": 20_000,
    "seconds": 30.0,
    "raw_seconds": 5.0,
    "backlog": 100_000,
    "check": True,
}


class Bus:
    """A server with a responder for every agent, and nothing else on it."""

    def __init__(self, client: Client, url: str, server_pid: int) -> None:
        self.client, self.url, self.server_pid = client, url, server_pid

    async def history(self) -> int:
        """How many outcomes were ever in the history stream."""
        return await history_messages(self.client)

    async def until_history(self, outcomes: int) -> None:
        """Raises TimeoutError when they are not there after five minutes."""
        async with asyncio.timeout(LONGEST_SECONDS):
            while await self.history() < outcomes:  # noqa: ASYNC110  # polls another process
                await asyncio.sleep(0.1)

    async def enrol(self, agents: int) -> None:
        """A fleet that is due at once and was never pinged."""
        now = datetime.now(UTC)
        await enrol(
            self.client,
            agents,
            lambda _: now - timedelta(seconds=1),
            now=now,
            progress=lambda _: None,
        )

    @asynccontextmanager
    async def scheduler(self, interval_seconds: float = 900.0) -> AsyncIterator[int]:
        """A scheduler that knows the fleet; its process id."""
        env = {
            "NATS_URL": self.url,
            "PING_MAX_CONCURRENT_AGENTS": str(IN_FLIGHT),
            "PING_BASE_INTERVAL_MINUTES": str(interval_seconds / 60),
            "LOG_LEVEL": "warning",
        }
        async with python_module("scheduler", env=env) as child:
            yield child.pid


@asynccontextmanager
async def fresh_bus() -> AsyncIterator[Bus]:
    """One for the length of a block."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_server.running(Path(folder), port=0) as server:
            assert server.process  # noqa: S101
            config = settings.load({}, NATS_URL=server.url)
            async with (
                connection.connected(config, "bench") as client,
                python_module("bench.responder", server.url),
            ):
                await layout.ensure(client, config)
                yield Bus(client, server.url, server.process.pid)


async def history_messages(client: Client) -> int:
    """How many outcomes were ever in the history stream."""
    info = await jetstream_api.call(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}", timeout=30)
    return int(info["state"]["last_seq"])


async def raw_requests(client: Client, seconds: float, in_flight: int = 100) -> float:
    """Requests a second on the same server and responder, with nothing kept."""
    done, end = 0, time.monotonic() + seconds

    async def asker() -> None:
        nonlocal done
        while time.monotonic() < end:
            await client.request("bench.raw", b"x" * 200, timeout=5)
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(asker() for _ in range(in_flight)))
    return done / (time.monotonic() - began)


async def sustained_pings(bus: Bus, agents: int, seconds: float) -> dict[str, float]:
    """Pings the fleet again and again; counts once each agent has had its first ping."""
    await bus.enrol(agents)
    async with bus.scheduler(INTERVAL_SECONDS) as pid:
        await bus.until_history(2 * agents)
        began, cpu, server_cpu = time.monotonic(), cpu_seconds(pid), cpu_seconds(bus.server_pid)
        before = await bus.history()
        await asyncio.sleep(seconds)
        pings, took = await bus.history() - before, time.monotonic() - began
        return {
            "pings_per_second": pings / took,
            "scheduler_cpu_ms_per_ping": 1000 * (cpu_seconds(pid) - cpu) / pings,
            "nats_cpu_ms_per_ping": 1000 * (cpu_seconds(bus.server_pid) - server_cpu) / pings,
        }


async def backlog_pings(bus: Bus, agents: int) -> float:
    """Pings a second until every agent of a fleet that is due at once has its first outcome."""
    await bus.enrol(agents)
    async with bus.scheduler():
        began, before = time.monotonic(), await bus.history()
        await bus.until_history(agents)
        return (await bus.history() - before) / (time.monotonic() - began)


async def wrong_numbers(client: Client) -> dict[str, float]:
    """Returns how many outcomes are missing and how many are there twice, by their numbers."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for agent_id, ping_seq in (await lateness.read(client, 1, lambda _: None)).agents:
        numbers[agent_id].append(ping_seq)
    lost = sum(max(seen) - len(set(seen)) for seen in numbers.values())
    doubled = sum(len(seen) - len(set(seen)) for seen in numbers.values())
    return {"pings_lost": lost, "pings_doubled": doubled}


async def measure(
    agents: int, seconds: float, raw_seconds: float, backlog: int, *, check: bool
) -> dict[str, float]:
    """Measures sustained pings, raw request-reply, and a backlog on a server of its own."""
    async with fresh_bus() as bus:
        raw = await raw_requests(bus.client, raw_seconds)
        result = await sustained_pings(bus, agents, seconds)
        raw = (raw + await raw_requests(bus.client, raw_seconds)) / 2
        result |= await wrong_numbers(bus.client) if check else {}
    async with fresh_bus() as bus:
        result["backlog_pings_per_second"] = await backlog_pings(bus, backlog)
    return result | {
        "raw_requests_per_second": raw,
        "pings_to_raw_ratio": result["pings_per_second"] / raw,
    }


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(measure(**QUICK if "quick" in sys.argv else FULL)))
