"""The net: `timer.<id>`, which fires `due.<id>` where no scheduler has seen to a ping. Pure.

A timer that fires costs the server an fsync of its own (2,000 a second here); one that is replaced in the batch of
its agent's outcome costs none. So schedulers ping from memory when the time comes, and timers are set to fire later.

Replacing them is half of what a busy server does. So while outcomes come in large batches, an agent that is
pinged often gets a timer that fires later still, and it stands for as long as it would fire late enough.
"""

from datetime import datetime, timedelta

from bus.contract import subjects
from bus.contract.messages import AgentState, Timer, encode
from bus.transport.batch import Write

PATIENCE = timedelta(
    seconds=60
)  # a timer fires this long after its ping was due, and never earlier
LONG_PATIENCE = timedelta(minutes=6)
BUSY = 100  # outcomes in one batch


def busy_fires_at(state: AgentState, stands: datetime | None) -> datetime:
    """When the timer shall fire after this outcome, on a busy server: as the one that `stands`, if that is late enough.

    A later one is worth it only where it will outlast the next outcome.
    """
    earliest = state.next_ping_at + PATIENCE
    if stands is not None and stands >= earliest:
        return stands
    extra = LONG_PATIENCE - PATIENCE
    return earliest + extra if state.interval_seconds < extra.total_seconds() else earliest


def is_overdue(next_ping_at: datetime, now: datetime) -> bool:
    """Whether so much of the patience is used up that the timer is about to fire."""
    return now - next_ping_at > PATIENCE / 2


def timer(agent_id: str, seq: int, due_at: datetime, at: datetime | None = None) -> Write:
    """The schedule that fires `at` (`due_at` + PATIENCE); it replaces the one before it."""
    moment = (at or due_at + PATIENCE).isoformat().replace("+00:00", "Z")
    headers = {"Nats-Schedule": f"@at {moment}", "Nats-Schedule-Target": subjects.due_key(agent_id)}
    return Write(subjects.timer_key(agent_id), encode(Timer(seq=seq, due_at=due_at)), headers)


def cancel_timer(agent_id: str) -> Write:
    """A deletion in the bucket's own way; the schedule goes with it."""
    return Write(subjects.timer_key(agent_id), b"", {"KV-Operation": "DEL"})
