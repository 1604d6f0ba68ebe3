"""Registering and removing agents: the only writer of `agent.<id>`, beside the first report's expected GPUs.

Registering again updates what the agent says of itself and never touches its ping state, else a host could
wash its record clean. Removing keeps state and history, and cancels the next ping in the same batch.
"""

import asyncio
from datetime import datetime
from weakref import WeakValueDictionary

from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.messages import AgentEntry, AgentState, Enrolment, encode
from bus.contract.questions import RegisterRequest
from bus.errors import RefusedError, StaleError, UnavailableError
from bus.transport.batch import Write, only_if
from bus.transport.bucket import read
from bus.transport.connection import Client
from scheduler import policy as rules
from scheduler.fleet.directory import Directory, Tracked
from scheduler.policy import Policy
from scheduler.write.batcher import Gatherer
from scheduler.write.timers import cancel_timer, timer

ATTEMPTS = 5
MAX_ENROLMENTS = 1000  # that an entry remembers; a fleet that is taken down and up every day needs three years for it


class Registry:
    """Writes by compare-and-set; another scheduler's write in between is read and built upon."""

    def __init__(self, client: Client, directory: Directory, policy: Policy) -> None:
        self._client, self._directory, self._policy = client, directory, policy
        self.gatherer = Gatherer(client)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = (
            WeakValueDictionary()
        )  # one change of an agent at a time

    async def register(
        self, agent_id: str, request: RegisterRequest, now: datetime
    ) -> tuple[Tracked, bool]:
        """The agent, and whether it was new (or removed before)."""
        async with self._lock(agent_id):
            return await self._register(agent_id, request, now)

    async def _register(
        self, agent_id: str, request: RegisterRequest, now: datetime
    ) -> tuple[Tracked, bool]:
        for _ in range(ATTEMPTS):
            tracked = self._directory.get(agent_id) or await self._reload(agent_id)
            before = tracked.entry if tracked else None
            if before is None or before.removed_at is not None:
                written = await self._try(
                    agent_id, *self._enrolment(agent_id, tracked, request, now)
                )
                created = True
            else:
                entry = _updated(before, request)
                written = await (
                    self._is_last(agent_id, before)
                    if entry == before
                    else self._try(agent_id, entry, tracked, [])
                )
                created = False
            if written and (known := self._directory.get(agent_id)):
                return known, created
        raise UnavailableError(
            f"agent {agent_id!r} is being changed by others at the same time: try again"
        )

    async def remove(self, agent_id: str, now: datetime) -> None:
        """Marks the agent removed and cancels its next ping. Raises RefusedError 404 when there is none."""
        async with self._lock(agent_id):
            await self._remove(agent_id, now)

    async def _remove(self, agent_id: str, now: datetime) -> None:
        for _ in range(ATTEMPTS):
            tracked = self._directory.get(agent_id)
            if (
                tracked is None or not tracked.registered
            ):  # as far as was heard; another may have registered it
                tracked = await self._reload(agent_id)
            if tracked is None or tracked.entry is None or not tracked.registered:
                raise unknown(agent_id)
            entry = replace(tracked.entry, removed_at=now)
            if await self._try(agent_id, entry, tracked, [cancel_timer(agent_id)]):
                return
        raise UnavailableError(
            f"agent {agent_id!r} is being changed by others at the same time: try again"
        )

    def _lock(self, agent_id: str) -> asyncio.Lock:
        return self._locks.setdefault(agent_id, asyncio.Lock())

    def _enrolment(
        self, agent_id: str, tracked: Tracked | None, request: RegisterRequest, now: datetime
    ) -> tuple[AgentEntry, Tracked | None, list[Write]]:
        """A new enrolment begins now; an old ping state is resumed, and its next ping is no earlier than it was."""
        before = tracked.entry if tracked else None
        state = tracked.state if tracked else None
        fresh = AgentEntry(agent_id=agent_id, registered_at=now, enrolled_at=now)
        if before is not None and before.removed_at is not None:
            earlier = (*before.earlier, Enrolment(before.enrolled_at, before.removed_at))
            fresh = replace(
                before, enrolled_at=now, removed_at=None, earlier=earlier[-MAX_ENROLMENTS:]
            )
        due_at = max(now, state.next_ping_at) if state else rules.first_ping_at(now, self._policy)
        next_timer = timer(agent_id, state.ping_seq + 1 if state else 1, due_at)
        guarded = only_if(
            next_timer, subjects.state_key(agent_id), tracked.state_revision if tracked else 0
        )
        return _updated(fresh, request), tracked, [guarded]

    async def _is_last(self, agent_id: str, entry: AgentEntry) -> bool:
        """Whether the entry known here is the bucket's: another scheduler may have removed the agent since."""
        tracked = await self._reload(agent_id)
        return tracked is not None and tracked.entry == entry

    async def _try(
        self, agent_id: str, entry: AgentEntry, tracked: Tracked | None, others: list[Write]
    ) -> bool:
        revision = tracked.entry_revision if tracked else 0
        write = Write(subjects.agent_key(agent_id), encode(entry), expected=revision)
        try:
            sequence = await self.gatherer.write([write, *others])
        except StaleError:
            await self._reload(agent_id)
            return False
        self._directory.apply_entry(agent_id, entry, sequence)
        return True

    async def _reload(self, agent_id: str) -> Tracked | None:
        if entry := await read(self._client, subjects.agent_key(agent_id), AgentEntry):
            self._directory.apply_entry(agent_id, entry.value, entry.revision)
        if state := await read(self._client, subjects.state_key(agent_id), AgentState):
            self._directory.apply_state(agent_id, state.value, state.revision, state.time_ns)
        return self._directory.get(agent_id)


def unknown(agent_id: str) -> RefusedError:
    """The refusal for an agent that is not registered."""
    return RefusedError(404, f"no agent {agent_id!r} is registered")


def _updated(entry: AgentEntry, request: RegisterRequest) -> AgentEntry:
    given = {
        "agent_url": request.agent_url,
        "capabilities": request.capabilities,
        "metadata": request.metadata,
    }
    return replace(entry, **{name: value for name, value in given.items() if value is not None})
