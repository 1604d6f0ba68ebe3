"""Ingest in batch, and what a healthy ping costs on disk.

Messages as the scheduler writes them (10,000 agents in no order, each at a number of its own, one
GPU, times and latencies that jitter) go through the whole road from bytes to the committed
transaction, in batches of the feed's size. The file is then closed, and its bytes divided by its
rows; the payloads are counted apart. Before and after, DuckDB alone reads some of the same
messages: the raw limit of the same minute.

    python -m bench.storage_ingest --rows 500000
"""

import argparse
import asyncio
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Raw

from bench import duckdb_raw
from bus import settings
from bus.contract.messages import (
    AgentState,
    GpuReport,
    Outcome,
    Seconds,
    UptimeReport,
    Window,
    encode,
)
from storage.engine.rows import Arrival
from storage.ingest.writer import WriteResult
from storage.store.store import Store
from storage.store.switch_interval import short_switch_interval
from storage.stream.feed import BATCH_ROWS

QUICK: dict[str, Any] = {"rows": 300_000, "agents": 10_000}
FULL: dict[str, Any] = {"rows": 1_000_000}
START = datetime(2026, 9, 1, tzinfo=UTC)
RAW_BATCHES = 5


async def measure(rows: int = 1_000_000, agents: int = 10_000) -> dict[str, float]:
    """Flat keys with their units."""
    chance = random.Random(5)
    first = [chance.randrange(1, 5_000) for _ in range(agents)]
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(settings.load({}, GPUPING_DATA_DIR=scratch))
        await store.open(START)
        payload, batches = 0, []
        for begin in range(0, rows, BATCH_ROWS):
            batch = [arrival(i, first, chance) for i in range(begin, min(rows, begin + BATCH_ROWS))]
            payload += sum(len(arrival.data) for arrival in batch)
            batches.append(batch)
        raw = _raw(batches)
        began, used = time.perf_counter(), time.process_time()
        with short_switch_interval():
            await _pour(store, batches)
        spent, used = time.perf_counter() - began, time.process_time() - used
        await store.close()
        size = Path(store.file).stat().st_size
    raw = (raw + _raw(batches)) / 2
    return {
        "ingest_rows_per_second": round(rows / spent),
        "ingest_raw_rows_per_second": round(raw),
        "ingest_to_raw_ratio": round(rows / spent / raw, 2),
        "ingest_cpu_microseconds_per_row": round(used / rows * 1e6, 1),
        "history_bytes_per_row": round(size / rows, 2),
        "history_payload_bytes_per_row": round(payload / rows),
    }


def _raw(batches: list[list[Arrival]]) -> float:
    return duckdb_raw.rows_per_second(
        arrival.data for batch in batches[:RAW_BATCHES] for arrival in batch
    )


async def _pour(store: Store, batches: list[list[Arrival]]) -> None:
    """As the feed does: a batch is decoded while the one before it is written."""
    writing: asyncio.Task[WriteResult] | None = None
    for batch in batches:
        prepared = await store.prepare(batch)
        if writing is not None:
            await writing
        writing = asyncio.create_task(store.write(1, prepared))
    if writing is not None:
        await writing


def arrival(i: int, first: list[int], chance: random.Random) -> Arrival:
    """Returns the i-th outcome of a fleet whose pings are spread over 15 minutes."""
    agents = len(first)
    agent = (i * 7919) % agents
    pinged = START + timedelta(seconds=900 * i / agents, microseconds=chance.randrange(20_000))
    # The scheduler measures windows in whole milliseconds.
    pinged = pinged.replace(microsecond=pinged.microsecond // 1000 * 1000)
    up = 900.0 + chance.randrange(-200, 200) / 1000
    until = pinged + timedelta(microseconds=chance.randrange(600, 8_000))
    until = until.replace(
        microsecond=until.microsecond // 1000 * 1000
    )  # an agent's moments are whole milliseconds
    name = f"agent-{agent:05}"
    values = {
        "agent": name,
        "uuid": f"GPU-{agent:08}-2222-3333-4444-555555555555",
        "number": first[agent] + i // agents,
        "pinged": _text(pinged),
        "next": _text(pinged + timedelta(seconds=900)),
        "until": _text(until),
        "since": _text(pinged - timedelta(seconds=up)),
        "up": up,
        "response": chance.randrange(800, 12_000) / 1000,
        "late": chance.randrange(0, 200_000) / 1000,
    }
    return Arrival(i + 1, name, (_TEMPLATE % values).encode())


def _text(moment: datetime) -> str:
    """As messages write it."""
    return moment.isoformat().replace("+00:00", "Z")


def _template() -> str:
    """A state as the scheduler writes it, with the values that differ left open."""
    moments = {
        name: START.replace(year=2001 + place)
        for place, name in enumerate(("pinged", "next", "until", "since"))
    }
    seconds = Seconds(up=111.5)
    gpu = GpuReport(
        uuid="%(uuid)s",
        index=0,
        name="NVIDIA GeForce RTX 4090",
        state="up",
        uptime_percent=100.0,
        seconds=seconds,
    )
    report = UptimeReport(
        agent_id="a-number",
        boot_id="b" * 36,
        session_id="s" * 32,
        uptime_percent=100.0,
        seconds=seconds,
        window=Window(since=moments["since"], until=moments["until"], seconds=111.5, mark="m" * 24),
        gpu_available=True,
        reported_at=moments["until"],
        gpus=(gpu,),
        checks=180,
        agent_version="0.1.0",
        ping_id="p" * 32,
    )
    last = Outcome(
        ping_id="p" * 32,
        ping_seq=222,
        pinged_at=moments["pinged"],
        outcome="answered",
        verdict="good",
        uptime_percent=100.0,
        seconds=seconds,
        window_seconds=111.5,
        response_ms=333.5,
        late_ms=444.5,
        since=moments["since"],
        report=Raw(encode(report)),
    )
    state = AgentState(
        agent_id="a-number",
        ping_seq=222,
        interval_seconds=900.0,
        next_ping_at=moments["next"],
        last=last,
    )
    text = encode(state).decode()
    for name, moment in moments.items():
        text = text.replace(_text(moment), f"%({name})s")
    for value, name in (
        ("a-number", "agent"),
        ("111.5", "up"),
        ("222,", "number"),
        ("333.5", "response"),
        ("444.5", "late"),
    ):
        text = text.replace(value, f"%({name})s" + ("," if value.endswith(",") else ""))
    return text


_TEMPLATE = _template()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=FULL["rows"])
    for name, value in asyncio.run(measure(parser.parse_args().rows)).items():
        print(f"{name:32} {value:>14,}")
