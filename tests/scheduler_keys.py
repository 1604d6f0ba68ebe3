"""Reads the three keys of an agent in the bucket together, and computes what its timer must be."""

from datetime import datetime, timedelta
from typing import NamedTuple

from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState, Timer, decode
from bus.transport import connection

TIMER_SECONDS = 60  # from its due time until an agent's timer fires, if it was not pinged


class Snapshot(NamedTuple):
    """One agent in the bucket, at one time."""

    entry: AgentEntry | None
    state: AgentState | None
    timer: RawStreamMsg | None


async def snapshot(bus: connection.Client, agent_id: str) -> Snapshot:
    """Reads the keys until two readings agree."""
    while True:
        first = await _keys(bus, agent_id)
        second = await _keys(bus, agent_id)
        if [m and m.seq for m in first] == [m and m.seq for m in second]:
            # A deletion has no data.
            entry, state, timer = (m if m and m.data else None for m in first)
            return Snapshot(
                decode(entry.data or b"", AgentEntry) if entry else None,
                decode(state.data or b"", AgentState) if state else None,
                timer,
            )


async def _keys(bus: connection.Client, agent_id: str) -> list[RawStreamMsg | None]:
    keys = (
        subjects.agent_key(agent_id),
        subjects.state_key(agent_id),
        subjects.timer_key(agent_id),
    )
    return [await _last(bus, key) for key in keys]


async def _last(bus: connection.Client, key: str) -> RawStreamMsg | None:
    try:
        return await bus.jetstream().get_last_msg(subjects.BUCKET_STREAM, key)
    except NotFoundError:
        return None


class FoundTimer(NamedTuple):
    """What a timer says, and what the server will do about it and when."""

    timer: Timer
    at: datetime
    target: str


def wanted_timer(agent_id: str, entry: AgentEntry, state: AgentState | None) -> FoundTimer:
    """For the next number, at the next due time, and a schedule that fires later than that."""
    due_at = max(state.next_ping_at, entry.enrolled_at) if state else entry.enrolled_at
    timer = Timer(seq=state.ping_seq + 1 if state else 1, due_at=due_at)
    return FoundTimer(timer, due_at + timedelta(seconds=TIMER_SECONDS), subjects.due_key(agent_id))


def found_timer(message: RawStreamMsg | None) -> FoundTimer | None:
    """As it is in the bucket."""
    if message is None:
        return None
    headers = message.headers or {}
    at = datetime.fromisoformat(headers["Nats-Schedule"].removeprefix("@at "))
    return FoundTimer(decode(message.data or b"", Timer), at, headers["Nats-Schedule-Target"])
