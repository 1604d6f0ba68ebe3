"""Background work of a service: it lives as long as a block, and its failure ends that block loudly."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

StartTask = Callable[[Coroutine[Any, Any, None]], None]

CANCEL_AGAIN_SECONDS = 1.0  # what a cancelled task may take to tidy up


@asynccontextmanager
async def background() -> AsyncIterator[StartTask]:
    """Yields `start(coroutine)`. What was started is cancelled at the end of the block, and awaited.

    The first failure of a started coroutine cancels the block and is raised from it as it is.
    """
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as group:
            try:
                yield lambda work: tasks.append(group.create_task(work))
            finally:
                await end(tasks)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels until all are done.

    Once is not enough: before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes together with its
    result, and nats-py waits for every answer by it.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
