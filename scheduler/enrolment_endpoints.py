"""What the enrolment service has done by the scheduler, which alone writes the bucket.

It keeps two kinds of entries for that service, and closes the connections of hosts that flood it.
"""

from collections.abc import Callable
from datetime import datetime

from nats.micro.request import Request

from bus.contract import subjects
from bus.contract.enrolment import (
    KEPT_AFTER_EXPIRY,
    CloseConnections,
    ConnectionsClosed,
    EnrolmentKept,
    KeepEnrolment,
    KeptHost,
    KeptToken,
)
from bus.contract.messages import decode, encode
from bus.errors import RefusedError, StaleError
from bus.transport.batch import Write, commit
from bus.transport.connection import Client
from bus.transport.micro_services import Endpoint

_PURGED = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "60s"}


class EnrolmentEndpoints:
    """Two handlers. The headers of what is written are made here, and never those of the asker."""

    def __init__(
        self,
        client: Client,
        close_connections: Callable[[CloseConnections], None],
        now: Callable[[], datetime],
    ) -> None:
        """`close_connections` has the connections of a host closed.

        `now`: the bus server's time, by which tokens expire.
        """
        self._client = client
        self._close_connections = close_connections
        self._now = now

    def all(self) -> list[Endpoint]:
        """What the scheduler serves besides."""
        return [
            Endpoint("keep-enrolment", subjects.KEEP_ENROLMENT, self.keep),
            Endpoint("close-connections", subjects.CLOSE_CONNECTIONS, self.close),
        ]

    async def close(self, request: Request) -> ConnectionsClosed:
        """Answers `gpuping.scheduler.close-connections`."""
        self._close_connections(decode(request.data, CloseConnections))
        return ConnectionsClosed()

    async def keep(self, request: Request) -> EnrolmentKept:
        """Answers `gpuping.scheduler.keep-enrolment`.

        Raises RefusedError 409 where an entry is not at the revision that was named.
        """
        asked = decode(request.data, KeepEnrolment)
        writes = []
        if asked.token is not None:
            writes.append(_token_write(asked.token, self._now()))
        if asked.host is not None:
            writes.append(_host_write(asked.host))
        if not writes:
            raise RefusedError(400, "neither a token nor a host is named")
        try:
            await commit(self._client, writes)
        except StaleError:
            raise RefusedError(409, "it was changed meanwhile") from None
        return EnrolmentKept()


def _token_write(token: KeptToken, now: datetime) -> Write:
    """Writes a token, which the server drops when it is of no use any more; or removes it."""
    key = subjects.enrolment_key(token.token_hash)
    if token.value is None:
        return Write(key, b"", _PURGED, expected=token.revision)
    left = token.value.expires_at + KEPT_AFTER_EXPIRY - now
    time_to_live = max(60, round(left.total_seconds()))
    headers = {"Nats-TTL": f"{time_to_live}s"}
    return Write(key, encode(token.value), headers, expected=token.revision)


def _host_write(host: KeptHost) -> Write:
    """Writes the keys over those that were read, and over nothing else."""
    key = subjects.host_key(host.keys.agent_id)
    return Write(key, encode(host.keys), expected=host.revision)
