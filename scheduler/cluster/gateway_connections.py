"""Which gateways are connected, and which were lost: frozen, or cut off from the bus.

A gateway keeps no state and writes nothing, so its connection is all that the bus knows of it. A
server closes the connection of a client that answers no more and says so. A gateway that was ended,
even by force, closes its connection itself, and is simply gone.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from bus.contract.questions import LostGateway

STALE = "Stale Connection"  # the server's word for a client that answers no more
REMEMBERED = timedelta(hours=1)  # after that it was replaced, perhaps at another address


class ConnectionId(NamedTuple):
    """A connection, unique among all servers."""

    server: str
    number: int


class GatewayConnections:
    """Follows the connections of gateways. A host may have several."""

    def __init__(self) -> None:
        self._connected: dict[ConnectionId, str] = {}
        self._lost: list[LostGateway] = []

    def __len__(self) -> int:
        return len(self._connected)

    def lost(self, now: datetime) -> tuple[LostGateway, ...]:
        """Returns those that were lost within the last hour and have not come back."""
        self._lost = [one for one in self._lost if now - one.since < REMEMBERED]
        return tuple(self._lost)

    def ids(self) -> set[ConnectionId]:
        """Returns the connections as they are now."""
        return set(self._connected)

    def add(self, connection_id: ConnectionId, host: str) -> None:
        """Takes a connection in. One that was lost from the same host has come back by it."""
        if connection_id in self._connected:
            return
        self._connected[connection_id] = host
        for one in self._lost:
            if one.host == host:
                self._lost.remove(one)
                return

    def end(self, connection_id: ConnectionId, reason: str, now: datetime) -> None:
        """Takes a connection out; `reason` is the server's."""
        host = self._connected.pop(connection_id, None)
        if host is not None and reason == STALE:
            self._lost.append(LostGateway(host=host, since=now))

    def replace(self, before: set[ConnectionId], listed: Mapping[ConnectionId, str]) -> None:
        """Takes in what the servers list. Of `before` only what is listed is still connected."""
        for connection_id in before - set(listed):
            self._connected.pop(connection_id, None)
        for connection_id, host in listed.items():
            self.add(connection_id, host)
