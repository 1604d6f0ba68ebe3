"""Questions at scale: a fleet of 10,000 agents pinged every 15 minutes, up to 100 million outcomes.

The rows are made inside DuckDB in the order in which ingest would have written them (2 % of them not healthy), the
rollups by the code that makes them in service. The questions then go through the store as the service asks them.

    python -m bench.storage_queries --rows 100000000 --folder /var/tmp/history
"""

import argparse
import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bus import settings
from bus.questions import HistoryRequest, OverviewRequest, UptimesRequest
from bus.statements import StatementRequest
from storage import answers, reports
from storage.database import Connection
from storage.store import Reader, Store

QUICK: dict[str, Any] = {"rows": 1_000_000, "rounds": 20}
FULL: dict[str, Any] = {"rows": 100_000_000, "rounds": 200}
AGENTS = 10_000
SPACING_US = 900_000_000 // AGENTS
START = datetime(2026, 7, 1, tzinfo=UTC)
CHUNK = 5_000_000

_ROWS = """
INSERT INTO pings BY NAME
SELECT
    ((i * 7919) % {agents})::INTEGER AS agent,
    i // {agents} + 1 + (i * 7919) % {agents} % 997 AS ping_seq,
    {start} + i * {spacing} + (random() * 20000)::BIGINT AS pinged_us,
    'answered' AS outcome,
    CASE WHEN bad THEN 'poor' ELSE 'good' END AS verdict,
    CASE WHEN bad THEN 75.0 ELSE 100.0 END AS uptime_percent,
    CASE WHEN bad THEN 675000 ELSE 899800 + (random() * 400)::BIGINT END AS up_ms,
    0 AS degraded_ms, CASE WHEN bad THEN 225000 ELSE 0 END AS down_ms, 0 AS unknown_ms, 0 AS excused_ms,
    (random() * 8)::BIGINT AS until_ms, (random() * 4)::BIGINT - 2 AS since_ms,
    CASE WHEN bad THEN 1 ELSE 0 END AS consecutive_poor,
    900.0 AS interval_seconds, 900000000 AS next_us,
    800 + (random() * 11200)::BIGINT AS response_us, (random() * 200000)::BIGINT AS late_us,
    ((i * 7919) % {agents})::INTEGER AS gpu_set
FROM (SELECT i, hash(i) % 50 = 0 AS bad FROM range({begin}, {end}) AS t(i))
ORDER BY pinged_us
"""
_NAMES = """
INSERT INTO agents SELECT i::INTEGER, 'agent-' || lpad(i::VARCHAR, 5, '0') FROM range({agents}) AS t(i);
INSERT INTO gpu_sets SELECT i::INTEGER, '[["GPU-' || i || '-2222-3333-4444-555555555555",0,"RTX 4090"]]'
FROM range({agents}) AS t(i);
"""


async def measure(rows: int = 100_000_000, rounds: int = 200, folder: str | None = None) -> dict[str, float]:
    """Flat keys with their units. With a `folder`, a history that is there already is used again."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(settings.load({}, GPUPING_DATA_DIR=folder or scratch))
        now = START + timedelta(microseconds=rows * SPACING_US)
        began = time.perf_counter()
        await store.open(now)
        opened = time.perf_counter() - began
        assert store.ingest  # noqa: S101  # open
        if store.ingest.rows < rows:
            await _fill(store, rows, now)
        figures = {"history_rows": store.ingest.rows, "history_open_seconds": round(opened, 2)}
        figures["history_bytes_per_row_at_scale"] = round(store.file.stat().st_size / store.ingest.rows, 2)
        for name, question in _questions(now).items():
            figures |= await _time(store, name, question, rounds)
        figures["storage_rss_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        await store.close()
        return figures


def _questions(now: datetime) -> dict[str, Callable[[Reader], object]]:
    chance = random.Random(2)

    def agent() -> str:
        return f"agent-{chance.randrange(AGENTS):05}"

    page = tuple(f"agent-{number:05}" for number in range(1000))
    month = f"{now - timedelta(days=31):%Y-%m}"
    return {
        "agent_history_24h": lambda r: answers.history(r, agent(), HistoryRequest(), now),
        "dashboard_24h": lambda r: answers.overview(r, OverviewRequest(), now),
        "fleet_month": lambda r: answers.overview(r, OverviewRequest(hours=720.0), now),
        "uptimes_24h_1000_agents": lambda r: answers.uptimes(r, UptimesRequest(agent_ids=page), now),
        "uptimes_month_1000_agents": lambda r: answers.uptimes(r, UptimesRequest(agent_ids=page, hours=720.0), now),
        "agent_statement": lambda r: reports.statement(r, agent(), StatementRequest(month=month), now, 99.0),
        "agent_history_year": lambda r: answers.history(r, agent(), HistoryRequest(hours=8760.0), now),
    }


async def _time(store: Store, name: str, question: Callable[[Reader], object], rounds: int) -> dict[str, float]:
    spent = []
    for _ in range(rounds if "year" not in name and "statement" not in name else max(5, rounds // 10)):
        began = time.perf_counter()
        await store.read(question)
        spent.append((time.perf_counter() - began) * 1000)
    spent.sort()
    p99 = spent[min(len(spent) - 1, int(len(spent) * 0.99))]
    return {f"{name}_p50_ms": round(spent[len(spent) // 2], 1), f"{name}_p99_ms": round(p99, 1)}


async def _fill(store: Store, rows: int, now: datetime) -> None:
    assert store.ingest  # noqa: S101  # open
    connection = store.ingest.connection
    await asyncio.to_thread(_make_rows, connection, rows)
    await store.close()
    store.__init__(store.settings)  # type: ignore[misc]  # opened again, to know what is there now
    await store.open(now)
    while await store.seal(now):
        pass
    assert store.ingest  # noqa: S101  # open
    store.ingest.connection.execute("CHECKPOINT")


def _make_rows(connection: Connection, rows: int) -> None:
    connection.execute(_NAMES.format(agents=AGENTS))
    start = int(START.timestamp() * 1e6)
    for begin in range(0, rows, CHUNK):
        text = _ROWS.format(agents=AGENTS, start=start, spacing=SPACING_US, begin=begin, end=min(rows, begin + CHUNK))
        connection.execute(text)
        connection.execute("CHECKPOINT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=FULL["rows"])
    parser.add_argument("--rounds", type=int, default=FULL["rounds"])
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    folder = str(chosen.folder) if chosen.folder else None
    for name, value in asyncio.run(measure(chosen.rows, chosen.rounds, folder)).items():
        print(f"{name:36} {value:>14,}")


if __name__ == "__main__":
    main()
