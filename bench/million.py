"""A million agents that answer, at the default interval: lateness, and the cost of each process.

Every agent answered once before, so that each has a state; due times are spread evenly over one
interval. The scheduler starts with that fleet and pings by the clock. Lateness is read afterwards
from GPUPING_HISTORY by an independent reader, which also tells whether every due ping was made
once.

    python -m bench.million --agents 1000000 --minutes 10
    python -m bench.million --agents 50000 --minutes 1      # also 1,111 pings a second
"""

import argparse
import asyncio
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench import lateness, veterans
from bench.fleet import spread
from bench.processes import cpu_seconds, disk_megabytes, memory, pid_of, python_module
from bench.scheduler_throughput import history_messages
from bus import settings
from bus.settings import Settings
from bus.transport import connection, embedded_server, layout
from bus.transport.connection import Client
from scheduler.service import policy_of

FULL_FLEET, FULL_INTERVAL_MINUTES = 1_000_000, 15.0
QUICK: dict[str, Any] = {"agents": 20_000, "minutes": 0.2}
FULL: dict[str, Any] = {}

# Generous: no agent may be due before the fleet is enrolled and loaded.
ENROL_SECONDS_EACH = 300e-6
LOAD_SECONDS_EACH = 120e-6
MARGIN_SECONDS = 10.0
SETTLE_SECONDS = 3.0  # after the last due time that counts, until its outcome is read


class Run:
    """One fleet on one server: enrolled, pinged for a while, read back."""

    def __init__(
        self,
        client: Client,
        server: embedded_server.EmbeddedServer,
        agents: int,
        interval_minutes: float,
    ) -> None:
        self.client, self.server, self.agents = client, server, agents
        self.env = {
            "NATS_URL": server.url,
            "PING_BASE_INTERVAL_MINUTES": f"{interval_minutes:g}",
            "LOG_LEVEL": "warning",
        }
        self.settings: Settings = settings.load({}, **self.env)
        lead = MARGIN_SECONDS + agents * (ENROL_SECONDS_EACH + LOAD_SECONDS_EACH)
        self.starts = datetime.now(UTC) + timedelta(seconds=lead)
        self.due_at = spread(self.starts, interval_minutes * 60, agents)

    async def enrol(self, bar: Progress) -> None:
        """The fleet stands in the bucket, and its past in history."""
        task = bar.add_task("enrol", total=self.agents)
        await veterans.enrol(
            self.client,
            self.agents,
            self.due_at,
            policy_of(self.settings),
            lambda n: bar.advance(task, n),
        )
        follow = bar.add_task("history follows", total=self.agents)
        while (there := await history_messages(self.client)) < self.agents:
            bar.update(follow, completed=there)
            await asyncio.sleep(0.5)
        bar.update(follow, completed=there)

    async def ping(self, seconds: float, bar: Progress) -> dict[str, float]:
        """Returns what the processes cost while they ping; the fleet was loaded before."""
        began = time.monotonic()
        async with (
            python_module("bench.responder", self.server.url) as responder,
            python_module("scheduler", env=self.env, ready_seconds=600) as scheduler,
        ):
            figures = {"million_start_seconds": time.monotonic() - began}  # responder and scheduler
            wait = (self.starts - datetime.now(UTC)).total_seconds()
            if wait < 0:
                bar.console.print(
                    f"the fleet was {-wait:.0f} s late: what was due by then is not counted"
                )
            await self._pass(bar, "wait for the first due time", max(0.0, wait))
            self.first_counted = datetime.now(UTC) + timedelta(
                seconds=1.0 if wait >= 0 else 5.0 - wait
            )
            await asyncio.sleep(max(0.0, (self.first_counted - datetime.now(UTC)).total_seconds()))
            pids = {
                "scheduler": scheduler.pid,
                "nats": pid_of(self.server),
                "responder": responder.pid,
            }
            cpu, began = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic()
            await self._pass(bar, "ping", seconds)
            took = time.monotonic() - began
            self.last_counted = datetime.now(UTC)
            for name, pid in pids.items():
                figures[f"million_{name}_cpu_percent"] = 100 * (cpu_seconds(pid) - cpu[name]) / took
                held = memory(pid)
                figures[f"million_{name}_pss_megabytes"] = held.pss
                figures[f"million_{name}_rss_megabytes"] = held.rss
                figures[f"million_{name}_peak_megabytes"] = held.peak
            await asyncio.sleep(SETTLE_SECONDS)
        return figures

    async def read_back(self, bar: Progress) -> dict[str, float]:
        """Returns how late the counted pings were, and whether each was made once."""
        task = bar.add_task("read history", total=await history_messages(self.client) - self.agents)
        seen = await lateness.read(
            self.client, self.agents + 1, lambda n: bar.update(task, completed=n)
        )
        bar.update(task, completed=len(seen.agents))
        since, until = self.first_counted.timestamp(), self.last_counted.timestamp()
        counted = [i for i, at in enumerate(seen.due_at) if since <= at < until]
        late = sorted(seen.late_ms[i] for i in counted)
        durable = sorted(seen.durable_ms[i] for i in counted)
        return {
            "million_agents": float(self.agents),
            "million_pings": float(len(counted)),
            "million_pings_per_second": len(counted) / (until - since),
            "million_pings_lost": float(self._due_between(since, until, seen) - len(counted)),
            "million_pings_doubled": float(len(seen.agents) - len(set(seen.agents))),
            "million_not_answered": float(len(seen.agents) - seen.outcomes.get("answered", 0)),
            **{f"million_late_{name}_ms": value for name, value in percentiles(late).items()},
            **{f"million_durable_{name}_ms": value for name, value in percentiles(durable).items()},
        }

    def _due_between(self, since: float, until: float, seen: lateness.Seen) -> int:
        """Returns how many pings were due: the first of each agent, and one after each ping."""
        interval = self.settings.base_interval_seconds
        first = sum(
            since <= self.due_at(number).timestamp() < until for number in range(self.agents)
        )
        made = (at + late / 1000 for at, late in zip(seen.due_at, seen.late_ms, strict=True))
        return first + sum(since <= at + interval < until for at in made)

    async def _pass(self, bar: Progress, label: str, seconds: float) -> None:
        task, end = bar.add_task(label, total=round(seconds)), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            bar.update(task, completed=round(seconds - left))
            await asyncio.sleep(min(1.0, left))
        bar.update(task, completed=round(seconds))


