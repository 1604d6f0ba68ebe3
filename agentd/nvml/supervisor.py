"""Asks every GPU through the child process, and always returns, also when a GPU hangs.

The deadlines, and why (docs/decisions/gpu-health.md): a child that prints nothing for
SILENCE_SECONDS hangs on the GPU that it was reading, and is killed; the GPUs after that one are
asked through a new child in the same check. Opening the library may take many seconds although
nothing is wrong, because it starts each GPU that no other process holds open. The supervisor
therefore waits longer for it, over several checks, before it calls the driver hung.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from agentd.health.rules import Reading, failure_of, gpu_of
from agentd.nvml.worker_process import Child, ChildDiedError
from bus.clock import boottime
from bus.contract.messages import UnopenedGpu

SILENCE_SECONDS = 1.0  # at most; half a check interval where that is less
START_SECONDS = 5.0  # until the child's first line
# The first opening may take this long: eight GPUs without persistence mode take 16 s. Only then is
# it called hung. The first check waits for it.
FIRST_OPENING_SECONDS = 30.0
OPENING_SECONDS = 10.0  # after this a later opening is called hung
OPENING_LIMIT_SECONDS = 30.0  # after this a child that is still opening is killed
RETRY_LIMIT_SECONDS = 15.0  # a GPU that hung is asked again after this at the latest
# With so many children that even SIGKILL does not end, only one a minute is started: they must not
# pile up.
STUCK_LIMIT = 3
STUCK_WAIT_SECONDS = 60.0
_INDEX_OF_UNKNOWN = 1 << 30  # sorts behind every real index


class CheckResult(NamedTuple):
    """What one check found.

    `failure`: nothing could be read, for this reason. `xids`: (GPU UUID, number). `unopened`: GPUs
    that have no UUID to read.
    """

    readings: Sequence[Reading] = ()
    failure: str | None = None
    xids: Sequence[tuple[str | None, int]] = ()
    unopened: tuple[UnopenedGpu, ...] = ()


class _HangCount(NamedTuple):
    """How often a GPU hung in a row, and when (CLOCK_MONOTONIC) it may be asked again."""

    times: int
    not_before: float


class _Answer:
    """The lines of the child's answer to one question, so far."""

    def __init__(self) -> None:
        self.order: list[str] = []  # the GPUs that the child will read
        self.found: list[str] = []  # the GPUs that there are
        self.unopened: tuple[UnopenedGpu, ...] = ()
        self.readings: dict[str, list[dict[str, Any]]] = {}  # by GPU UUID
        self.xids: list[tuple[str | None, int]] = []
        self.failure: str | None = None
        self.silent = False

    @property
    def being_read(self) -> str | None:
        """The GPU that the child was reading when it printed its last line."""
        for uuid in self.order:
            if uuid not in self.readings:
                return uuid
        return None


