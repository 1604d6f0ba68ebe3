"""Reads every outcome from the history stream, in order, and records what it changes.

How far it has come is kept in the bucket. A process that starts goes on from there, and a little
before: what it reads twice changes nothing. A fleet that had no alerts until now is looked at as it
is: what is wrong already is told, what was wrong in the past is not.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import structlog
from nats.aio.msg import Msg

from bus.background import background
from bus.clock import boottime, utc_now
from bus.contract import subjects
from bus.contract.alerts import Position
from bus.contract.messages import AgentState, decode, encode
from bus.errors import BadMessageError, BusError
from bus.transport import jetstream_api
from bus.transport.batch import Write
from bus.transport.connection import Client
from bus.transport.consumers.ordered_consumer import OrderedConsumer
from bus.transport.consumers.pull_consumer import Delivery
from bus.transport.jetstream_api import JsonObject
from gpuping.alerts.board import Board
from gpuping.alerts.detect import hosts
from gpuping.alerts.detect.findings import Moment, Subject
from gpuping.alerts.detect.hosts import HostFacts
from gpuping.alerts.detect.recorder import Recorder

log = structlog.get_logger("gpuping.alerts.detect.history")

SOURCE = "host"
QUEUE_LIMIT = 2000
AT_ONCE = 200  # outcomes that are looked at before what they change is recorded
# The history may lose its newest messages when its server is killed, and copies them again.
REWIND = 500
POSITION_SECONDS = 5.0
RETRY_SECONDS = 1.0
_CONSUMER = {
    "ack_policy": "none",
    "mem_storage": True,
    "num_replicas": 1,
    "inactive_threshold": 60_000_000_000,
    "filter_subject": f"{subjects.HISTORY_PREFIX}*",
}


class _Read(NamedTuple):
    data: bytes
    sequence: int


class HistoryReader:
    """Follows the history for one alerts process."""

    def __init__(
        self,
        client: Client,
        board: Board,
        recorder: Recorder,
        facts_of: Callable[[str], HostFacts | None],
        max_interval_seconds: float,
    ) -> None:
        self._client = client
        self._board = board
        self._recorder = recorder
        self._facts_of = facts_of
        self._max_interval_seconds = max_interval_seconds
        self._consumer = OrderedConsumer(client, subjects.HISTORY_STREAM, self._deliver, self._room)
        self._queue: deque[_Read] = deque()
        self._arrived = asyncio.Event()
        self._delivered = 0  # sequence of the newest message in the queue
        self._done = 0  # sequence of the newest message that was looked at
        self._began = 0  # up to here the fleet was looked at as it was
        self._kept_at = 0.0  # when the position was written, CLOCK_BOOTTIME
        self.bad_messages = 0

    async def run(self) -> None:
        """Reads until cancelled."""
        async with background() as start:
            start(self._look_at_all())
            await self._read_for_ever()

    async def _read_for_ever(self) -> None:
        while True:
            try:
                await self._consumer.create(_CONSUMER, await self._start())
            except BusError as error:
                log.warning("alerts_history_failed", detail=str(error), action="trying again")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._consumer.run()

    async def _start(self) -> JsonObject:
        """Where to begin: behind what was delivered, else a little before the kept position."""
        info = await jetstream_api.call(self._client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
        newest: int = info["state"]["last_seq"]
        if 0 < self._delivered <= newest:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._delivered + 1}
        position = self._board.position
        if position is None or newest < position.sequence - REWIND:
            self._began = newest
            if newest == 0:  # nothing has a past: what comes from now on is told, also after a kill
                await self._write_position(0)
                return {"deliver_policy": "all"}
            return {"deliver_policy": "last_per_subject"}
        self._began = position.began
        begin = max(position.began + 1, min(position.sequence, newest) - REWIND)
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": begin}

    def _room(self) -> int:
        return max(0, QUEUE_LIMIT - len(self._queue))

    def _deliver(self, message: Msg, where: Delivery) -> None:
        self._queue.append(_Read(message.data, where.sequence))
        self._delivered = where.sequence
        self._arrived.set()

    async def _look_at_all(self) -> None:
        while True:
            if not self._queue:
                await self._arrived.wait()
            self._arrived.clear()
            turn = [self._queue[index] for index in range(min(AT_ONCE, len(self._queue)))]
            try:
                await self._look_at(turn)
            except BusError as error:
                self._recorder.drop()
                log.warning("alerts_record_failed", detail=str(error), action="trying again")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for _ in turn:
                self._queue.popleft()
            self._consumer.room_freed()

    async def _look_at(self, turn: list[_Read]) -> None:
        """Looks at outcomes in order. Returns when everything that they change is recorded."""
        now = utc_now()
        for read in turn:
            state = self._decoded(read)
            if state is None:
                continue
            facts = self._facts_of(state.agent_id)
            labels = {"agent_id": state.agent_id}
            if facts is not None:
                labels = facts.labels
            subject = Subject(SOURCE, state.agent_id, labels, state.ping_seq)
            findings = hosts.judge(state, facts, self._max_interval_seconds)
            await self._recorder.add(subject, findings, Moment(state.last.pinged_at, now))
        await self._recorder.flush()
        if turn:
            self._done = turn[-1].sequence
            await self._keep_position()

    def _decoded(self, read: _Read) -> AgentState | None:
        try:
            return decode(read.data, AgentState)
        except BadMessageError as error:
            self.bad_messages += 1
            log.warning("alerts_outcome_decode_failed", sequence=read.sequence, detail=str(error))
            return None

    async def _keep_position(self) -> None:
        """Writes how far this process has come, unless another has come further."""
        if boottime() - self._kept_at < POSITION_SECONDS:
            return
        self._kept_at = boottime()
        kept = self._board.position
        if kept is None or self._done > kept.sequence or self._began > kept.began:
            await self._write_position(self._done)

    async def _write_position(self, sequence: int) -> None:
        position = Position(sequence=sequence, began=self._began)
        await self._board.write([Write(subjects.ALERTS_POSITION, encode(position))])
