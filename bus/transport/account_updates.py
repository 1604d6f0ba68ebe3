"""Tells a running server about a changed account: revocations, rotated keys, changed permissions.

The server closes the connections of revoked users by itself, and passes the account on to the other
servers of its cluster.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import nats.errors
import structlog

from bus.contract import subjects
from bus.errors import BusError, UnavailableError
from bus.identity.authority import Authority
from bus.identity.roles import RoleName
from bus.settings import Settings
from bus.transport import connection

log = structlog.get_logger("bus.transport.account_updates")

ANSWER_SECONDS = 5.0


class AccountRefusedError(BusError):
    """The server did not take the account."""


async def push(settings: Settings, authority: Authority, roles: Iterable[RoleName] = ()) -> None:
    """Sends the fleet's account to the server at `settings.nats_url`, as the system user.

    `roles` are those whose users or keys have changed: the accounts of their own follow. The server
    forgets the answers that are under way through such an account, so others are left alone.

    Raises UnavailableError when no server takes it within ANSWER_SECONDS, and AccountRefusedError
    with the server's words when it refuses.
    """
    tokens = [authority.account_token()]
    for role in roles:
        if role == "scheduler":
            tokens.append(authority.system_account_token())
        if role in authority.fleet.role_accounts:
            tokens.append(authority.role_account_token(role))
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
            for token in tokens:
                reply = await client.request(
                    subjects.CLAIMS_UPDATE, token.encode(), timeout=ANSWER_SECONDS
                )
                answer: dict[str, Any] = msgspec.json.decode(reply.data)
                if "error" in answer:
                    raise AccountRefusedError(f"the server refused the account: {answer['error']}")
    except (TimeoutError, OSError, nats.errors.Error) as error:
        raise UnavailableError(
            f"no server at {settings.shown_nats_url} took the change ({type(error).__name__}), "
            "which is not in force yet: give this command again when it runs. "
            "`gpuping up` takes it by itself at its next start"
        ) from None
    log.info("account_pushed", revoked=len(authority.fleet.revoked))
