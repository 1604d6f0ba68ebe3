"""Asks every GPU through the child, and always comes back: with readings, or with whom the driver hangs on.

The deadlines, and why (docs/decisions/gpu-health.md): a child that says nothing for `silence` seconds hangs on the
GPU it was reading, and is killed; the GPUs after that one are asked through a new child in the same check. Opening
the library may rightly take many seconds (a GPU that nobody holds open is started by it), so that is waited for
longer, in the background, before it is called hung.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from agentd.health.rules import Reading, failure_of, gpu_of
from agentd.nvml.worker_process import Child, ChildDiedError

SILENCE_SECONDS = 1.0  # at most; half a check interval where that is less
START_SECONDS = 5.0  # until the child is heard of for the first time
FIRST_OPENING_SECONDS = (
    10.0  # how long the very first check waits for the library, and when opening counts as hung
)
OPENING_LIMIT_SECONDS = 30.0  # after which a child that is still opening is given up
RETRY_LIMIT_SECONDS = 15.0  # a GPU that hung is asked again at the latest after this
STUCK_LIMIT = (
    3  # so many children that not even SIGKILL ends: then one a minute, so that they do not pile up
)
STUCK_WAIT_SECONDS = 60.0


class Answer(NamedTuple):
    """What one check found. `failure`: nothing could be read, for this reason. `xids`: (GPU UUID, number)."""

    readings: Sequence[Reading] = ()
    failure: str | None = None
    xids: Sequence[tuple[str | None, int]] = ()


class _Strike(NamedTuple):
    """How often a GPU hung in a row, and when (CLOCK_MONOTONIC) it may be asked again."""

    times: int
    not_before: float


class _Reads:
    """What one question has brought so far."""

    def __init__(self) -> None:
        self.order: list[str] | None = None
        self.found: list[str] = []
        self.given: dict[str, list[dict[str, Any]]] = {}
        self.xids: list[tuple[str | None, int]] = []
        self.failure: str | None = None
        self.silent = False

    @property
    def stuck_at(self) -> str | None:
        """The GPU that the child was reading when it was last heard of."""
        return next((uuid for uuid in self.order or () if uuid not in self.given), None)


class Asker:
    """Owns the child and its back-offs. Not for concurrent use: the probe has a lock."""

    def __init__(self, interval: float, environ: Mapping[str, str]) -> None:
        self._silence = min(SILENCE_SECONDS, interval / 2.0)
        self._interval = interval
        self._environ = environ
        self._child: Child | None = None
        self._started = False  # the child has been heard of
        self._outstanding = False  # a question whose answer has not ended yet
        self._opening_since: float | None = None
        self._opened_once = False
        self._hung = False  # the driver as a whole, until a check succeeds
        self._strikes: dict[str, _Strike] = {}
        self._known: dict[str, Reading] = {}
        self._stuck: list[Child] = []
        self._started_at = -STUCK_WAIT_SECONDS

    # ---- the two questions ----

    async def check(self, expected: Collection[str], energy: Collection[str]) -> Answer:
        """One reading of every GPU, in bounded time."""
        reads, unfinished = _Reads(), "probe-starting"
        for _ in range(
            2
        ):  # the second time for those behind a GPU that hung, or after the child died
            question = {
                "ask": "check",
                "expected": [*expected],
                "energy": [*energy],
                **self._spared(reads),
            }
            try:
                await self._question(question, reads)
            except TimeoutError:
                self._note_silence(reads)
                if self._child is not None:
                    break  # it is opening the library, which another child would not do sooner
            except ChildDiedError:
                unfinished = "probe-died"
                self._drop()
            else:
                self._hung = False
                return self._answer(reads, expected, None)
        return self._answer(reads, expected, "hung" if reads.silent or self._hung else unfinished)

    async def details(self) -> list[dict[str, Any]]:
        """Each GPU's details; of one that cannot be asked now, only who it is."""
        reads = _Reads()
        if not self._strikes and not self._hung:
            try:
                await self._question({"ask": "details"}, reads)
            except TimeoutError:
                if self._opening_since is None:
                    self._drop()  # whether it hangs is for the next check to say
            except ChildDiedError:
                self._drop()
        details = {uuid: given[0] for uuid, given in reads.given.items()}
        return [
            {"uuid": r.uuid, "index": r.index, "name": r.name}
            | details.get(r.gpu_uuid, {})
            | {"uuid": r.uuid}
            for r in self._known.values()
        ]

    async def close(self) -> None:
        """Ends the child, within half a second."""
        if self._child is not None:
            child, self._child = self._child, None
            await child.end()

    # ---- asking ----

    async def _question(self, question: dict[str, Any], reads: _Reads) -> None:
        """Raises TimeoutError when the child falls silent, ChildDiedError when it is gone."""
        child = await self._living_child()
        if self._outstanding:
            await self._listen(child, _Reads())  # an answer that came too late is of an old moment
        child.ask(question)
        self._outstanding = True
        await self._listen(child, reads)

    async def _listen(self, child: Child, reads: _Reads) -> None:
        while self._outstanding:
            line = await self._line(child)
            self._started = True
            match line:
                case {"opening": _}:
                    self._opening_since = time.monotonic()
                case {"opened": code}:
                    self._opening_since = None
                    self._opened_once = self._opened_once or code is None
                case {"order": order, "found": found}:
                    reads.order = order
                    reads.found = found
                case {"read": uuid, "readings": readings}:
                    reads.given[uuid] = readings
                case {"failure": code}:
                    reads.failure = failure_of(code)
                    self._outstanding = False
                case {"done": _, "xids": xids}:
                    reads.xids += [(uuid, number) for uuid, number in xids]
                    self._outstanding = False

    async def _line(self, child: Child) -> dict[str, Any]:
        now, wait = time.monotonic(), self._silence
        if not self._started:
            wait = START_SECONDS  # Python is starting, which says nothing of the driver
        elif self._opening_since is not None and not self._opened_once:
            wait = max(wait, self._opening_since + FIRST_OPENING_SECONDS - now)
        try:
            return await child.line(wait)
        except TimeoutError:
            if time.monotonic() - now < wait + self._silence / 2.0:
                raise
            return await child.line(
                self._silence
            )  # we ourselves were held up, so its silence says nothing yet

    async def _living_child(self) -> Child:
        self._stuck = [child for child in self._stuck if not child.dead()]
        if self._child is None:
            now = time.monotonic()
            if len(self._stuck) >= STUCK_LIMIT and now - self._started_at < STUCK_WAIT_SECONDS:
                raise TimeoutError
            self._started_at = now
            self._child = await Child.start(self._environ)
            self._started, self._outstanding, self._opening_since = False, False, now
        return self._child

    # ---- when it falls silent ----

    def _note_silence(self, reads: _Reads) -> None:
        now = time.monotonic()
        if self._child is None:  # none may be started now: those before it are still stuck
            reads.silent = True
        elif self._opening_since is not None:
            age = now - self._opening_since
            self._hung = self._hung or bool(self._strikes) or age >= FIRST_OPENING_SECONDS
            if age >= OPENING_LIMIT_SECONDS:
                self._drop()
        else:
            reads.silent = True
            self._strike(reads.stuck_at, now)
            self._drop()

    def _strike(self, uuid: str | None, now: float) -> None:
        if uuid is None:
            self._hung = True
            return
        times = self._strikes[uuid].times + 1 if uuid in self._strikes else 1
        self._strikes[uuid] = _Strike(
            times, now + min(RETRY_LIMIT_SECONDS, self._interval * (times - 1))
        )

    def _spared(self, reads: _Reads) -> dict[str, list[str]]:
        """GPUs that hung are asked last, and not at all before their time; those already read are not asked again."""
        now = time.monotonic()
        resting = [uuid for uuid, strike in self._strikes.items() if now < strike.not_before]
        hung_now = [reads.stuck_at] if reads.silent and reads.stuck_at else []
        return {"last": list(self._strikes), "skip": [*resting, *hung_now, *reads.given]}

    def _drop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._stuck.append(self._child)
            self._child = None

    # ---- what it comes to ----

    def _answer(self, reads: _Reads, expected: Collection[str], unfinished: str | None) -> Answer:
        self._forgive(reads, done=unfinished is None)
        readings = [self._identified(one) for given in reads.given.values() for one in given]
        if reads.failure and not readings:
            return Answer(failure=reads.failure, xids=reads.xids)
        present = {reading.gpu_uuid for reading in readings}
        kept = {uuid: r for uuid, r in self._known.items() if r.gpu_uuid not in present}
        self._known = kept | {r.uuid: r for r in readings}
        waiting = {*self._known, *expected} if unfinished else self._struck()
        if unfinished == "hung" and not readings and not waiting:
            return Answer(failure="hung")
        rest = [self._unread(uuid, unfinished) for uuid in waiting if gpu_of(uuid) not in present]
        self._known = {
            uuid: r for uuid, r in self._known.items() if r.gpu_uuid in present or uuid in waiting
        }
        return Answer(sorted([*readings, *rest], key=_by_index), None, reads.xids)

    def _identified(self, given: dict[str, Any]) -> Reading:
        """A lost GPU no longer says its index and name; those it had are kept."""
        reading = msgspec.convert(given, Reading)
        if reading.error is None or (known := self._known.get(reading.uuid)) is None:
            return reading
        index = known.index if reading.index is None else reading.index
        return structs.replace(
            reading, index=index, name=reading.name or known.name, pci=reading.pci or known.pci
        )

    def _forgive(self, reads: _Reads, *, done: bool) -> None:
        """A GPU that was read hangs no more, and one that is gone does not hang."""
        gone = {uuid for uuid in self._strikes if uuid not in reads.found} if done else set()
        for uuid in {*reads.given, *gone}:
            self._strikes.pop(uuid, None)

    def _struck(self) -> set[str]:
        """GPUs that hang, or their MIG devices where those are known."""
        known = {uuid for uuid, reading in self._known.items() if reading.gpu_uuid in self._strikes}
        return known | {uuid for uuid in self._strikes if all(gpu_of(k) != uuid for k in known)}

    def _unread(self, uuid: str, unfinished: str | None) -> Reading:
        known = self._known.get(uuid) or Reading(uuid=uuid)
        who = Reading(
            uuid=uuid, index=known.index, name=known.name, pci=known.pci, gi=known.gi, ci=known.ci
        )
        if gpu_of(uuid) in self._strikes or unfinished in (None, "hung"):
            return structs.replace(who, hung=True)
        return structs.replace(who, unread=unfinished)


def _by_index(reading: Reading) -> tuple[int, str]:
    return (reading.index if reading.index is not None else 1 << 30, reading.uuid)
