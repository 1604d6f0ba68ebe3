"""Stores with some days of history in them, for tests of the archive."""

from datetime import datetime, timedelta

from bus.clock import utc_now
from bus.contract.messages import Incident, Seconds, encode
from bus.settings import Settings
from storage.archive import day_folders
from storage.engine.database import rows_of
from storage.engine.rows import Arrival
from storage.ingest.writer import WriteResult
from storage.store.store import Store
from tests.storage_states import AgentState, gpu, state

NOW = utc_now().replace(hour=12, minute=0, second=0, microsecond=0)
BAD = Seconds(up=500.0, down=400.0)


def mixed(agents: int = 3, days: int = 6) -> list[AgentState]:
    """Days of pings, some with details of GPUs and incidents, oldest first."""
    states = []
    for number in range(1, days * 8 + 1):
        at = NOW - timedelta(days=days) + timedelta(hours=3) * (number - 1)
        for agent in range(agents):
            bad = number % 5 == agent
            lost = Incident(
                gpu="GPU-x",
                state="down",
                reason="lost",
                since=at - timedelta(seconds=400),
                until=at,
            )
            states.append(
                state(
                    f"agent-{agent}",
                    number,
                    at,
                    BAD,
                    gpus=(gpu(BAD, state="down", reasons=("lost",)),),
                    incidents=(lost,),
                    verdict="poor",
                )
                if bad
                else state(f"agent-{agent}", number, at)
            )
    return states


def arrivals(states: list[AgentState], first: int = 1) -> list[Arrival]:
    return [Arrival(first + i, one.agent_id, encode(one)) for i, one in enumerate(states)]


async def opened(settings: Settings) -> Store:
    store = Store(settings)
    await store.open(NOW)
    return store


async def written_to(store: Store, batch: list[Arrival]) -> WriteResult:
    return await store.write(1, await store.prepare(batch))


async def everything(store: Store) -> day_folders.Content:
    return await store.read(lambda reader: day_folders.content_of(reader.cursor, reader.partitions))


async def tended(store: Store, now: datetime = NOW) -> None:
    """Sealed and moved as far as it goes."""
    while await store.seal(now):
        pass
    while await store.archive_next_day(now):
        pass


async def rollup_rows(store: Store) -> list[list[tuple[object, ...]]]:
    """By the agents' names: their numbers are each file's own."""
    by_name = (
        "SELECT agent_id, agent_days.* EXCLUDE (agent) FROM agent_days JOIN agents USING (agent)"
    )
    questions = (by_name, "FROM fleet_hours", "FROM fleet_latencies")
    return await store.read(
        lambda reader: [sorted(rows_of(reader.cursor, text), key=repr) for text in questions]
    )
