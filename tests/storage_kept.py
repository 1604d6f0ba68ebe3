"""A history file with a month of a fleet in it, and files out of it, for tests of what is taken
away.
"""

import csv
import io
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bus.contract.exports import TableRequest
from bus.contract.messages import Seconds, encode
from bus.settings import Settings, load
from storage.answers import tables
from storage.engine import table_files
from storage.engine.rows import Arrival
from storage.store.store import Reader, Store
from tests.storage_states import AgentState, percent, state

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
MONTH = "2026-10"


def fleet(agents: int = 4, pings: int = 200) -> list[AgentState]:
    """Some weeks of pings, good ones, poor ones and misses, every window as its agent likes."""
    chance = random.Random(5)
    states = []
    for number in range(1, pings + 1):
        at = OCTOBER + timedelta(hours=3 * number)
        for agent in range(agents):
            bad = {
                name: chance.randrange(0, 40_000) / 1000 for name in ("degraded", "down", "unknown")
            }
            seconds = (
                Seconds(up=900.0)
                if chance.random() < 0.7
                else Seconds(up=900.0 - sum(bad.values()), **bad)
            )
            missed = chance.random() < 0.1
            states.append(
                state(f"agent-{agent}", number, at + timedelta(seconds=agent), None)
                if missed
                else state(
                    f"agent-{agent}",
                    number,
                    at + timedelta(seconds=agent),
                    seconds,
                    verdict="good" if (percent(seconds) or 0) >= 99 else "poor",
                    response_ms=chance.randrange(1000, 9000) / 1000,
                )
            )
    return states


class Kept:
    """A store with rows in it, and files out of it."""

    def __init__(self, settings: Settings) -> None:
        self.store = Store(settings)

    async def fill(self, states: list[AgentState]) -> None:
        await self.store.open(NOW)
        batch = [Arrival(i, one.agent_id, encode(one)) for i, one in enumerate(states, 1)]
        await self.store.write(1, await self.store.prepare(batch))

    async def file(
        self, question: Callable[[Reader], table_files.TableQuery], form: Any = "csv"
    ) -> bytes:
        scratch = self.store.paths.scratch
        written = await self.store.read(
            lambda r: table_files.write(r.cursor, scratch, question(r), "x", form)
        )
        data = written.path.read_bytes()
        written.path.unlink()
        assert not list(scratch.glob("*"))
        return data

    async def table(self, table: Any, **asked: Any) -> list[dict[str, str]]:
        request = TableRequest(table=table, **({"month": MONTH} | asked))
        text = (await self.file(lambda reader: tables.table(reader, request, NOW))).decode()
        return list(csv.DictReader(io.StringIO(text)))


def patient(folder: Path) -> Settings:
    """Settings of a storage in a folder, whose questions may take long on a busy machine."""
    return load({}, GPUPING_DATA_DIR=str(folder), STORAGE_QUERY_TIMEOUT_SECONDS=120.0)


async def kept_with(folder: Path, states: list[AgentState]) -> Kept:
    """A store in a folder, with these states."""
    kept = Kept(patient(folder))
    await kept.fill(states)
    return kept
