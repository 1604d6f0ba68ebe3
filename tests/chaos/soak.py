"""`make soak MINUTES=30`: the whole system at work, and what it uses: it must not grow.

Memory, descriptors and threads of every process are read every few seconds, and the size of what
each keeps on disk. A minute after the warm-up is compared with the last minute. In both the hosts
are pinged as always and nobody looks at the dashboard.

Two things of storage grow with the day that the soak is filling and are no leak:

- DuckDB keeps the rows that it took in since its last checkpoint in memory: 17 MB for the first
  40,000 outcomes, 85 MB for 400,000 (measured), and then its log has 64 MB and they go to the file.
  It says how much that is, and the rest of storage is judged.
- A question about the last 24 hours needs memory for all of their outcomes. Its allocator holds
  what it gave back for some ten seconds: 8 to 12 MB at 84,000 outcomes, asked every few seconds,
  above a floor of 51 to 54 MB that stayed where it was (measured). So nobody asks while memory is
  compared.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from msgspec import Struct

from bus.client.fleet_client import FleetClient
from bus.clock import boottime
from tests.chaos.attack import Attack
from tests.chaos.run import Result, append, run, say, table, tell_failures
from tests.chaos.system import Shape, System

READ_SECONDS = 5.0
WARM_SHARE = 0.3  # of the time: caches fill, and the allocator finds its size
CALM_SECONDS = 30.0  # without viewers, until what they needed has been given back
SAMPLES_COMPARED = 12
GROWN_SHARE = 1.05
GROWN_MEGABYTES = 6.0
MORE_DESCRIPTORS = 4
MORE_THREADS = 2


class Use(Struct, frozen=True):
    """What one process uses at one moment. Memory is its share of what is anonymous.

    Pages of programs and libraries are left out: how many are in memory, and with how many other
    processes they are shared, is the machine's affair, and moved the sum by 20 MB either way.
    `megabytes` is without `engine_megabytes`, which DuckDB says that it uses.
    """

    megabytes: float
    descriptors: int
    threads: int
    disk_megabytes: float
    engine_megabytes: float = 0.0


class Uses(Struct):
    """What every process used, by its name: as people looked, and in the two minutes compared."""

    busy: dict[str, list[Use]] = {}
    warm: dict[str, list[Use]] = {}
    last: dict[str, list[Use]] = {}


async def soak(minutes: float, uses: Uses, result: Result, system: System) -> None:
    """Reads while people look at the dashboard, and judges what was read without them."""
    began_at = boottime()
    compared_for = CALM_SECONDS + SAMPLES_COMPARED * READ_SECONDS
    await _busy(system, began_at + minutes * 60 * WARM_SHARE, uses.busy)
    await _calm(system, uses.warm)
    await _busy(system, began_at + minutes * 60 - compared_for, uses.busy)
    await _calm(system, uses.last)
    for name in uses.warm.keys() & uses.last.keys():
        first, last = _median(uses.warm[name]), _median(uses.last[name])
        found = _growth(first, last, is_server="server" in name)
        result.problems += [f"{name}: {text}" for text in found]


async def _busy(system: System, ends_at: float, uses: dict[str, list[Use]]) -> None:
    """People look at the dashboard until then."""
    looking = asyncio.create_task(_look(system))
    said_at = boottime()
    while boottime() < ends_at:
        await asyncio.sleep(READ_SECONDS)
        await _read_all(system, uses)
        if boottime() - said_at > 60:
            said_at = boottime()
            left = (ends_at - boottime()) / 60
            say(f"people look for {left:.0f} more minutes, {len(system.announced)} outcomes")
    if looking.done():
        looking.result()  # what ended it
    looking.cancel()


async def _calm(system: System, uses: dict[str, list[Use]]) -> None:
    """Nobody looks; what is read after a while is compared."""
    say("nobody looks, and memory is read")
    await asyncio.sleep(CALM_SECONDS)
    for _ in range(SAMPLES_COMPARED):
        await asyncio.sleep(READ_SECONDS)
        await _read_all(system, uses)


async def _read_all(system: System, uses: dict[str, list[Use]]) -> None:
    for name, process in system.processes.items():
        if process.pid is None:
            continue
        engine = 0.0
        if name.startswith("storage"):
            engine = await _engine_megabytes(system)
        use = await asyncio.to_thread(_read, process.pid, system.data_of(name), engine)
        uses.setdefault(name, []).append(use)


async def _engine_megabytes(system: System) -> float:
    stats = await FleetClient(system.bus, 5.0).storage_stats()
    return (stats.engine_bytes or 0) / 2**20


async def _look(system: System) -> None:
    """A person's browser: the dashboard every few seconds, live events all the time."""
    url = await _gateway_url(system)
    async with httpx.AsyncClient(base_url=url, timeout=30) as browser:
        live = asyncio.create_task(_listen(browser))
        try:
            while True:
                await asyncio.sleep(READ_SECONDS)
                for path in ("dashboard", "agents", f"agents/{system.hosts[0]}/history?hours=24"):
                    await browser.get(f"/ping-system/{path}")
                await browser.get("/metrics")
        finally:
            live.cancel()


