"""A backlog from a real nats-server: what storage takes in per second after it was away.

Outcomes as the scheduler writes them stand in the history stream, sourced by the server from the
bucket; then the feed of the service reads them all into a new history file: delivery, decoding and
committed transactions.

    python -m bench.storage_stream --rows 200000
"""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.storage_ingest import START, arrival
from bus import settings
from bus.background import cancel_all
from bus.contract import subjects
from bus.transport import connection, embedded_server, jetstream_api, layout
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client
from storage.store.store import Store
from storage.store.switch_interval import short_switch_interval
from storage.stream.feed import Feed

QUICK: dict[str, Any] = {"rows": 30_000}
FULL: dict[str, Any] = {"rows": 200_000}
AGENTS = 10_000


async def measure(rows: int = 200_000) -> dict[str, float]:
    """Flat keys with their units."""
    with tempfile.TemporaryDirectory() as scratch:
        async with embedded_server.running(Path(scratch) / "bus", port=0) as server:
            chosen = settings.load({}, NATS_URL=server.url, GPUPING_DATA_DIR=scratch)
            async with connection.connected(chosen, "bench") as client:
                await layout.ensure(client, chosen)
                await _fill(client, rows)
                store = Store(chosen)
                await store.open(START)
                began, used = time.perf_counter(), time.process_time()
                with short_switch_interval():
                    await _read(Feed(client, chosen, store), store, rows)
                spent, used = time.perf_counter() - began, time.process_time() - used
                await store.close()
    return {
        "backlog_rows_per_second": round(rows / spent),
        "backlog_cpu_microseconds_per_row": round(used / rows * 1e6, 1),
    }


async def _fill(client: Client, rows: int) -> None:
    """Writes an agent's state again only when history has followed.

    The bucket keeps the newest state only.
    """
    chance = random.Random(5)
    first = [1] * AGENTS
    for begin in range(0, rows, AGENTS):
        until = min(rows, begin + AGENTS)
        for start in range(begin, until, MAX_MESSAGES):
            made = (
                arrival(i, first, chance) for i in range(start, min(until, start + MAX_MESSAGES))
            )
            await commit(
                client,
                [Write(subjects.state_key(one.agent_id), one.data) for one in made],
                timeout=60,
            )
        while await _in_history(client) < until:  # noqa: ASYNC110  # another server's progress: only looking tells
            await asyncio.sleep(0.05)


async def _in_history(client: Client) -> int:
    info = await jetstream_api.call(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
    count: int = info["state"]["messages"]
    return count


async def _read(feed: Feed, store: Store, rows: int) -> None:
    feeding = asyncio.create_task(feed.run())
    try:
        while not store.ingest or store.ingest.rows < rows:
            done, _ = await asyncio.wait([feeding], timeout=0.05)
            if done:
                feeding.result()
    finally:
        await cancel_all([feeding])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=FULL["rows"])
    for name, value in uvloop.run(measure(parser.parse_args().rows)).items():
        print(f"{name:36} {value:>14,}")
