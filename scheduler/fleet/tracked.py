"""One agent as a scheduler knows it: what it was registered with and how it does. Pure."""

from datetime import datetime, timedelta

from bus.contract.messages import AgentEntry, AgentState, Status
from scheduler import policy as rules
from scheduler.policy import Policy

# How far the clocks of schedulers and server may be apart before a timestamp is corrected.
CLOCK_TOLERANCE = timedelta(seconds=2)


class Tracked:
    """One agent as known here. Revisions are stream sequences; 0 means that there is no key yet."""

    __slots__ = (
        "committed_ns",
        "connected",
        "entry",
        "entry_revision",
        "late_ping_id",
        "state",
        "state_revision",
        "status",
        "timer_at",
        "two_connections",
    )

    def __init__(self) -> None:
        self.entry: AgentEntry | None = None
        self.entry_revision = 0
        self.state: AgentState | None = None
        self.state_revision = 0
        self.connected: bool | None = None  # to the bus, as the server says; None: not known
        # The addresses of two hosts that are connected under this identity.
        self.two_connections: tuple[str, ...] = ()
        self.committed_ns = 0  # when the last outcome was written, nanoseconds since 1970
        # The last missed ping that was answered after its time-out.
        self.late_ping_id: str | None = None
        self.timer_at: datetime | None = None  # when the agent's timer fires; None: not known
        self.status: Status | None = None  # as counted in `by_status`; None: not registered

    @property
    def registered(self) -> bool:
        """Whether the agent has an entry that is not marked removed."""
        return self.entry is not None and self.entry.removed_at is None

    @property
    def next_seq(self) -> int:
        """The ping_seq of the next outcome; the first is 1."""
        if self.state is None:
            return 1
        return self.state.ping_seq + 1

    @property
    def window_since(self) -> datetime | None:
        """When the open window began: at the last answered ping, or the enrolment if later.

        None for an agent that has neither. Windows before it are recorded.
        """
        enrolled_at = None
        if self.entry is not None:
            enrolled_at = self.entry.enrolled_at
        answered_at = None
        if self.state is not None:
            answered_at = self.state.last_answered_at
        if answered_at is None or enrolled_at is None:
            return answered_at or enrolled_at
        return max(answered_at, enrolled_at)

    def next_ping_at(self, policy: Policy) -> datetime | None:
        """Returns when the next ping is due; None for an agent that is not registered."""
        if self.entry is None or self.entry.removed_at is not None:
            return None
        if self.state is None:
            return rules.first_ping_at(self.entry.enrolled_at, policy)
        return max(self.state.next_ping_at, self.entry.enrolled_at)

    def in_maintenance(self, now: datetime) -> bool:
        """Returns whether a maintenance window covers `now`."""
        if self.entry is None or not self.entry.maintenance:
            return False
        return any(span.since <= now < span.until for span in self.entry.maintenance)