async def _listen(browser: httpx.AsyncClient) -> None:
    async with browser.stream("GET", "/ping-system/events") as events:
        async for _ in events.aiter_bytes():
            pass


async def _gateway_url(system: System) -> str:
    """The port that the gateway has taken, by its listening socket."""
    pid = system.processes["gateway-1"].pid
    while True:
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and _owns(pid, fields[9]):
                return f"http://127.0.0.1:{int(fields[1].rpartition(':')[2], 16)}"
        await asyncio.sleep(0.5)


def _owns(pid: int | None, inode: str) -> bool:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                return True
        except OSError:
            continue
    return False


def _read(pid: int, folder: Path, engine_megabytes: float) -> Use:
    proc = Path(f"/proc/{pid}")
    rollup = (proc / "smaps_rollup").read_text()
    anonymous = next(line for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    status = (proc / "status").read_text()
    threads = next(line for line in status.splitlines() if line.startswith("Threads:"))
    size = 0
    for parent, _, names in os.walk(folder):  # passes over what disappears meanwhile
        for name in names:
            with suppress(OSError):
                size += Path(parent, name).stat().st_blocks * 512
    return Use(
        int(anonymous.split()[1]) / 1024 - engine_megabytes,
        len(list((proc / "fd").iterdir())),
        int(threads.split()[1]),
        size / 2**20,
        engine_megabytes,
    )


def _growth(first: Use, last: Use, *, is_server: bool) -> list[str]:
    """What grew between the warm-up's end and the end; empty when nothing did.

    The history grows by what is recorded, so disks are reported and not judged.
    """
    found = []
    if last.megabytes > first.megabytes * GROWN_SHARE + GROWN_MEGABYTES:
        found.append(f"memory grew from {first.megabytes:.1f} to {last.megabytes:.1f} MB")
    if last.descriptors > first.descriptors + MORE_DESCRIPTORS:
        found.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
    # The Go runtime adds threads for calls that block, and keeps them.
    if not is_server and last.threads > first.threads + MORE_THREADS:
        found.append(f"threads grew from {first.threads} to {last.threads}")
    return found


def _median(uses: Sequence[Use]) -> Use:
    return Use(
        statistics.median(use.megabytes for use in uses),
        round(statistics.median(use.descriptors for use in uses)),
        round(statistics.median(use.threads for use in uses)),
        statistics.median(use.disk_megabytes for use in uses),
        statistics.median(use.engine_megabytes for use in uses),
    )


def uses_table(uses: Uses) -> str:
    """The medians of the two minutes compared, the least in each, the most while people looked.

    The least is what is left of memory that is given back slowly.
    """
    head = f"{'process':>12} {'memory MB':>18} {'least':>13} {'most':>8} {'descriptors':>13}"
    lines = [head + f" {'threads':>9} {'disk MB':>18} {'DuckDB MB':>12}"]
    for name in sorted(uses.warm.keys() & uses.last.keys()):
        first, last = _median(uses.warm[name]), _median(uses.last[name])
        least_first = min(use.megabytes for use in uses.warm[name])
        least_last = min(use.megabytes for use in uses.last[name])
        most = max(use.megabytes for use in uses.busy[name])
        lines.append(
            f"{name:>12} {first.megabytes:>8.1f} {last.megabytes:>9.1f}"
            f" {least_first:>6.1f} {least_last:>6.1f} {most:>8.1f}"
            f" {first.descriptors:>6} {last.descriptors:>6} {first.threads:>4} {last.threads:>4}"
            f" {first.disk_megabytes:>8.1f} {last.disk_megabytes:>9.1f}"
            f" {first.engine_megabytes:>5.1f} {last.engine_megabytes:>6.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--servers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--interval", type=float, default=3.0, help="seconds between pings")
    parser.add_argument("--json", type=Path, help="append the result to this file")
    asked = parser.parse_args()
    uses = Uses()

    async def scenario(result: Result, system: System, _attack: Attack) -> None:
        await soak(asked.minutes, uses, result, system)

    shape = Shape(
        servers=asked.servers,
        hosts=asked.hosts,
        interval_seconds=asked.interval,
    )
    result = asyncio.run(run("soak", shape, scenario, keep=False))
    tell_failures(result)
    if asked.json is not None:
        append(asked.json, result)
    say("\n" + uses_table(uses))
    say("\n" + table([result]))
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
