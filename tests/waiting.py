"""Waits for what has to come to pass, and for time that has to pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 60.0  # however busy this machine is; what holds is seen at once
DAY = timedelta(days=1)


async def until(holds: Callable[[], T], within: float = PATIENCE_SECONDS) -> T:
    """Returns a condition's answer once it holds in this process; TimeoutError when time is up."""
    async with asyncio.timeout(within):
        while not (found := holds()):  # noqa: ASYNC110  # looks at what is not ours to signal
            await asyncio.sleep(0.02)
    return found


async def until_answered(asks: Callable[[], Awaitable[T]], within: float = PATIENCE_SECONDS) -> T:
    """As `until`, of what another process has to be asked."""
    async with asyncio.timeout(within):
        while not (found := await asks()):  # noqa: ASYNC110  # it signals nobody
            await asyncio.sleep(0.02)
    return found


async def passed(since: datetime, seconds: float) -> None:
    """Returns once this much time has passed since then, by the clock that schedulers use."""
    until = since + timedelta(seconds=seconds)
    remaining = until - datetime.now(UTC)
    await asyncio.sleep(max(0.0, remaining.total_seconds()))


def seconds_to_wait(ending: datetime, now: datetime, seconds: float) -> float:
    """How long to wait where something ends within so many seconds from now, else 0."""
    left = (ending - now).total_seconds()
    return left + 0.1 if left < seconds else 0.0


def end_of_day(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY


def end_of_month(now: datetime) -> datetime:
    in_next_month = now.replace(day=1) + 32 * DAY
    return in_next_month.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


async def clear_of_midnight(seconds: float = 60.0) -> None:
    """Returns when no day of UTC ends within so many seconds.

    For tests that ask for the day of outcomes which they make themselves.
    """
    now = datetime.now(UTC)
    await asyncio.sleep(seconds_to_wait(end_of_day(now), now, seconds))


async def clear_of_months_end(seconds: float = 60.0) -> None:
    """Returns when no month of UTC ends within so many seconds, for tests that ask for theirs."""
    now = datetime.now(UTC)
    await asyncio.sleep(seconds_to_wait(end_of_month(now), now, seconds))


def wait_for_months_end(seconds: float) -> None:
    """As `clear_of_months_end`, for fixtures that are no coroutines."""
    now = datetime.now(UTC)
    time.sleep(seconds_to_wait(end_of_month(now), now, seconds))


def earlier_this_month(hours: float = 1.0) -> datetime:
    """A moment so long ago; not before the month began, where that is less long ago."""
    now = datetime.now(UTC)
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return max(begin, now - timedelta(hours=hours))
