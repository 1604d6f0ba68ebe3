"""Makes a history for benchmarks.

It has 10,000 agents that are pinged every 15 minutes; 2 % of the outcomes are not healthy.

The rows are made inside DuckDB, in the order in which ingest would have written them. What is there
already stays; days are not summed yet: that is the work of the process which is measured.

    python -m bench.history_rows /var/tmp/history --rows 100000000
"""

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bus import logs, settings
from storage.engine.database import Connection
from storage.store.store import Store

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
    0 AS degraded_ms, CASE WHEN bad THEN 225000 ELSE 0 END AS down_ms,
    0 AS unknown_ms, 0 AS excused_ms,
    (random() * 8)::BIGINT AS until_ms, (random() * 4)::BIGINT - 2 AS since_ms,
    CASE WHEN bad THEN 1 ELSE 0 END AS consecutive_poor,
    900.0 AS interval_seconds, 900000000 AS next_us,
    800 + (random() * 11200)::BIGINT AS response_us, (random() * 200000)::BIGINT AS late_us,
    ((i * 7919) % {agents})::INTEGER AS gpu_set
FROM (SELECT i, hash(i) % 50 = 0 AS bad FROM range({begin}, {end}) AS t(i))
ORDER BY pinged_us
"""
_NAMES = """
INSERT INTO agents
SELECT i::INTEGER, 'agent-' || lpad(i::VARCHAR, 5, '0') FROM range({agents}) AS t(i);
INSERT INTO gpu_sets
SELECT i::INTEGER, '[["GPU-' || i || '-2222-3333-4444-555555555555",0,"RTX 4090"]]'
FROM range({agents}) AS t(i);
"""


def agent_id(number: int) -> str:
    return f"agent-{number:05}"


def ends(rows: int) -> datetime:
    """The moment of the last ping."""
    return START + timedelta(microseconds=rows * SPACING_US)


async def fill(folder: Path, rows: int) -> None:
    """A new folder gets its rows; one that has as many already stays as it is."""
    store = Store(settings.load({}, GPUPING_DATA_DIR=str(folder)))
    await store.open(ends(rows))
    assert store.ingest  # noqa: S101  # open
    if store.ingest.rows < rows:
        await asyncio.to_thread(_make, store.ingest.connection, rows)
    await store.close()


def _make(connection: Connection, rows: int) -> None:
    connection.execute(_NAMES.format(agents=AGENTS))
    start = int(START.timestamp() * 1e6)
    shown = Console(stderr=True)
    for begin in track(range(0, rows, CHUNK), "Making history", console=shown, transient=True):
        text = _ROWS.format(
            agents=AGENTS,
            start=start,
            spacing=SPACING_US,
            begin=begin,
            end=min(rows, begin + CHUNK),
        )
        connection.execute(text)
        connection.execute("CHECKPOINT")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000_000)
    chosen = parser.parse_args()
    logs.setup(settings.load({}, LOG_LEVEL="error"))
    asyncio.run(fill(chosen.folder, chosen.rows))
    print("filled")


if __name__ == "__main__":
    main()
