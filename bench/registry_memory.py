"""What an agent costs in memory in nats-server and in a scheduler, and how long loading takes.

There are two fleets in mid-life (each agent with its state and timer, none due for a day), each on
a server of its own with a scheduler. The difference between them, divided by the agents, leaves out
what a process needs without a fleet.

    python -m bench.registry_memory 1000 100000
"""

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from bench import veterans
from bench.fleet import spread
from bench.processes import disk_megabytes, memory, pid_of, python_module
from bench.scheduler_throughput import history_messages
from bus import settings
from bus.transport import connection, embedded_server, layout
from scheduler.service import policy_of

QUICK: dict[str, Any] = {"small": 1_000, "large": 10_000}
FULL: dict[str, Any] = {}

FAR = timedelta(days=1)
SETTLE_SECONDS = 5.0


class Weighed(NamedTuple):
    """One fleet's processes, in megabytes and seconds."""

    nats: float
    nats_loaded: float
    scheduler: float
    scheduler_peak: float
    start_seconds: float
    disk: float


async def measure(small: int = 1_000, large: int = 100_000) -> dict[str, float]:
    """Bytes by agent from two sizes, and the larger one's own figures."""
    light, heavy = await _weigh(small), await _weigh(large)
    return {
        "registry_agents": float(large),
        "registry_nats_bytes_per_agent": _each(light.nats, heavy.nats, large - small),
        "registry_scheduler_bytes_per_agent": _each(
            light.scheduler, heavy.scheduler, large - small
        ),
        "registry_disk_bytes_per_agent": _each(light.disk, heavy.disk, large - small),
        "registry_nats_megabytes": heavy.nats,
        "registry_nats_after_load_megabytes": heavy.nats_loaded,
        "registry_scheduler_megabytes": heavy.scheduler,
        "registry_scheduler_peak_megabytes": heavy.scheduler_peak,
        "registry_scheduler_empty_megabytes": light.scheduler,
        "registry_scheduler_start_seconds": heavy.start_seconds,
        "registry_scheduler_start_small_seconds": light.start_seconds,
    }


async def _weigh(agents: int) -> Weighed:
    with tempfile.TemporaryDirectory() as scratch:
        async with embedded_server.running(Path(scratch), port=0) as server:
            config = settings.load({}, NATS_URL=server.url)
            async with connection.connected(config, "bench") as client:
                await layout.ensure(client, config)
                far = spread(datetime.now(UTC) + FAR, 900.0, agents)
                await veterans.enrol(client, agents, far, policy_of(config), lambda _: None)
                while await history_messages(client) < agents:  # noqa: ASYNC110  # the server can only be asked
                    await asyncio.sleep(0.2)
            nats = memory(pid_of(server)).pss
            began = time.monotonic()
            env = {"NATS_URL": server.url, "LOG_LEVEL": "error"}
            async with python_module("scheduler", env=env, ready_seconds=600) as scheduler:
                started = time.monotonic() - began
                await asyncio.sleep(SETTLE_SECONDS)
                held = memory(scheduler.pid)
                loaded = memory(pid_of(server)).pss
            return Weighed(
                nats, loaded, held.pss, held.peak, started, disk_megabytes(Path(scratch))
            )


def _each(light: float, heavy: float, agents: int) -> float:
    return (heavy - light) * 2**20 / agents


if __name__ == "__main__":
    import uvloop

    sizes = tuple(map(int, sys.argv[1:])) or (1_000, 100_000)
    print(
        json.dumps({name: round(v, 3) for name, v in uvloop.run(measure(*sizes)).items()}, indent=2)
    )
