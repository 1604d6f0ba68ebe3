"""How many scrapes a second Prometheus sustains here: the peer that a user would pick instead.

It polls the same number of targets from the same machine in the same run, with every doubt decided
in its favour: its pages are a fraction of our reports, are made once and come from a process that
does nothing else; what it stores never changes and so compresses best; and it keeps its default
write-ahead log, which is not synced to disk at each scrape, where our pings count only once they
are.

The interval is shortened step by step until scrapes fall out: a rate is sustained when at least 98
% of the scrapes that it demands are answered by the targets and stored by Prometheus, and 99.9 % of
the targets are up. Being late is not held against it, nor, in a full run, is one failure.

    python -m bench.prometheus_peer
"""

import asyncio
import json
import math
import os
import re
import shutil
import signal
import socket
import tempfile
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.processes import Child, cpu_seconds, memory, python_module, stop
from bench.scrape_targets import COUNT_PATH, SAMPLES

QUICK: dict[str, Any] = {
    "targets": 2_000,
    "window_seconds": 2.0,
    "first_rate": 4_000.0,
    "attempts": 1,
    "budget_seconds": 20.0,
}
FULL: dict[str, Any] = {"targets": 20_000}  # as many as agents in scheduler_throughput

# This machine is asked directly, whatever http_proxy says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ANSWERED_SHARE = 0.98
UP_SHARE = 0.999
CHANGE_SECONDS = 60.0  # its discovery looks every 5 s, and so does its scrape manager after it
TYPICAL_CHANGE_SECONDS = 4.5
SMALLEST_FACTOR, LARGEST_FACTOR = 1.2, 1.6  # from one rate to the next
# Prometheus keeps at most 1,000 idle connections to an address; with fewer addresses it would dial
# anew under load.
ADDRESSES = 16
OWN_SAMPLES = 5  # up, scrape_duration_seconds and their like, which it adds to each scrape


class Step(NamedTuple):
    """One rate, tried."""

    demanded: float  # scrapes a second
    answered: float  # as the targets counted
    stored: float  # as Prometheus counted: samples appended, by those of one scrape
    up: int
    # the interval that only 1 % of the scrapes exceeded, as a multiple of the one demanded
    late_p99: float
    cpu_percent: float

    @property
    def done(self) -> float:
        """Scrapes a second that both sides saw.

        What was made up for from before the window is not sustained.
        """
        return min(self.answered, self.stored, self.demanded)

    def sustained(self, targets: int) -> bool:
        """Whether nothing fell out."""
        return self.done >= ANSWERED_SHARE * self.demanded and self.up >= UP_SHARE * targets


