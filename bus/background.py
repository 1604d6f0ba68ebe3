"""Background tasks of a service, which end with a block, and what such tasks wait for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

StartTask = Callable[[Coroutine[Any, Any, None]], None]

CANCEL_AGAIN_SECONDS = 1.0  # a cancelled task may take this long to clean up


@asynccontextmanager
async def background() -> AsyncIterator[StartTask]:
    """Yields `start(coroutine)`. What it started is cancelled and awaited at the end of the block.

    The first failure of a started coroutine cancels the block. The block then raises that failure
    itself, not a group of exceptions.
    """
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as group:

            def start(work: Coroutine[Any, Any, None]) -> None:
                tasks.append(group.create_task(work))

            try:
                yield start
            finally:
                await cancel_all(tasks)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels the tasks until all of them are done.

    One cancellation is not enough. Before Python 3.12 `asyncio.wait_for` swallows a cancellation
    that arrives together with its result, and nats-py waits for every answer with it.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)


async def wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event, and returns whether it was set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
