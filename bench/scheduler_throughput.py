"""Durable pings a second: the whole loop, from a timer that fired to a message in GPUPING_HISTORY.

Compared in the same run with raw request-reply over the same server and responder.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.fleet import agent_id, enrol
from bus import connection, embedded, layout, settings, subjects
from bus.connection import Client
from bus.settings import Settings

IN_FLIGHT = 200


@asynccontextmanager
async def process(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python child that has printed `ready`; stopped at the end of the block."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})}
    )
    assert child.stdout  # noqa: S101
    try:
        async with asyncio.timeout(120):
            await child.stdout.readline()
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def history_messages(client: Client) -> int:
    """How many outcomes are in the history stream."""
    info = await layout.api(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}", timeout=30)
    return int(info["state"]["messages"])


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


async def durable_pings(client: Client, config: Settings, agents: int, server_pid: int) -> dict[str, float]:
    """Enrols a fleet that is due at once and measures until every outcome is history."""
    now = datetime.now(UTC)
    await enrol(client, agents, lambda _: now - timedelta(seconds=1), now=now, progress=lambda _: None)
    env = {"NATS_URL": config.nats_url, "PING_MAX_CONCURRENT_AGENTS": str(IN_FLIGHT), "LOG_LEVEL": "warning"}
    async with process("scheduler", env=env) as scheduler:
        began, cpu, server_cpu = time.monotonic(), cpu_seconds(scheduler.pid), cpu_seconds(server_pid)
        before = await history_messages(client)
        while (done := await history_messages(client)) < agents:
            await asyncio.sleep(0.2)
            if time.monotonic() - began > 300:
                raise TimeoutError(f"{done} of {agents} after 300 s")
        took, pings = time.monotonic() - began, agents - before
        return {
            "pings_per_second": pings / took,
            "scheduler_cpu_ms_per_ping": 1000 * (cpu_seconds(scheduler.pid) - cpu) / pings,
            "nats_cpu_ms_per_ping": 1000 * (cpu_seconds(server_pid) - server_cpu) / pings,
        }


async def measure(agents: int, raw_seconds: float = 3.0) -> dict[str, float]:
    """Both, on one server of their own."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded.running(Path(folder), port=0) as server:
            assert server.process  # noqa: S101
            config = settings.load({}, NATS_URL=server.url)
            async with connection.connected(config, "bench") as client, process("bench.responder", server.url):
                await layout.ensure(client, config)
                result = await durable_pings(client, config, agents, server.process.pid)
                result["raw_requests_per_second"] = await raw_requests(client, raw_seconds)
                result["pings_to_raw_ratio"] = result["pings_per_second"] / result["raw_requests_per_second"]
                return result


if __name__ == "__main__":
    import uvloop

    print(agent_id(0), uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)))
