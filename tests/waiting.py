"""Waits for what has to come to pass, and for time that has to pass."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

PATIENCE_SECONDS = 60.0  # however busy this machine is; what holds is seen at once
DAY = timedelta(days=1)


async def until(holds: Callable[[], object], within: float = PATIENCE_SECONDS) -> None:
    """Returns once a condition of this process holds; TimeoutError when time is up."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110  # looks at what is not ours to signal
            await asyncio.sleep(0.02)


async def passed(since: datetime, seconds: float) -> None:
    """Returns once this much time has passed since then, by the clock that schedulers use."""
    until = since + timedelta(seconds=seconds)
    remaining = until - datetime.now(UTC)
    await asyncio.sleep(max(0.0, remaining.total_seconds()))


async def clear_of_midnight(seconds: float = 60.0) -> None:
    """Returns when no day, and so no month, ends within so many seconds.

    For tests that ask for the month or the day of outcomes which they make themselves.
    """
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    if midnight - now < timedelta(seconds=seconds):
        await passed(midnight, 0.1)
