"""Connections have an owner and a bound: how many there are, and how long each may take.

A client that sends half a request, or one byte a second, holds a connection and a file descriptor.
Without a bound, a few thousand of them leave no descriptor for anybody, storage and bus included.
"""

import math
import resource
from typing import Literal, Protocol

import structlog

log = structlog.get_logger("gateway.web.connections")

MAX_CONNECTIONS = 4_000
# What the rest of the process may open: the bus, history files, the archive, agents of `up`.
DESCRIPTORS_FOR_OTHERS = 256
# Connections that the kernel holds ready. The loop accepts as many at once, before any is counted.
BACKLOG = 128
HEAD_SECONDS = 10.0  # for a request's line and headers
BODY_SECONDS = 30.0  # for its body, which is at most a megabyte
KEEP_ALIVE_SECONDS = 30
# A client that takes nothing of a response for so long is gone, or wants to hold it.
STALLED_WRITE_SECONDS = 60.0
MAX_REFUSALS = 64  # connections beyond the limit that are still answered, with 503

Admission = Literal["admitted", "refused", "closed"]


class Connection(Protocol):
    """What the limits need of a connection."""

    deadline: float  # boottime in seconds until which its client must have sent a request

    def end_late(self) -> None:
        """Ends it after its deadline."""

    def make_room(self) -> None:
        """Ends it although its deadline has not come."""


class Connections:
    """The connections of one server, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.exhausted_count = 0  # connections that were refused or ended for want of room
        self.late_count = 0  # connections that were ended after their deadline
        self._open: dict[Connection, None] = {}  # in the order in which they came
        self._full = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> Admission:
        """Counts a new connection in, if there is room for it.

        Where there is none, the oldest connection that waits for its client's request is ended, as
        a whole request is worth more than half of one. Where all of them are being answered, up to
        MAX_REFUSALS more are to be told so; the others are to be closed at once.
        """
        admission: Admission = "admitted"
        if len(self._open) >= self.limit:
            self.exhausted_count += 1
        if len(self._open) >= self.limit and not self._evict():
            self._log_exhausted()
            if len(self._open) >= self.limit + MAX_REFUSALS:
                return "closed"
            admission = "refused"
        self._open[connection] = None
        return admission

    def remove(self, connection: Connection) -> None:
        """Forgets a connection that is closed."""
        self._open.pop(connection, None)
        if len(self._open) < self.limit // 2:
            self._full = False

    def end_late_ones(self, now: float) -> None:
        """Ends every connection whose client has not sent or taken what it should in time."""
        for connection in list(self._open):
            if connection.deadline < now:
                self.late_count += 1
                connection.end_late()

    def _evict(self) -> bool:
        for connection in self._open:
            if connection.deadline < math.inf:
                self._log_exhausted()
                del self._open[connection]
                connection.make_room()
                return True
        return False

    def _log_exhausted(self) -> None:
        """Logs once until half of the connections are free again."""
        if not self._full:
            self._full = True
            log.warning("connections_exhausted", limit=self.limit)


def connection_limit() -> int:
    """As many connections as the descriptors of this process allow, at most MAX_CONNECTIONS.

    At least half of the descriptors stay for others where there are few.
    """
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    left = max(soft_limit // 2, soft_limit - DESCRIPTORS_FOR_OTHERS)
    return max(1, min(MAX_CONNECTIONS, left - BACKLOG - MAX_REFUSALS))
