"""Tells a running server about a changed account: revocations, rotated keys, changed permissions.

The server closes the connections of revoked users by itself, and passes the account on to the other
servers of its cluster.
"""

import asyncio
from typing import Any

import msgspec
import nats.errors
import structlog

from bus.contract import subjects
from bus.errors import BusError, UnavailableError
from bus.identity.authority import Authority
from bus.settings import Settings
from bus.transport import connection

log = structlog.get_logger("bus.transport.account_updates")

ANSWER_SECONDS = 5.0


class AccountRefusedError(BusError):
    """The server did not take the account."""


async def push(settings: Settings, authority: Authority) -> None:
    """Sends the fleet's account to the server at `settings.nats_url`, as the system user.

    Raises UnavailableError when no server takes it within ANSWER_SECONDS, and AccountRefusedError
    with the server's words when it refuses.
    """
    as_system = msgspec.structs.replace(
        settings,
        NATS_URL=settings.nats_url,
        NATS_CREDS=str(authority.system_credentials),
        NATS_CONTEXT=None,
    )
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            connection.connected(as_system, "claims") as client,
        ):
            token = authority.account_token().encode()
            reply = await client.request(subjects.CLAIMS_UPDATE, token, timeout=ANSWER_SECONDS)
    except (TimeoutError, OSError, nats.errors.Error) as error:
        raise UnavailableError(
            f"no server at {settings.shown_nats_url} took the change ({type(error).__name__}): "
            "it takes it when it next starts with this authority's configuration"
        ) from None
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    if "error" in answer:
        raise AccountRefusedError(f"the server refused the account: {answer['error']}")
    log.info("account_pushed", revoked=len(authority.fleet.revoked))
