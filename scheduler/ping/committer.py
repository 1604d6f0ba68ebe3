"""Writes outcomes into the bucket: many agents in one atomic batch, a compare-and-set for each.

While one batch is on its way the next gathers by itself, so batches are as large as the load makes them.
A loser of the compare-and-set shrugs: somebody else recorded that ping.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple, TypeVar

import nats.errors
import structlog

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState
from bus.errors import BadMessageError, BusError, StaleError, UnavailableError
from bus.transport.batch import MAX_MESSAGES, Batch, Write
from bus.transport.bucket import last_sequence, read
from bus.transport.connection import Client
from scheduler.fleet.directory import Directory
from scheduler.fleet.state_recovery import last_good_state
from scheduler.ping.attempt import Flight
from scheduler.ping.next_state import MOST_WRITES, most_writes, next_state, writes
from scheduler.policy import Event, Policy
from scheduler.write.timers import BUSY, busy_fires_at

log = structlog.get_logger("scheduler.ping.committer")

WRITERS = 2  # one batch is being made while the server writes the other
PIECE = 100  # outcomes worked on in one go: 4 ms
RETRY_SECONDS = 0.5

T = TypeVar("T")
Landed = tuple[Flight, Event]


class _Made(NamedTuple):
    """An outcome on its way into the bucket: the state, how many writes it takes, and the entry they are made for.

    `timer_at` is when the agent's timer will fire then; noted while the server is busy.
    """

    flight: Flight
    state: AgentState
    writes: int
    entry_revision: int
    timer_at: datetime | None


class Committer:
    """`settled` hears of every flight, once, with the state that is now in the bucket.

    Except those that `again` gets back to be flown anew, because the state they built upon had changed.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        policy: Policy,
        settled: Callable[[Flight, AgentState, bool], None],
        again: Callable[[Flight], None],
    ) -> None:
        self._client, self._directory, self._policy = client, directory, policy
        self._settled, self._again = settled, again
        self._landed: deque[Landed] = deque()
        self._some = asyncio.Event()
        self._making = (
            asyncio.Lock()
        )  # one batch is made while the server writes another, instead of both at a time
        self.commits = 0
        self.lost_races = 0

    def submit(self, flight: Flight, event: Event) -> None:
        """Takes a landed flight; its outcome will be written however long the bus is away."""
        self._landed.append((flight, event))
        self._some.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        await asyncio.gather(*(self._writer() for _ in range(WRITERS)))

    async def _writer(self) -> None:
        while True:
            await self._some.wait()
            if batch := self._gathered():
                await self._write(batch)
            else:
                self._some.clear()

    def _gathered(self) -> list[Landed]:
        """As many as are sure to find room in one batch."""
        batch: list[Landed] = []
        room = MAX_MESSAGES - MOST_WRITES
        while self._landed and room >= 0:
            batch.append(self._landed.popleft())
            room -= most_writes(batch[-1][0])
        return batch

    async def _write(self, batch: list[Landed]) -> None:
        sending = Batch(self._client)
        try:
            async with self._making:
                made = await self._make(batch, sending)
            first = await sending.commit()
        except UnavailableError as error:  # written or not: only reading tells
            log.warning("outcomes_wait", outcomes=len(batch), detail=str(error))
            await self._refresh_and_retry(batch, always=True)
        except BusError as error:
            await self._refused(batch, error)
        else:
            self.commits += 1
            await self._settle(made, first)

    async def _make(self, batch: list[Landed], sending: Batch) -> list[_Made]:
        """The next states, sent piece by piece: the server takes in the first while the last are being made."""
        made: list[_Made] = []
        busy = len(batch) >= BUSY
        for piece in _pieces(batch):
            now, ready = utc_now(), list[Write]()
            for flight, event in piece:
                state = next_state(flight, event, now, self._policy)
                timer_at = busy_fires_at(state, flight.tracked.timer_at) if busy else None
                group = writes(flight, state, timer_at)
                made.append(
                    _Made(flight, state, len(group), flight.tracked.entry_revision, timer_at)
                )
                ready += group
            await sending.send(ready)
            await asyncio.sleep(0)  # pings go out and answers come in between
        return made

    async def _settle(self, batch: list[_Made], first: int) -> None:
        sequence, time_ns = (
            first,
            int(utc_now().timestamp() * 1e9),
        )  # a write that took long is no older for it
        for piece in _pieces(batch):
            for flight, state, size, entry_revision, timer_at in piece:
                newest = self._directory.apply_state(flight.agent_id, state, sequence, time_ns)
                sequence += size
                self._settled(flight, state, True)
                if flight.tracked.entry_revision != entry_revision:
                    self._directory.crossed(flight.agent_id)
                elif newest:
                    flight.tracked.timer_at = timer_at
            await asyncio.sleep(0)

    async def _refused(self, batch: list[Landed], error: BusError) -> None:
        """The refusal does not name the agent: reads them all at once, and halves where that teaches nothing.

        After an outage every second flight may have lost its race: found out one by one, they would hold up the rest.
        """
        if isinstance(error, StaleError) and await self._refresh_and_retry(batch):
            return
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
            return
        log.error(
            "outcome_refused",
            agent_id=batch[0][0].agent_id,
            detail=str(error),
            action="trying again",
        )
        await asyncio.sleep(RETRY_SECONDS)
        await self._refresh_and_retry(batch, always=True)

    async def _refresh_and_retry(self, batch: list[Landed], *, always: bool = False) -> bool:
        """Reads what is there: an outcome recorded meanwhile (perhaps our own) settles the flight.

        False when nothing new was read: then nothing was done, unless `always`.
        """
        built_upon = [(flight.revision, flight.tracked.entry_revision) for flight, _ in batch]
        await asyncio.gather(*(self._refresh(flight.agent_id) for flight, _ in batch))
        there = [
            (flight.tracked.state_revision, flight.tracked.entry_revision) for flight, _ in batch
        ]
        if built_upon == there and not always:
            return False
        for flight, event in batch:
            self._settle_or_retry(flight, event)
        return True

    def _settle_or_retry(self, flight: Flight, event: Event) -> None:
        state = flight.tracked.state
        if state is None or flight.tracked.state_revision == flight.revision:
            self.submit(flight, event)
        elif flight.is_settled_by(state):
            ours = state.last.ping_id == flight.ping_id
            self.lost_races += not ours
            self._settled(flight, state, ours)
        else:
            self._again(flight)

    async def _refresh(self, agent_id: str) -> None:
        while True:
            try:
                await self._reread(agent_id)
            except (BusError, nats.errors.Error, TimeoutError) as error:
                log.warning("bucket_unreadable", agent_id=agent_id, detail=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _reread(self, agent_id: str) -> None:
        key = subjects.state_key(agent_id)
        try:
            found = await read(self._client, key, AgentState)
        except BadMessageError as error:
            log.error("bad_value_in_bucket", subject=key, detail=str(error))
            found = None
        if found:
            self._directory.apply_state(agent_id, found.value, found.revision, found.time_ns)
        elif revision := await last_sequence(
            self._client, key
        ):  # something is there, and it is no state
            self._directory.replace_state(
                agent_id, await last_good_state(self._client, agent_id), revision
            )
        try:
            entry = await read(self._client, subjects.agent_key(agent_id), AgentEntry)
        except BadMessageError as error:
            log.error(
                "bad_value_in_bucket", subject=subjects.agent_key(agent_id), detail=str(error)
            )
            return
        if entry:
            self._directory.apply_entry(agent_id, entry.value, entry.revision)


def _pieces(batch: list[T]) -> Iterator[list[T]]:
    return (batch[start : start + PIECE] for start in range(0, len(batch), PIECE))
