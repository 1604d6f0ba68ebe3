"""Rate limits for a connection on which hosts ask of their own accord, such as registrations.

A server has no limit of messages for a user. One host that sends 200,000 registrations a second
keeps a scheduler from everything else, its pings included: reading them takes longer than sending
them. So such questions have a connection of their own. No more of it is read than the event loop
can spare, and no more of one host is answered than any host needs. What is not read waits in the
server, which closes this connection when it is too much; other connections are not affected.
"""

import asyncio
from collections.abc import Callable

from bus.clock import boottime

READ_AT_ONCE = 500  # messages between two pauses
PAUSE_SECONDS = 0.025  # so that at most 20,000 a second are read, which takes a tenth of a core
# Questions of one host that are answered in a second. An agent asks when it connects.
MOST_OF_A_HOST = 200


class InboundLimit:
    """Decides which messages of a connection are delivered.

    Subjects that begin with one of `host_prefixes` end with the host's id, as permissions see to.
    `on_flood` is called with the subject of a host that asks too often, again and again while it
    does: it may have connected so lately that nobody knows its connection yet.
    """

    def __init__(self, host_prefixes: tuple[str, ...], on_flood: Callable[[str], None]) -> None:
        self._host_prefixes = tuple(prefix.encode() for prefix in host_prefixes)
        self._on_flood = on_flood
        self._began = 0.0  # of the second that is counted, by the boot's clock
        self._counts: dict[bytes, int] = {}  # by subject, within that second
        self._read = 0

    async def admits(self, subject: bytes) -> bool:
        """Whether a message that was read is delivered. Pauses the reading now and then."""
        self._read += 1
        if self._read % READ_AT_ONCE == 0:
            await asyncio.sleep(PAUSE_SECONDS)
        if not subject.startswith(self._host_prefixes):
            return True
        now = boottime()
        if now - self._began >= 1.0:
            self._began = now
            self._counts.clear()
        count = self._counts.get(subject, 0) + 1
        self._counts[subject] = count
        if count <= MOST_OF_A_HOST:
            return True
        if count % MOST_OF_A_HOST == 1:
            self._on_flood(subject.decode())
        return False
