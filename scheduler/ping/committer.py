"""Writes outcomes into the bucket: many in one atomic batch, with a compare-and-set for each.

While the server writes one batch the next one is collected, so the batches become as large as the
load makes them. When the compare-and-set of an outcome fails, another scheduler has written one for
the same ping, and that one counts.
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
from bus.transport.batch import MAX_MESSAGES, AtomicBatch
from bus.transport.bucket import last_sequence, read
from bus.transport.connection import Client
from scheduler.fleet.directory import Directory
from scheduler.fleet.state_recovery import last_valid_state
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.next_state import MAX_WRITES, max_writes, next_state, writes
from scheduler.policy import PingResult, Policy
from scheduler.write.timers import BUSY_BATCH_SIZE, busy_fires_at

log = structlog.get_logger("scheduler.ping.committer")

WRITERS = 2  # one prepares a batch while the server writes the other's
# Outcomes that are worked on before other tasks get a turn; 100 take 4 ms.
CHUNK = 100
RETRY_SECONDS = 0.5

T = TypeVar("T")


class _Finished(NamedTuple):
    """An attempt whose result is known and not written yet."""

    attempt: PingAttempt
    result: PingResult


class _Prepared(NamedTuple):
    """An outcome that is being written.

    `writes` is how many messages of the batch are its own. `entry_revision` is the revision of the
    agent's entry from which they were made. `timer_at` is when the agent's timer fires after them;
    it is noted while the server is busy only.
    """

    attempt: PingAttempt
    state: AgentState
    writes: int
    entry_revision: int
    timer_at: datetime | None


class Committer:
    """Writes the outcome of every attempt that was submitted, however long the bus is away.

    `on_settled(attempt, state, ours)` is called once the bucket holds an outcome for the attempt;
    `ours` is False when another scheduler wrote it. If the state changed otherwise and the ping is
    still to be made, `on_retry(attempt)` is called instead. `now` is the schedulers' clock,
    `server_now` the server's as far as it is known.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        policy: Policy,
        on_settled: Callable[[PingAttempt, AgentState, bool], None],
        on_retry: Callable[[PingAttempt], None],
        now: Callable[[], datetime] = utc_now,
        server_now: Callable[[], datetime | None] = utc_now,
    ) -> None:
        self._client = client
        self._directory = directory
        self._policy = policy
        self._on_settled = on_settled
        self._on_retry = on_retry
        self._now = now
        self._server_now = server_now
        self._finished: deque[_Finished] = deque()
        self._wake = asyncio.Event()
        # Two writers that prepare at the same time would only slow each other down.
        self._preparing = asyncio.Lock()
        self.commits = 0
        self.lost_races = 0
        self.trouble: str | None = None  # why the last batch was not written; None if it was

    def submit(self, attempt: PingAttempt, result: PingResult) -> None:
        """Queues the result of an attempt to be written."""
        self._finished.append(_Finished(attempt, result))
        self._wake.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        writers = [self._run_writer() for _ in range(WRITERS)]
        await asyncio.gather(*writers)

    async def _run_writer(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._take_batch()
            if batch:
                await self._write(batch)
            else:
                self._wake.clear()

    def _take_batch(self) -> list[_Finished]:
        """Takes as many results as are certain to fit into one batch."""
        batch = []
        room = MAX_MESSAGES - MAX_WRITES
        while self._finished and room >= 0:
            finished = self._finished.popleft()
            if finished.attempt.is_abandoned:
                continue
            batch.append(finished)
            room -= max_writes(finished.attempt)
        return batch

    async def _write(self, batch: list[_Finished]) -> None:
        sending = AtomicBatch(self._client)
        try:
            async with self._preparing:
                prepared = await self._prepare_and_send(batch, sending)
            first_sequence = await sending.commit()
        except UnavailableError as error:
            # Only reading tells whether the batch was written.
            log.warning("outcome_write_failed", outcomes=len(batch), detail=str(error))
            self.trouble = f"outcomes cannot be written: {error}"
            await self._refresh_all(batch)
            self._settle_or_retry(batch)
            self._forget_trouble_when_done()
        except BusError as error:
            await self._on_refusal(batch, error)
        else:
            self.commits += 1
            self.trouble = None
            await self._settle(prepared, first_sequence)

    async def _prepare_and_send(
        self, batch: list[_Finished], sending: AtomicBatch
    ) -> list[_Prepared]:
        """Computes the next states and sends them chunk by chunk.

        The server receives the first chunks while the last ones are computed.
        """
        prepared = []
        busy = len(batch) >= BUSY_BATCH_SIZE
        for chunk in _chunks(batch):
            now = self._now()
            chunk_writes = []
            for attempt, result in chunk:
                tracked = attempt.tracked
                state = next_state(attempt, result, now, self._policy)
                timer_at = None
                if busy:
                    timer_at = busy_fires_at(state, tracked.timer_at)
                outcome_writes = writes(attempt, state, timer_at)
                prepared.append(
                    _Prepared(
                        attempt, state, len(outcome_writes), tracked.entry_revision, timer_at
                    ),
                )
                chunk_writes += outcome_writes
            await sending.send(chunk_writes)
            # Pings are sent and answers received in between.
            await asyncio.sleep(0)
        return prepared

    async def _settle(self, prepared: list[_Prepared], first_sequence: int) -> None:
        sequence = first_sequence
        # All outcomes of the batch were written now, even if settling them takes a while. When they
        # were written is the server's time, as it is for one who reads them from the bucket.
        written_at = self._server_now() or self._now()
        time_ns = int(written_at.timestamp() * 1e9)
        for chunk in _chunks(prepared):
            for attempt, state, own_writes, entry_revision, timer_at in chunk:
                agent_id = attempt.agent_id
                newest = self._directory.apply_state(agent_id, state, sequence, time_ns)
                sequence += own_writes
                self._on_settled(attempt, state, True)
                if attempt.tracked.entry_revision != entry_revision:
                    self._directory.on_timer_suspect(agent_id)
                elif newest:
                    attempt.tracked.timer_at = timer_at
            await asyncio.sleep(0)

    async def _on_refusal(self, batch: list[_Finished], error: BusError) -> None:
        """Finds out which outcomes of a refused batch can still be written.

        The refusal does not name the agent. After an outage every second compare-and-set may fail,
        so all states are read at once: finding those agents one by one would delay the others. The
        batch is halved only if reading shows no change.
        """
        if isinstance(error, StaleError) and await self._refresh_all(batch):
            self._settle_or_retry(batch)
            return
        if not isinstance(error, StaleError):
            self.trouble = f"outcomes cannot be written: {error}"
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._write(batch[:middle])
            await self._write(batch[middle:])
            return
        log.error(
            "outcome_refused",
            agent_id=batch[0].attempt.agent_id,
            detail=str(error),
            action="trying again",
        )
        await asyncio.sleep(RETRY_SECONDS)
        await self._refresh_all(batch)
        self._settle_or_retry(batch)
        self._forget_trouble_when_done()

    def _forget_trouble_when_done(self) -> None:
        """A failed batch may have been written after all. What was not is tried again."""
        if not self._finished:
            self.trouble = None

    async def _refresh_all(self, batch: list[_Finished]) -> bool:
        """Reads the agents of the batch from the bucket; returns whether that showed a change."""
        attempts = [finished.attempt for finished in batch]
        used = [(a.base_revision, a.tracked.entry_revision) for a in attempts]
        await asyncio.gather(*(self._refresh(a.agent_id) for a in attempts))
        found = [(a.tracked.state_revision, a.tracked.entry_revision) for a in attempts]
        return found != used

    def _settle_or_retry(self, batch: list[_Finished]) -> None:
        """Handles each attempt by the state that was just read.

        An outcome that was written meanwhile, perhaps by this scheduler, settles the attempt.
        """
        for attempt, result in batch:
            state = attempt.tracked.state
            if attempt.tracked.state_revision == attempt.base_revision:
                self.submit(attempt, result)
            elif state is not None and attempt.is_settled_by(state):
                ours = state.last.ping_id == attempt.ping_id
                if not ours:
                    self.lost_races += 1
                self._on_settled(attempt, state, ours)
            else:
                self._on_retry(attempt)

    async def _refresh(self, agent_id: str) -> None:
        """Reads the agent's state and entry, again until that succeeds."""
        while True:
            try:
                await self._refresh_state(agent_id)
                await self._refresh_entry(agent_id)
            except (BusError, nats.errors.Error, TimeoutError) as error:
                log.warning("bucket_read_failed", agent_id=agent_id, detail=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _refresh_state(self, agent_id: str) -> None:
        key = subjects.state_key(agent_id)
        try:
            found = await read(self._client, key, AgentState)
        except BadMessageError as error:
            log.error("bucket_value_rejected", subject=key, detail=str(error))
            found = None
        if found:
            self._directory.apply_state(agent_id, found.value, found.revision, found.time_ns)
            return
        revision = await last_sequence(self._client, key)
        if revision:
            # The key was deleted, or holds no valid state.
            state = await last_valid_state(self._client, agent_id)
            self._directory.replace_state(agent_id, state, revision)

    async def _refresh_entry(self, agent_id: str) -> None:
        key = subjects.agent_key(agent_id)
        try:
            found = await read(self._client, key, AgentEntry)
        except BadMessageError as error:
            log.error("bucket_value_rejected", subject=key, detail=str(error))
            return
        if found:
            self._directory.apply_entry(agent_id, found.value, found.revision, found.time_ns)


def _chunks(batch: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(batch), CHUNK):
        yield batch[start : start + CHUNK]
