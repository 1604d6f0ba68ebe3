"""Answers that are kept for some seconds, so that many visitors cost one question."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from bus.clock import boottime

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    task: asyncio.Task[V]
    until: float  # CLOCK_BOOTTIME, seconds


class TimedCache(Generic[K, V]):
    """Keeps each answer for `seconds`, and at most `most` of them. A failure is not kept."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._entries: dict[K, _Entry[V]] = {}

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The answer for a key: kept, on its way, or asked for now. Raises what `ask` raises."""
        now = boottime()
        entry = self._entries.get(key)
        is_kept = entry is not None and now < entry.until and not _has_failed(entry.task)
        if entry is None or not is_kept:
            self._make_room(now)
            asking = asyncio.ensure_future(_run(ask))
            entry = _Entry(asking, now + self._seconds)
            self._entries[key] = entry
        # a visitor who leaves does not cancel the question for the others
        return await asyncio.shield(entry.task)

    def forget(self, key: K) -> None:
        """Has a key asked for anew."""
        self._entries.pop(key, None)

    def _make_room(self, now: float) -> None:
        if len(self._entries) < self._most:
            return
        for key, entry in list(self._entries.items()):
            if now >= entry.until:
                del self._entries[key]
        while len(self._entries) >= self._most:
            del self._entries[next(iter(self._entries))]  # the oldest


async def _run(ask: Callable[[], Awaitable[V]]) -> V:
    return await ask()


def _has_failed(task: "asyncio.Task[V]") -> bool:
    if not task.done():
        return False
    return task.cancelled() or task.exception() is not None
