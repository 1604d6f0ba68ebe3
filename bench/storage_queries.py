"""Questions at scale: a fleet of 10,000 agents pinged every 15 minutes, up to 100 million outcomes.

One process makes the rows (`bench.history_rows`), another one is measured: it opens the file, sums
every day by the code that does it in service, and puts the questions through the store as the
service does. So its memory is the service's, and neither that of making the rows nor that of
another bench.

    python -m bench.storage_queries --rows 100000000 --folder /var/tmp/history
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from bench.history_rows import AGENTS, agent_id, ends
from bench.processes import memory, python_module
from bus import logs, settings
from bus.contract.questions import HistoryRequest, OverviewRequest, UptimesRequest
from bus.contract.statements import StatementRequest
from storage.answers import history
from storage.statements import build
from storage.store.store import Reader, Store

QUICK: dict[str, Any] = {"rows": 1_000_000, "rounds": 20}
FULL: dict[str, Any] = {"rows": 100_000_000, "rounds": 200}
PATIENCE_SECONDS = 4 * 3600.0  # to make 100 million rows takes minutes, or most of an hour


async def measure(
    rows: int = 100_000_000, rounds: int = 200, folder: str | None = None
) -> dict[str, float]:
    """Flat keys with their units.

    With a `folder`, a history that is there already is used again.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or scratch
        await _ended("bench.history_rows", place, "--rows", str(rows))
        asked = ("--asked", "--folder", place, "--rows", str(rows), "--rounds", str(rounds))
        figures: dict[str, float] = json.loads(await _ended("bench.storage_queries", *asked))
        return figures


async def ask(rows: int, rounds: int, folder: str) -> dict[str, float]:
    """The part that is measured, for a process of its own."""
    store, now = Store(settings.load({}, GPUPING_DATA_DIR=folder)), ends(rows)
    began = time.perf_counter()
    await store.open(now)
    figures = {"history_open_seconds": round(time.perf_counter() - began, 2)}
    while await store.seal(now):
        pass
    assert store.ingest  # noqa: S101  # open
    store.ingest.connection.execute("CHECKPOINT")
    figures["history_rows"] = store.ingest.rows
    figures["history_bytes_per_row_at_scale"] = round(
        store.file.stat().st_size / store.ingest.rows, 2
    )
    figures["storage_sealing_peak_megabytes"] = round(memory(os.getpid()).peak)
    for name, question in _questions(now).items():
        figures |= await _time(store, name, question, rounds)
    figures["storage_peak_megabytes"] = round(memory(os.getpid()).peak)
    await store.close()
    return figures


def _questions(now: datetime) -> dict[str, Callable[[Reader], object]]:
    chance = random.Random(2)

    def agent() -> str:
        return agent_id(chance.randrange(AGENTS))

    page = tuple(agent_id(number) for number in range(1000))
    month = f"{now - timedelta(days=31):%Y-%m}"
    return {
        "agent_history_24h": lambda r: history.history(r, agent(), HistoryRequest(), now),
        "dashboard_24h": lambda r: history.overview(r, OverviewRequest(), now),
        "fleet_month": lambda r: history.overview(r, OverviewRequest(hours=720.0), now),
        "uptimes_24h_1000_agents": lambda r: history.uptimes(
            r, UptimesRequest(agent_ids=page), now
        ),
        "uptimes_month_1000_agents": lambda r: history.uptimes(
            r, UptimesRequest(agent_ids=page, hours=720.0), now
        ),
        "agent_statement": lambda r: build.statement(
            r, agent(), StatementRequest(month=month), now, 99.0
        ),
        "agent_history_year": lambda r: history.history(
            r, agent(), HistoryRequest(hours=8760.0), now
        ),
    }


async def _time(
    store: Store, name: str, question: Callable[[Reader], object], rounds: int
) -> dict[str, float]:
    spent = []
    for _ in range(
        rounds if "year" not in name and "statement" not in name else max(5, rounds // 10)
    ):
        began = time.perf_counter()
        await store.read(question)
        spent.append((time.perf_counter() - began) * 1000)
    spent.sort()
    p99 = spent[min(len(spent) - 1, int(len(spent) * 0.99))]
    return {f"{name}_p50_ms": round(spent[len(spent) // 2], 1), f"{name}_p99_ms": round(p99, 1)}


async def _ended(*arguments: str) -> str:
    """What a process of ours said in its only line, which comes at its end."""
    async with python_module(*arguments, ready_seconds=PATIENCE_SECONDS) as child:
        return child.said


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=FULL["rows"])
    parser.add_argument("--rounds", type=int, default=FULL["rounds"])
    parser.add_argument(
        "--folder",
        help="where the history is made and kept; without it, it is thrown away afterwards",
    )
    parser.add_argument(
        "--asked", action="store_true", help="only put the questions, here, and print them as JSON"
    )
    chosen = parser.parse_args()
    logs.setup(settings.load({}, LOG_LEVEL="error"))
    if chosen.asked:
        print(json.dumps(asyncio.run(ask(chosen.rows, chosen.rounds, chosen.folder))))
        return
    for name, value in asyncio.run(measure(chosen.rows, chosen.rounds, chosen.folder)).items():
        print(f"{name:36} {value:>14,}")


if __name__ == "__main__":
    main()