class ProbeSupervisor:
    """Owns the child and its back-offs. Not for concurrent use: the probe holds a lock."""

    def __init__(
        self,
        interval: float,
        environ: Mapping[str, str],
        first_opening_seconds: float = FIRST_OPENING_SECONDS,
    ) -> None:
        self._first_opening_seconds = first_opening_seconds
        self._silence = min(SILENCE_SECONDS, interval / 2.0)
        self._interval = interval
        self._environ = environ
        self._child: Child | None = None
        self._has_printed = False  # the child has printed a line
        self._unanswered = False  # a question whose answer has not ended yet
        self._opening_since: float | None = None
        self._opened_once = False
        self._first_opening_ended = False  # with success, with an error, or after its time
        self.opened_at: float | None = None  # CLOCK_BOOTTIME of the last opening's end, in seconds
        self._hung = False  # the driver as a whole, until a check succeeds
        self._hangs: dict[str, _HangCount] = {}  # by GPU UUID
        self._known: dict[str, Reading] = {}  # the last reading of each GPU and MIG device
        self._stuck: list[Child] = []  # killed, and perhaps not dead yet
        self._child_started_at = -STUCK_WAIT_SECONDS

    # ---- the two questions ----

    async def check(
        self,
        expected: Collection[str],
        energy: Collection[str],
    ) -> CheckResult:
        """Reads every GPU, in bounded time. `energy`: the GPUs whose energy counter is read too."""
        answer = _Answer()
        unfinished = "probe-starting"
        # The second time is for the GPUs behind one that hung, or for a child that died.
        for _ in range(2):
            try:
                await self._ask(self._check_question(expected, energy, answer), answer)
            except TimeoutError:
                self._on_silence(answer)
                if self._child is not None:
                    break  # it is opening the library, and another child would not be faster
            except ChildDiedError:
                unfinished = "probe-died"
                self._kill_child()
            else:
                self._hung = False
                return self._result(answer, expected, None)
        if answer.silent or self._hung:
            unfinished = "hung"
        return self._result(answer, expected, unfinished)

    def _check_question(
        self,
        expected: Collection[str],
        energy: Collection[str],
        answer: _Answer,
    ) -> dict[str, Any]:
        """GPUs that hung are asked last, and not before their time.

        Those already read are not asked again.
        """
        now = time.monotonic()
        skipped = list(answer.readings)
        for uuid, hang in self._hangs.items():
            if now < hang.not_before:
                skipped.append(uuid)
        if answer.silent and answer.being_read is not None:
            skipped.append(answer.being_read)
        return {
            "ask": "check",
            "expected": list(expected),
            "energy": list(energy),
            "last": list(self._hangs),
            "skip": skipped,
        }

    async def details(self) -> list[dict[str, Any]]:
        """Each GPU's details; of a GPU that cannot be asked now, only its UUID, index and name."""
        answer = _Answer()
        if not self._hangs and not self._hung:
            try:
                await self._ask({"ask": "details"}, answer)
            except TimeoutError:
                if self._opening_since is None:
                    self._kill_child()  # the next check finds out whether it hangs
            except ChildDiedError:
                self._kill_child()
        details = []
        for reading in self._known.values():
            gpu: dict[str, Any] = {"index": reading.index, "name": reading.name}
            if reading.gpu_uuid in answer.readings:
                gpu |= answer.readings[reading.gpu_uuid][0]
            details.append(gpu | {"uuid": reading.uuid})
        return details

    async def close(self) -> None:
        """Ends the child within half a second."""
        if self._child is not None:
            child = self._child
            self._child = None
            await child.end()

    # ---- asking ----

    async def _ask(self, question: dict[str, Any], answer: _Answer) -> None:
        """Raises TimeoutError when the child falls silent, ChildDiedError when it has ended."""
        child = await self._running_child()
        if self._unanswered:
            # The end of an answer that came too late: it describes an earlier time.
            await self._read_answer(child, _Answer())
        child.ask(question)
        self._unanswered = True
        await self._read_answer(child, answer)

    async def _read_answer(self, child: Child, answer: _Answer) -> None:
        while self._unanswered:
            line = await self._next_line(child)
            self._has_printed = True
            match line:
                case {"opening": _}:
                    self._opening_since = time.monotonic()
                case {"opened": code}:
                    self._opening_since = None
                    self._opened_once = self._opened_once or code is None
                    self._first_opening_ended = True
                    self.opened_at = boottime()
                case {"order": order, "found": found, "unopened": unopened}:
                    answer.order = order
                    answer.found = found
                    answer.unopened = tuple(_unopened(gpu) for gpu in unopened)
                case {"read": uuid, "readings": readings}:
                    answer.readings[uuid] = readings
                case {"failure": code}:
                    answer.failure = failure_of(code)
                    self._unanswered = False
                case {"done": _, "xids": xids}:
                    answer.xids += [(uuid, number) for uuid, number in xids]
                    self._unanswered = False

    async def _next_line(self, child: Child) -> dict[str, Any]:
        began = time.monotonic()
        limit = self._silence_limit(began)
        try:
            return await child.line(limit)
        except TimeoutError:
            if time.monotonic() - began < limit + self._silence / 2.0:
                raise
        # This process itself was held up, so the child's silence proves nothing yet.
        return await child.line(self._silence)

    def _silence_limit(self, now: float) -> float:
        """How long, in seconds, the child may print nothing."""
        if not self._first_opening_ended and self._opening_since is not None:
            left_for_opening = self._opening_since + self._first_opening_seconds - now
            return max(self._silence, left_for_opening)
        if not self._has_printed:
            return START_SECONDS  # Python is starting, which proves nothing about the driver
        return self._silence

    async def _running_child(self) -> Child:
        """Raises TimeoutError while no further child may be started."""
        self._stuck = [child for child in self._stuck if not child.dead()]
        if self._child is None:
            now = time.monotonic()
            since_last_start = now - self._child_started_at
            if len(self._stuck) >= STUCK_LIMIT and since_last_start < STUCK_WAIT_SECONDS:
                raise TimeoutError
            self._child_started_at = now
            self._child = await Child.start(self._environ)
            self._has_printed = False
            self._unanswered = False
            self._opening_since = now
        return self._child

    # ---- when it falls silent ----

    def _on_silence(self, answer: _Answer) -> None:
        now = time.monotonic()
        if self._child is None:
            # No child may be started now, because too many killed ones have not ended.
            answer.silent = True
        elif self._opening_since is not None:
            self._first_opening_ended = True
            opening_for = now - self._opening_since
            if self._hangs or opening_for >= self._longest_opening():
                self._hung = True
            if opening_for >= OPENING_LIMIT_SECONDS:
                self._kill_child()
        else:
            answer.silent = True
            self._note_hang(answer.being_read, now)
            self._kill_child()

    def _longest_opening(self) -> float:
        """After how many seconds an opening is called hung."""
        if self._opened_once:
            return OPENING_SECONDS
        return self._first_opening_seconds

    def _note_hang(self, uuid: str | None, now: float) -> None:
        if uuid is None:
            self._hung = True
            return
        times = 1
        if uuid in self._hangs:
            times = self._hangs[uuid].times + 1
        wait = min(RETRY_LIMIT_SECONDS, self._interval * (times - 1))
        self._hangs[uuid] = _HangCount(times, now + wait)

    def _kill_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._stuck.append(self._child)
            self._child = None

    # ---- the result ----

    def _result(
        self,
        answer: _Answer,
        expected: Collection[str],
        unfinished: str | None,
    ) -> CheckResult:
        """`unfinished` says why the answer did not end; None when it did."""
        self._forget_hangs(answer, finished=unfinished is None)
        readings = self._identified_readings(answer)
        if answer.failure and not readings:
            return CheckResult(failure=answer.failure, xids=answer.xids)
        read = {reading.gpu_uuid for reading in readings}
        self._remember_readings(readings, read)
        not_read = self._hanging()
        if unfinished:
            not_read = {*self._known, *expected}
        if unfinished and not readings and not not_read:
            return CheckResult(failure=unfinished)  # nothing was looked at
        for uuid in list(self._known):
            if self._known[uuid].gpu_uuid not in read and uuid not in not_read:
                del self._known[uuid]
        for uuid in not_read:
            if gpu_of(uuid) not in read:
                readings.append(self._reading_of_unread(uuid, unfinished))
        return CheckResult(sorted(readings, key=_by_index), None, answer.xids, answer.unopened)

    def _identified_readings(self, answer: _Answer) -> list[Reading]:
        """Returns the readings, each with the index, name and address of its GPU.

        A lost GPU no longer reports these, so they are taken from its last good reading.
        """
        identified = []
        for given_of_gpu in answer.readings.values():
            for given in given_of_gpu:
                reading = msgspec.convert(given, Reading)
                known = self._known.get(reading.uuid)
                if reading.error is not None and known is not None:
                    reading = _with_identity_of(known, reading)
                identified.append(reading)
        return identified

    def _remember_readings(
        self,
        readings: list[Reading],
        read: set[str],
    ) -> None:
        """Replaces what was known of the GPUs in `read`, of all their MIG devices too."""
        for uuid in list(self._known):
            if self._known[uuid].gpu_uuid in read:
                del self._known[uuid]
        for reading in readings:
            self._known[reading.uuid] = reading

    def _forget_hangs(self, answer: _Answer, *, finished: bool) -> None:
        """Forgets the hangs of GPUs that were read, and of those that are no longer there."""
        for uuid in list(self._hangs):
            gone = finished and uuid not in answer.found
            if gone or uuid in answer.readings:
                del self._hangs[uuid]

    def _hanging(self) -> set[str]:
        """The GPUs that hang. A GPU with known MIG devices is replaced by those devices."""
        hanging = set()
        for gpu in self._hangs:
            devices = [uuid for uuid, known in self._known.items() if known.gpu_uuid == gpu]
            hanging.update(devices or [gpu])
        return hanging

    def _reading_of_unread(
        self,
        uuid: str,
        unfinished: str | None,
    ) -> Reading:
        """A GPU that was not read is `hung`, or unknown because the check did not finish."""
        known = self._known.get(uuid) or Reading(uuid=uuid)
        hung = gpu_of(uuid) in self._hangs or unfinished in (None, "hung")
        return Reading(
            uuid=uuid,
            index=known.index,
            name=known.name,
            pci=known.pci,
            gi=known.gi,
            ci=known.ci,
            hung=hung,
            unread=None if hung else unfinished,
        )


def _unopened(gpu: dict[str, Any]) -> UnopenedGpu:
    return UnopenedGpu(
        index=gpu["index"],
        reason=failure_of(gpu["code"]),
        pci=gpu["pci"],
    )


def _with_identity_of(known: Reading, reading: Reading) -> Reading:
    index = reading.index
    if index is None:
        index = known.index
    return structs.replace(
        reading,
        index=index,
        name=reading.name or known.name,
        pci=reading.pci or known.pci,
    )


def _by_index(reading: Reading) -> tuple[int, str]:
    if reading.index is None:
        return (_INDEX_OF_UNKNOWN, reading.uuid)
    return (reading.index, reading.uuid)
