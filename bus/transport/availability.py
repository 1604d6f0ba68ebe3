"""What a service does at its start is tried until the bus can do it.

A cluster that is choosing its leader, or a server that is reading its streams, does not answer for
some seconds. A service that ended then would only be started again to find the same.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from bus.clock import boottime
from bus.errors import UnavailableError
from bus.transport.jetstream_api import NotEnabledError, TooFewServersError

log = structlog.get_logger("bus.transport.availability")

RETRY_SECONDS = 0.5
# A server that is starting listens before its JetStream does, and joins the others some time later.
# One without JetStream, or a cluster of fewer servers than replicas, is a fault to be told.
ENABLED_SECONDS = 10.0

T = TypeVar("T")


async def when_available(what: Callable[[], Awaitable[T]]) -> T:
    """Returns the result of `what`, which is called until it raises no UnavailableError.

    Raises NotEnabledError or TooFewServersError when the server still has no JetStream, or knows
    of fewer servers than replicas, after ENABLED_SECONDS.
    """
    began = boottime()
    is_told = False
    while True:
        try:
            return await what()
        except UnavailableError as error:
            is_missing = isinstance(error, NotEnabledError | TooFewServersError)
            if is_missing and boottime() - began > ENABLED_SECONDS:
                raise
            if not is_told:
                log.warning("start_waits_for_bus", detail=str(error))
            is_told = True
        await asyncio.sleep(RETRY_SECONDS)
