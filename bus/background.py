"""Background work of a service: it lives as long as a block, and its failure ends that block loudly."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

Start = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def background() -> AsyncIterator[Start]:
    """Yields `start(coroutine)`. What was started is cancelled at the end of the block, and awaited.

    The first failure of a started coroutine cancels the block and is raised from it as it is.
    """
    tasks: list[asyncio.Task[None]] = []
    try:
        async with asyncio.TaskGroup() as group:
            try:
                yield lambda work: tasks.append(group.create_task(work))
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
