"""Gathers writes that arrive together into one atomic batch: a thousand registrations cost a few fsyncs only.

Each caller gets its own answer, as if it had written alone.
"""

import asyncio

from bus.errors import BusError, UnavailableError
from bus.transport.batch import MAX_MESSAGES, Write, commit
from bus.transport.connection import Client

Item = tuple[list[Write], "asyncio.Future[int]"]


class Gatherer:
    """While one batch is on its way, the next gathers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[Item] = asyncio.Queue()

    async def write(self, writes: list[Write]) -> int:
        """`bus.batch.commit`, in company: returns the sequence of the first. Raises what `commit` raises."""
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((writes, written))
        return await written

    async def run(self) -> None:
        """Writes until cancelled."""
        waiting: list[Item] = []
        while True:
            if not waiting:
                waiting.append(await self._queue.get())
            while not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            batch, waiting = _batch(waiting)
            await self._commit(batch)

    async def _commit(self, batch: list[Item]) -> None:
        """A refusal does not name whose write it was: halves until that one stands alone."""
        try:
            sequence = await commit(
                self._client, [write for writes, _ in batch for write in writes]
            )
        except BusError as error:
            if len(batch) == 1 or isinstance(error, UnavailableError):
                _refuse(batch, error)
                return
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
            return
        for writes, written in batch:
            if not written.done():
                written.set_result(sequence)
            sequence += len(writes)


def _batch(waiting: list[Item]) -> tuple[list[Item], list[Item]]:
    """What goes together, in order, and the rest: a subject may stand in a batch only once."""
    batch: list[Item] = []
    rest: list[Item] = []
    subjects: set[str] = set()
    for item in waiting:
        mine = {write.subject for write in item[0]}
        if len(subjects) + len(mine) > MAX_MESSAGES or not subjects.isdisjoint(mine):
            rest.append(item)
        else:
            batch.append(item)
            subjects |= mine
    return batch, rest


def _refuse(batch: list[Item], error: BusError) -> None:
    for _, written in batch:
        if not written.done():
            written.set_exception(error)