class Prometheus:
    """One of our own, on a folder of its own."""

    def __init__(self, folder: Path, targets: int, fleet: Child) -> None:
        self._folder, self.targets = folder, targets
        self._target_port, self._targets_pid = int(fleet.said), fleet.pid
        self._port = _free_port()
        self.process: asyncio.subprocess.Process

    async def start(self, rate: float) -> None:
        """Scrapes every target at that rate when this returns."""
        instances = [
            {
                "targets": [f"127.0.0.{1 + number % ADDRESSES}:{self._target_port}"],
                "labels": {
                    "instance": f"bench-{number:07d}",
                    "__metrics_path__": f"/agents/bench-{number:07d}",
                },
            }
            for number in range(self.targets)
        ]
        (self._folder / "targets.json").write_text(json.dumps(instances))
        self._configure(rate)
        self.process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=error",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self._everyone_was_scraped()

    async def ask_for(self, rate: float) -> None:
        """Scrapes every target at that rate when this returns."""
        self._configure(rate)
        self.process.send_signal(signal.SIGHUP)
        await self._everyone_was_scraped()

    async def step(self, rate: float, seconds: float) -> Step:
        """Watches for at least that long.

        Whole intervals, for within one the targets are not spread evenly.
        """
        interval = self.targets / rate
        seconds = math.ceil(seconds / interval - 0.01) * interval
        answered, appended = await self._counts()
        began, cpu = time.monotonic(), self._cpu_seconds()
        await asyncio.sleep(seconds)
        answered, appended = (
            after - before
            for after, before in zip(await self._counts(), (answered, appended), strict=True)
        )
        took = time.monotonic() - began
        return Step(
            demanded=rate,
            answered=answered / took,
            stored=appended / (SAMPLES + OWN_SAMPLES) / took,
            up=await self._up(),
            late_p99=(await self._intervals())[self._interval].p99_seconds * rate / self.targets,
            cpu_percent=100 * (self._cpu_seconds() - cpu) / took,
        )

    def _cpu_seconds(self) -> float:
        """Of both sides: the targets take their share of the machine as our responder does."""
        return cpu_seconds(self.process.pid) + cpu_seconds(self._targets_pid)

    def _configure(self, rate: float) -> None:
        milliseconds = round(1000 * self.targets / rate)
        self._interval = (
            f"{milliseconds / 1000:g}s" if milliseconds >= 1000 else f"{milliseconds}ms"
        )  # as Go writes it
        interval = f"{milliseconds}ms"
        (self._folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}\n"
            "scrape_configs: [{job_name: agents, file_sd_configs: [{files: [targets.json]}]}]\n"
        )

    async def _everyone_was_scraped(self) -> None:
        """Twice, at the interval that it has now.

        A new one holds once its discovery and its scraper have ticked.
        """
        async with asyncio.timeout(CHANGE_SECONDS):
            while (await self._intervals())[self._interval].number < self.targets:  # noqa: ASYNC110  # it can only be asked
                await asyncio.sleep(0.2)

    async def _up(self) -> int:
        query = urllib.parse.urlencode({"query": "count(up == 1)"})
        result = json.loads(await _get(self._port, f"/api/v1/query?{query}"))["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    async def _counts(self) -> tuple[float, float]:
        """Scrapes answered by the targets, samples appended by Prometheus."""
        answered, own = await asyncio.gather(
            _get(self._target_port, COUNT_PATH), _get(self._port, "/metrics")
        )
        appended = re.findall(
            r"^prometheus_tsdb_head_samples_appended_total\{.*?\} (\S+)$", own, re.MULTILINE
        )
        return float(answered), sum(map(float, appended))

    async def _intervals(self) -> defaultdict[str, "Interval"]:
        """What it says of the time between scrapes, by the interval it was told."""
        try:
            own = await _get(self._port, "/metrics")
        except OSError:  # it does not listen yet
            own = ""
        found: defaultdict[str, Interval] = defaultdict(lambda: Interval(0.0, 0))
        name = "prometheus_target_interval_length_seconds"
        p99 = dict(
            re.findall(rf'^{name}{{interval="(\S+)",quantile="0.99"}} (\S+)$', own, re.MULTILINE)
        )
        for interval, count in re.findall(
            rf'^{name}_count{{interval="(\S+)"}} (\S+)$', own, re.MULTILINE
        ):
            found[interval] = Interval(float(p99[interval]), int(float(count)))
        return found


class Interval(NamedTuple):
    """Only 1 % of the times between scrapes were longer; how many there were."""

    p99_seconds: float
    number: int


async def measure(
    targets: int = 10_000,
    window_seconds: float = 10.0,
    first_rate: float = 2_000.0,
    attempts: int = 2,
    budget_seconds: float = 300.0,
) -> dict[str, float]:
    """The highest rate that was sustained, searched upwards.

    Empty where no prometheus is installed.

    The search ends at the first rate that failed `attempts` times, or with the budget.

    """
    if shutil.which("prometheus") is None:
        return {}
    end = time.monotonic() + budget_seconds
    async with _scraping(targets, first_rate) as prometheus:
        steps = [await prometheus.step(first_rate, window_seconds)]
        failures = 0
        while (
            failures < attempts and time.monotonic() + window_seconds + TYPICAL_CHANGE_SECONDS < end
        ):
            rate = _next_rate(steps, targets)
            await prometheus.ask_for(rate)
            steps.append(await prometheus.step(rate, window_seconds))
            failures = 0 if steps[-1].sustained(targets) else failures + 1
        return _summary(steps, targets) | {
            "prometheus_pss_megabytes": memory(prometheus.process.pid).pss
        }


def _next_rate(steps: list[Step], targets: int) -> float:
    """As far up as the CPU that is left promises, and no further at once.

    After a failure a little lower.
    """
    last = steps[-1]
    if not last.sustained(targets):
        return last.demanded * (1 - (SMALLEST_FACTOR - 1) / 2)
    promise = 0.85 * 100 * (os.cpu_count() or 1) / max(1.0, last.cpu_percent)
    return last.demanded * min(max(promise, SMALLEST_FACTOR), LARGEST_FACTOR)


def _summary(steps: list[Step], targets: int) -> dict[str, float]:
    sustained = [step for step in steps if step.sustained(targets)]
    best = max(sustained, key=lambda step: step.demanded, default=None)
    result = {
        "prometheus_scrapes_per_second": best.done if best else 0.0,
        "prometheus_peak_scrapes_per_second": max(step.done for step in steps),
        "prometheus_lowest_failed_scrapes_per_second": min(
            (step.demanded for step in steps if not step.sustained(targets)), default=0.0
        ),
        "prometheus_targets": float(targets),
    }
    if best:
        result |= {
            "prometheus_cpu_percent": best.cpu_percent,
            "prometheus_interval_p99_ratio": best.late_p99,
        }
    return result


@asynccontextmanager
async def _scraping(targets: int, rate: float) -> AsyncIterator[Prometheus]:
    with tempfile.TemporaryDirectory() as folder:
        async with python_module("bench.scrape_targets") as fleet:
            prometheus = Prometheus(Path(folder), targets, fleet)
            try:
                await prometheus.start(rate)
                yield prometheus
            finally:
                await stop(prometheus.process)


async def _get(port: int, path: str) -> str:
    def get() -> str:
        with _DIRECT.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(**FULL)), indent=2))
