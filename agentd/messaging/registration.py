"""Registers the agent when it connects and after each reconnection, until acknowledged.

The reply names the GPUs that this host is judged by, so that a wiped disk does not reset them.
"""

import asyncio
import random
from collections.abc import Callable

import structlog
from nats.aio.client import Client

from bus.background import wait_at_most
from bus.contract import subjects
from bus.contract.questions import REMOVED_BY_OPERATOR, RegisterReply, RegisterRequest
from bus.errors import BadMessageError, RefusedError, UnavailableError
from bus.transport.micro_services import ask

log = structlog.get_logger("agentd.messaging.registration")

REQUEST_SECONDS = 3.0
FIRST_RETRY_SECONDS = 0.25
SLOWEST_RETRY_SECONDS = 15.0
CLIENT_CHECK_SECONDS = 5.0
# How often an agent that the operator removed asks whether it is let in again.
REMOVED_RETRY_SECONDS = 300.0

MakeRegistration = Callable[[], RegisterRequest]
OnRegistered = Callable[[RegisterReply], None]


async def keep_registered(
    client: Client,
    agent_id: str,
    registration: MakeRegistration,
    register_again: asyncio.Event,
    on_registered: OnRegistered,
) -> None:
    """Registers now and whenever `register_again` is set.

    Returns only when the client has closed for good.
    """
    while not client.is_closed:
        await _register(
            client,
            agent_id,
            registration,
            register_again,
            on_registered,
        )
        while not client.is_closed and not register_again.is_set():
            await wait_at_most(register_again, CLIENT_CHECK_SECONDS)


async def _register(
    client: Client,
    agent_id: str,
    registration: MakeRegistration,
    register_again: asyncio.Event,
    on_registered: OnRegistered,
) -> None:
    """Asks until the registry acknowledges."""
    pause = FIRST_RETRY_SECONDS
    last_error = ""
    while not client.is_closed:
        # Cleared before asking, so that a reconnection meanwhile is followed by another request.
        register_again.clear()
        try:
            reply = await ask(
                client,
                subjects.register(agent_id),
                registration(),
                RegisterReply,
                who="the scheduler",
                timeout=REQUEST_SECONDS,
            )
        except (UnavailableError, RefusedError, BadMessageError) as error:
            removed = isinstance(error, RefusedError) and error.code == REMOVED_BY_OPERATOR
            if str(error) != last_error:
                _log_failure(agent_id, str(error), removed=removed)
            last_error = str(error)
        else:
            on_registered(reply)
            return
        if removed:
            await asyncio.sleep(REMOVED_RETRY_SECONDS)
            continue
        # A fleet that comes back must not ask all at once; after a reconnection the request goes at
        # once.
        wait = random.uniform(pause / 2, pause)  # noqa: S311  # it spreads load and keeps no secret
        await wait_at_most(register_again, wait)
        pause = min(pause * 2, SLOWEST_RETRY_SECONDS)


def _log_failure(
    agent_id: str,
    detail: str,
    *,
    removed: bool,
) -> None:
    if removed:
        log.error(
            "agent_removed_by_operator",
            agent=agent_id,
            detail=detail,
            action="it is not pinged until the operator registers it again",
        )
    else:
        log.warning(
            "registration_failed",
            agent=agent_id,
            detail=detail,
            action="asking again",
        )
