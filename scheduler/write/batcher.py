"""Collects writes that arrive together into one atomic batch.

A thousand registrations then cost a few fsyncs instead of a thousand. Each caller gets its own
result, as if it had written alone.
"""

import asyncio
from typing import NamedTuple

from bus.errors import BusError, UnavailableError
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client


class _Request(NamedTuple):
    """The writes of one caller, which succeed or fail together."""

    writes: list[Write]
    done: asyncio.Future[int]


class WriteBatcher:
    """Collects the next batch while the server writes the previous one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[_Request] = asyncio.Queue()

    async def write(self, writes: list[Write]) -> int:
        """Writes all or nothing; returns the stream sequence of the first write.

        Raises what `bus.transport.batch.commit` raises.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Request(writes, done))
        return await done

    async def run(self) -> None:
        """Writes until cancelled."""
        waiting: list[_Request] = []
        while True:
            if not waiting:
                waiting.append(await self._queue.get())
            while not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            batch, waiting = _split(waiting)
            await self._commit(batch)

    async def _commit(self, batch: list[_Request]) -> None:
        """Commits the batch.

        A refusal does not say which write caused it, so a refused batch is halved until the refused
        request stands alone.
        """
        writes: list[Write] = []
        for request in batch:
            writes += request.writes
        try:
            sequence = await commit(self._client, writes)
        except BusError as error:
            if len(batch) == 1 or isinstance(error, UnavailableError):
                _fail(batch, error)
                return
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
            return
        for request in batch:
            if not request.done.done():
                request.done.set_result(sequence)
            sequence += len(request.writes)


def _split(waiting: list[_Request]) -> tuple[list[_Request], list[_Request]]:
    """Returns the requests of the next batch and the rest, both in order of arrival.

    A batch may write each subject only once.
    """
    batch = []
    rest = []
    batch_subjects: set[str] = set()
    for request in waiting:
        subjects = {write.subject for write in request.writes}
        fits = len(batch_subjects) + len(subjects) <= MAX_MESSAGES
        if fits and batch_subjects.isdisjoint(subjects):
            batch.append(request)
            batch_subjects |= subjects
        else:
            rest.append(request)
    return batch, rest


def _fail(batch: list[_Request], error: BusError) -> None:
    for request in batch:
        if not request.done.done():
            request.done.set_exception(error)
