"""A fleet for benchmarks.

Agents enrolled straight into the bucket, with timers, in atomic batches.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from bus.contract import subjects
from bus.contract.messages import AgentEntry, encode
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client
from scheduler.write.timers import timer


def agent_id(number: int) -> str:
    """Names as long as real ones are."""
    return f"bench-{number:07d}"


async def enrol(
    client: Client,
    agents: int,
    due_at: Callable[[int], datetime],
    *,
    now: datetime,
    progress: Callable[[int], None],
    signing_key: str | None = None,
    enrolled_at: Callable[[int], datetime] | None = None,
    begin: int = 0,
) -> None:
    """Registers agents `begin` to n-1, each with its first timer. Two keys each, 500 a batch.

    With `signing_key` their reports must be signed with it: one for all, for they share a host.
    They are enrolled at `now`, or at a time of each one's own.
    """
    step = MAX_MESSAGES // 2
    for first in range(begin, agents, step):
        writes: list[Write] = []
        for number in range(first, min(first + step, agents)):
            name = agent_id(number)
            enrolled = now
            if enrolled_at is not None:
                enrolled = enrolled_at(number)
            entry = AgentEntry(
                agent_id=name,
                registered_at=enrolled,
                enrolled_at=enrolled,
                expected_gpus=(f"GPU-{number:032x}",),
                signing_key=signing_key,
            )
            writes += [
                Write(subjects.agent_key(name), encode(entry)),
                timer(name, 1, due_at(number)),
            ]
        await commit(client, writes, timeout=60)
        progress(len(writes) // 2)


def spread(start: datetime, seconds: float, agents: int) -> Callable[[int], datetime]:
    """Due times evenly over a period."""
    return lambda number: start + timedelta(seconds=seconds * number / agents)
