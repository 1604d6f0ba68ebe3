"""An independent reader of GPUPING_HISTORY: how late each ping was, and when it was durable.

It does not use the scheduler's own counts: it reads every message from a sequence on.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.msg import Msg

from bus.background import background
from bus.contract import subjects
from bus.errors import BusError
from bus.transport import jetstream_api
from bus.transport.connection import Client
from bus.transport.consumers.pull_consumer import PullConsumer, delivery_of

WINDOW = 4000
QUIET_SECONDS = 20.0


class _Last(msgspec.Struct):
    ping_seq: int
    pinged_at: datetime
    outcome: str
    late_ms: float | None = None
    response_ms: float | None = None


class _State(msgspec.Struct):
    agent_id: str
    last: _Last


class Seen(msgspec.Struct):
    """What the stream held: lists run in the order of the stream."""

    agents: list[tuple[str, int]] = msgspec.field(default_factory=list)  # with the ping_seq
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    due_at: list[float] = msgspec.field(default_factory=list)  # seconds since 1970
    late_ms: list[float] = msgspec.field(default_factory=list)
    # From the due time until the outcome was stored in the history stream.
    durable_ms: list[float] = msgspec.field(default_factory=list)


async def read(client: Client, first_sequence: int, progress: Callable[[int], None]) -> Seen:
    """Reads the outcomes in the history stream from `first_sequence` on.

    The times of pings by hand are left out, because they have no due time.
    """
    body: dict[str, Any] = {
        "stream_name": subjects.HISTORY_STREAM,
        "config": {
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first_sequence,
            "mem_storage": True,
            "inactive_threshold": 60_000_000_000,
        },
    }
    answer = await jetstream_api.call(
        client, f"CONSUMER.CREATE.{subjects.HISTORY_STREAM}", body, 30.0
    )
    seen = Seen()
    if answer["num_pending"]:
        await _pull(client, answer["name"], seen, progress)
    return seen


async def _pull(client: Client, consumer: str, seen: Seen, progress: Callable[[int], None]) -> None:
    decoder, done, heard = msgspec.json.Decoder(_State), asyncio.Event(), asyncio.Event()

    def deliver(message: Msg) -> None:
        where = delivery_of(message)
        _note(seen, decoder.decode(message.data), where.time_ns)
        heard.set()
        if where.pending == 0:
            done.set()

    async def lost() -> None:
        raise BusError("the history consumer was lost: read again")

    async with background() as start:
        start(
            PullConsumer(
                client, subjects.HISTORY_STREAM, consumer, deliver, lambda: WINDOW, lost
            ).run()
        )
        while not done.is_set():
            heard.clear()
            async with asyncio.timeout(QUIET_SECONDS):
                await heard.wait()
            progress(len(seen.agents))
            await asyncio.sleep(0.2)


def _note(seen: Seen, state: _State, stored_ns: int) -> None:
    last = state.last
    seen.agents.append((state.agent_id, last.ping_seq))
    seen.outcomes[last.outcome] = seen.outcomes.get(last.outcome, 0) + 1
    if last.late_ms is None:
        return
    due_at = last.pinged_at.timestamp() - last.late_ms / 1000
    seen.due_at.append(due_at)
    seen.late_ms.append(last.late_ms)
    seen.durable_ms.append((stored_ns / 1e9 - due_at) * 1000)