def percentiles(ordered: list[float]) -> dict[str, float]:
    """Of values in order: the middle, what 1 % exceeded, the largest."""
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {"p50": ordered[last // 2], "p99": ordered[round(last * 0.99)], "max": ordered[-1]}


async def measure(
    agents: int = FULL_FLEET,
    minutes: float = 10.0,
    interval_minutes: float | None = None,
    folder: str | None = None,
) -> dict[str, float]:
    """Measures one fleet. By default a smaller fleet has a shorter interval, at the same rate."""
    interval = interval_minutes or FULL_INTERVAL_MINUTES * agents / FULL_FLEET
    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with tempfile.TemporaryDirectory(dir=folder) as scratch, Progress(*columns) as bar:
        async with (
            embedded_server.running(Path(scratch), port=0) as server,
            connection.connected(settings.load({}, NATS_URL=server.url), "bench") as client,
        ):
            run = Run(client, server, agents, interval)
            await layout.ensure(client, run.settings)
            await run.enrol(bar)
            figures = await run.ping(minutes * 60, bar)
            figures["million_disk_megabytes"] = disk_megabytes(Path(scratch))
            return await run.read_back(bar) | figures


def main() -> None:
    import uvloop  # noqa: PLC0415  # an extra

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=FULL_FLEET)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--interval-minutes", type=float)
    parser.add_argument(
        "--folder", help="where the server's files go; the system's temporary folder by default"
    )
    given = parser.parse_args()
    figures = uvloop.run(measure(given.agents, given.minutes, given.interval_minutes, given.folder))
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
