"""Waits for time that has to pass."""

import asyncio
from datetime import UTC, datetime, timedelta


async def passed(since: datetime, seconds: float) -> None:
    """Returns once this much time has passed since then, by the clock that schedulers use."""
    until = since + timedelta(seconds=seconds)
    remaining = until - datetime.now(UTC)
    await asyncio.sleep(max(0.0, remaining.total_seconds()))
