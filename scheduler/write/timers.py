"""The timers in the bucket, which cause a ping that no scheduler made in time. Pure.

`timer.<id>` is a schedule of JetStream that publishes `due.<id>`. A timer that fires costs the
server one fsync (2,000 a second on the development machine). A timer that is replaced in the batch
of its agent's outcome costs none. Schedulers therefore ping from memory when an agent is due, and
each timer is set to fire later than that.

Replacing timers is half of the work of a busy server. While outcomes come in large batches, an
agent with a short interval gets a timer that fires later still. That timer is not replaced as long
as it fires late enough for the agent's next ping.
"""

from datetime import datetime, timedelta

from bus.contract import subjects
from bus.contract.messages import AgentState, Timer, encode
from bus.transport.batch import Write

TIMER_DELAY = timedelta(seconds=60)  # from the due time of a ping; a timer never fires earlier
BUSY_TIMER_DELAY = timedelta(minutes=6)  # the same, on a busy server
BUSY_BATCH_SIZE = 100  # outcomes in one batch from which on the server counts as busy


def busy_fires_at(state: AgentState, current: datetime | None) -> datetime:
    """Returns when the timer shall fire after this outcome, on a busy server.

    `current` is when the timer in the bucket fires, or None when that is not known. It is kept if
    it is late enough. A new timer fires later than usual only if it can outlast the next outcome.
    """
    earliest = state.next_ping_at + TIMER_DELAY
    if current is not None and current >= earliest:
        return current
    extra = BUSY_TIMER_DELAY - TIMER_DELAY
    if state.interval_seconds < extra.total_seconds():
        return earliest + extra
    return earliest


def is_overdue(next_ping_at: datetime, now: datetime) -> bool:
    """Returns whether the ping is so late that its timer is about to fire."""
    return now - next_ping_at > TIMER_DELAY / 2


def timer(
    agent_id: str,
    seq: int,
    due_at: datetime,
    fires_at: datetime | None = None,
) -> Write:
    """Returns the write that replaces the agent's timer.

    Without `fires_at` the timer fires TIMER_DELAY after `due_at`.
    """
    if fires_at is None:
        fires_at = due_at + TIMER_DELAY
    timestamp = fires_at.isoformat().replace("+00:00", "Z")
    headers = {
        "Nats-Schedule": f"@at {timestamp}",
        "Nats-Schedule-Target": subjects.due_key(agent_id),
    }
    value = Timer(seq=seq, due_at=due_at)
    return Write(subjects.timer_key(agent_id), encode(value), headers)


def cancel_timer(agent_id: str) -> Write:
    """Returns the write that deletes the agent's timer key; the schedule is deleted with it."""
    return Write(subjects.timer_key(agent_id), b"", {"KV-Operation": "DEL"})
