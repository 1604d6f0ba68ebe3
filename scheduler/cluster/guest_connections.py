"""The connections of hosts that have an enrolment token and no credentials yet.

Each token has a user of its own, so that a host that sends questions without end can be cut off.
"""

from collections.abc import Mapping

from bus.identity import claims
from bus.identity.claims import InvalidTokenError
from bus.identity.enrolment_token import GUEST_PREFIX
from scheduler.cluster.gateway_connections import ConnectionId


class GuestConnections:
    """Follows the connections of guests, which are the users of enrolment tokens."""

    def __init__(self) -> None:
        self._names: dict[ConnectionId, str] = {}
        self._connections: dict[str, list[ConnectionId]] = {}  # oldest first

    def of(self, name: str) -> list[ConnectionId]:
        """Returns the connections of one guest, oldest first."""
        return list(self._connections.get(name, ()))

    def ids(self) -> set[ConnectionId]:
        """Returns the connections as they are now."""
        return set(self._names)

    def add(self, connection_id: ConnectionId, name: str) -> None:
        """Takes a connection in."""
        if connection_id in self._names:
            return
        self._names[connection_id] = name
        self._connections.setdefault(name, []).append(connection_id)

    def end(self, connection_id: ConnectionId) -> None:
        """Takes a connection out."""
        name = self._names.pop(connection_id, None)
        if name is None:
            return
        self._connections[name].remove(connection_id)
        if not self._connections[name]:
            del self._connections[name]

    def replace(self, before: set[ConnectionId], listed: Mapping[ConnectionId, str]) -> None:
        """Takes in what the servers list. Of `before` only what is listed is still connected."""
        for connection_id in before - set(listed):
            self.end(connection_id)
        for connection_id, name in listed.items():
            self.add(connection_id, name)


def guest_of(token: str) -> str | None:
    """Returns whose credentials these are; None where they are not a guest's."""
    try:
        name = claims.name_of(token)
    except InvalidTokenError:
        return None
    if not name.startswith(GUEST_PREFIX):
        return None
    return name
