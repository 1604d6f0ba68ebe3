"""JetStream's timers alone: memory, lateness, and how soon they are back after SIGKILL.

A timer is what the scheduler writes for each agent (`@at`, on a subject of its own). Most of them
fire in a day; a few thousand fire at a given rate after the restart, and are read as they are
stored. A timer that fires costs the server one fsync. The scheduler therefore pings from memory,
and a timer fires only if no scheduler pinged its agent.

    python -m bench.timers 10000 100000 1000000
"""

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.fleet import agent_id
from bench.million import percentiles
from bench.processes import disk_megabytes, memory, pid_of
from bus import settings
from bus.background import background
from bus.contract import subjects
from bus.contract.messages import Timer, decode
from bus.errors import BusError
from bus.settings import Settings
from bus.transport import connection, embedded_server, jetstream_api, layout
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client
from bus.transport.consumers.kv_watcher import KeyWatcher
from bus.transport.embedded_server import EmbeddedServer
from scheduler.write.timers import timer

QUICK: dict[str, Any] = {"sizes": (10_000,), "rates": (1_000,), "seconds": 2.0}
FULL: dict[str, Any] = {}

FAR = timedelta(days=1)
LEAD_SECONDS = 1.0
RESTART_SECONDS = 120.0


async def measure(
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000),
    rates: tuple[int, ...] = (100, 1_000, 2_000),
    seconds: float = 5.0,
) -> dict[str, float]:
    """For each size, on a server of its own; at each rate timers fire for `seconds`."""
    figures: dict[str, float] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            found = await _one_size(Path(scratch), size, rates, seconds)
            figures |= {f"timers_{_short(size)}_{name}": value for name, value in found.items()}
    return figures


async def _one_size(
    folder: Path, size: int, rates: tuple[int, ...], seconds: float
) -> dict[str, float]:
    async with embedded_server.running(folder, port=0) as server:
        config = settings.load({}, NATS_URL=server.url)
        async with connection.connected(config, "bench") as client:
            await layout.ensure(client, config)
            before = memory(pid_of(server)).pss
            figures = {
                "publish_seconds": await _publish(
                    client, 0, size, lambda _: datetime.now(UTC) + FAR
                )
            }
            held = memory(pid_of(server))
            figures |= {
                "server_megabytes": held.pss,
                "server_bytes_each": (held.pss - before) * 2**20 / size,
                "server_peak_megabytes": held.peak,
                "disk_megabytes": disk_megabytes(folder),
            }
        figures["restart_seconds"] = await _restart(server, config, size)
        async with connection.connected(config, "bench") as client:
            figures["restarted_megabytes"] = memory(pid_of(server)).pss
            for rate in rates:
                figures |= await _fire(client, size, rate, round(rate * seconds))
    return figures


async def _publish(client: Client, first: int, count: int, due_at: Any) -> float:
    """Seconds that it took; each batch is on disk before the next is sent."""
    began = time.monotonic()
    for start in range(first, first + count, MAX_MESSAGES):
        numbers = range(start, min(start + MAX_MESSAGES, first + count))
        await commit(client, [_timer_at(n, due_at(n)) for n in numbers], timeout=60)
    return time.monotonic() - began


async def _restart(server: EmbeddedServer, config: Settings, size: int) -> float:
    """From SIGKILL until a new process says that it has every timer."""
    assert server.process  # noqa: S101
    killed, began = server.process, time.monotonic()
    killed.kill()
    await killed.wait()
    async with asyncio.timeout(RESTART_SECONDS):
        while True:
            try:
                async with connection.connected(config, "bench-restart") as client:
                    info = await jetstream_api.call(client, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
            except BusError:
                await asyncio.sleep(0.05)
                continue
            if info.get("state", {}).get("messages", 0) >= size:
                return time.monotonic() - began
            await asyncio.sleep(0.05)


async def _fire(client: Client, size: int, rate: int, count: int) -> dict[str, float]:
    """Makes `count` timers fire one after the other, and measures how late they are."""
    begins = datetime.now(UTC) + timedelta(seconds=LEAD_SECONDS + count / 5_000)
    late: list[float] = []
    all_fired = asyncio.Event()

    def fired(_subject: str, data: bytes, _sequence: int, time_ns: int, _deleted: bool) -> None:
        due = decode(data, Timer).due_at
        if due < begins:
            return  # of the rate before
        late.append(time_ns / 1e6 - due.timestamp() * 1e3)
        if len(late) >= count:
            all_fired.set()

    watcher = KeyWatcher(client, subjects.BUCKET_STREAM, subjects.due_key("*"), fired)
    step = max(1, size // count)
    async with background() as start:
        start(watcher.run())
        await watcher.loaded.wait()
        await _publish_due(client, [n * step % size for n in range(count)], begins, rate)
        patience = (begins - datetime.now(UTC)).total_seconds() + count / rate + 60
        try:
            async with asyncio.timeout(patience):
                await all_fired.wait()
        except TimeoutError:
            pass  # the figure below says how many were missing
    figures = {
        f"late_{name}_at_{rate}_per_second_ms": ms for name, ms in percentiles(sorted(late)).items()
    }
    return figures | {f"not_fired_at_{rate}_per_second": float(count - len(late))}


async def _publish_due(client: Client, numbers: list[int], begins: datetime, rate: int) -> None:
    for first in range(0, len(numbers), MAX_MESSAGES):
        batch = [
            _timer_at(number, begins + timedelta(seconds=(first + index) / rate))
            for index, number in enumerate(numbers[first : first + MAX_MESSAGES])
        ]
        await commit(client, batch, timeout=60)


def _timer_at(number: int, due_at: datetime) -> Write:
    """A timer that fires at its due time; those of the scheduler fire later."""
    return timer(agent_id(number), 1, due_at, due_at)


def _short(size: int) -> str:
    return f"{size // 1_000_000}m" if size % 1_000_000 == 0 else f"{size // 1_000}k"


if __name__ == "__main__":
    import uvloop

    chosen = tuple(map(int, sys.argv[1:])) or (10_000, 100_000, 1_000_000)
    print(
        json.dumps({name: round(v, 3) for name, v in uvloop.run(measure(chosen)).items()}, indent=2)
    )
