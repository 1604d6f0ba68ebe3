"""Registers the agent when it connects and after each reconnection, until acknowledged.

The reply names the GPUs that this host is judged by, so that a wiped disk does not reset them.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import structlog
from nats.aio.client import Client

from bus.contract import subjects
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.errors import BadMessageError, RefusedError, UnavailableError
from bus.transport.micro_services import ask

log = structlog.get_logger("agentd.messaging.registration")

REQUEST_SECONDS = 3.0
FIRST_RETRY_SECONDS = 0.25
SLOWEST_RETRY_SECONDS = 15.0
CLIENT_CHECK_SECONDS = 5.0

OnRegistered = Callable[[RegisterReply], None]


async def keep_registered(
    client: Client,
    agent_id: str,
    metadata: dict[str, Any] | None,
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
            metadata,
            register_again,
            on_registered,
        )
        while not client.is_closed and not register_again.is_set():
            await _wait_at_most(register_again, CLIENT_CHECK_SECONDS)


async def _register(
    client: Client,
    agent_id: str,
    metadata: dict[str, Any] | None,
    register_again: asyncio.Event,
    on_registered: OnRegistered,
) -> None:
    """Asks until the registry acknowledges."""
    subject = subjects.register(agent_id)
    request = RegisterRequest(metadata=metadata)
    pause = FIRST_RETRY_SECONDS
    last_error = ""
    while not client.is_closed:
        # Before asking, so that a reconnection meanwhile is followed by another request.
        register_again.clear()
        try:
            reply = await ask(
                client,
                subject,
                request,
                RegisterReply,
                who="the scheduler",
                timeout=REQUEST_SECONDS,
            )
        except (UnavailableError, RefusedError, BadMessageError) as error:
            if str(error) != last_error:
                log.warning(
                    "registration_failed",
                    agent=agent_id,
                    detail=str(error),
                    action="asking again",
                )
            last_error = str(error)
        else:
            on_registered(reply)
            return
        # A fleet that comes back must not ask all at once; after a reconnection the request goes at
        # once.
        wait = random.uniform(pause / 2, pause)  # noqa: S311  # it spreads load and keeps no secret
        await _wait_at_most(register_again, wait)
        pause = min(pause * 2, SLOWEST_RETRY_SECONDS)


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
