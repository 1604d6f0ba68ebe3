"""The agent makes itself known to the registry: when it connects, after each reconnection, until acknowledged.

The answer names the GPUs that this host is judged by; a wiped disk does not reset them.
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

ASK_SECONDS = 3.0
FIRST_RETRY_SECONDS, SLOWEST_RETRY_SECONDS = 0.25, 15.0
LOOK_AFTER_CLIENT_SECONDS = 5.0

Enrolled = Callable[[RegisterReply], None]


async def keep(
    client: Client,
    agent_id: str,
    metadata: dict[str, Any] | None,
    again: asyncio.Event,
    enrolled: Enrolled,
) -> None:
    """Registers now and whenever `again` is set; returns only when the client has closed for good."""
    while not client.is_closed:
        await _until_acknowledged(client, agent_id, metadata, again, enrolled)
        while not client.is_closed and not again.is_set():
            await _set_within(again, LOOK_AFTER_CLIENT_SECONDS)


async def _until_acknowledged(
    client: Client,
    agent_id: str,
    metadata: dict[str, Any] | None,
    again: asyncio.Event,
    enrolled: Enrolled,
) -> None:
    pause, told = FIRST_RETRY_SECONDS, ""
    request = RegisterRequest(metadata=metadata)
    while not client.is_closed:
        again.clear()  # before asking: a reconnection while we ask is asked after
        try:
            subject = subjects.register(agent_id)
            reply = await ask(
                client, subject, request, RegisterReply, who="the scheduler", timeout=ASK_SECONDS
            )
        except (UnavailableError, RefusedError, BadMessageError) as error:
            if str(error) != told:
                log.warning(
                    "not_registered", agent=agent_id, detail=str(error), action="asking again"
                )
            told = str(error)
        else:
            enrolled(reply)
            break
        # a fleet that comes back must not ask all at once; a bus that comes back is asked at once
        await _set_within(again, random.uniform(pause / 2, pause))  # noqa: S311  # spreads load, keeps no secret
        pause = min(pause * 2, SLOWEST_RETRY_SECONDS)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
