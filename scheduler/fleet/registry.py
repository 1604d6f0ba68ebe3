"""Registers and removes agents. The registry writes `agent.<id>`.

Only the expected GPUs of an agent are written elsewhere, with the outcome of its first report.

Registering again updates what the agent says about itself and never touches its ping state;
otherwise a host could erase its record. Removing keeps state and history, and cancels the next ping
in the same batch. A removal holds until the operator registers the agent again: an agent that asks
for itself is refused.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from bus.clock import boottime
from bus.contract import subjects
from bus.contract.enrolment import HostKeys
from bus.contract.messages import AgentEntry, AgentState, AnsweredPing, Enrolment, encode
from bus.contract.questions import REMOVED_BY_OPERATOR, ExpectGpusRequest, RegisterRequest
from bus.errors import BadMessageError, RefusedError, StaleError, UnavailableError
from bus.transport.batch import Write, only_if
from bus.transport.bucket import last_sequence, read
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from scheduler import policy as rules
from scheduler.fleet.directory import Directory
from scheduler.fleet.rules import expected_gpus
from scheduler.fleet.state_recovery import last_recorded_state, last_valid_state
from scheduler.fleet.tracked import Tracked
from scheduler.policy import Policy
from scheduler.write.batcher import WriteBatcher
from scheduler.write.timers import cancel_timer, timer

log = structlog.get_logger("scheduler.fleet.registry")

ATTEMPTS = 5
# A host is kept waiting so long for its keys to be recorded. The enrolment service may start later.
KEY_SECONDS = 60.0
# Remembered by an entry. A fleet that is removed and registered daily reaches this in three years.
MAX_ENROLMENTS = 1000


class Registration(NamedTuple):
    """`created` tells that the agent was new, or had been removed before.

    `before` is the entry that was replaced; None for an agent without one.
    """

    tracked: Tracked
    created: bool
    before: AgentEntry | None


class Registry:
    """Writes entries by compare-and-set.

    When another scheduler wrote in between, its entry is read and the change is applied to that.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        policy: Policy,
        bus_clock: BusClock,
        *,
        has_identities: bool = False,
        requires_signed: bool = False,
    ) -> None:
        """`has_identities`: hosts have keys, which the enrolment service has recorded.

        `requires_signed`: without its key, a host would miss its pings.
        """
        self._has_identities = has_identities
        self._requires_signed = requires_signed
        # Hosts whose keys are awaited, and since when by the boot's clock; the oldest first.
        self._without_key: dict[str, float] = {}
        self._client = client
        self._bus_clock = bus_clock
        self._directory = directory
        self._policy = policy
        self.batcher = WriteBatcher(client)
        # One change of an agent at a time.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def register(
        self,
        agent_id: str,
        request: RegisterRequest,
        now: datetime,
    ) -> Registration:
        """Registers an agent that asks for itself, or updates its entry.

        Raises RefusedError REMOVED_BY_OPERATOR while a removal holds, RefusedError 503 while the
        keys of a new host are waited for, and UnavailableError.
        """
        return await self._register(agent_id, request, now, by_operator=False)

    async def enrol(
        self,
        agent_id: str,
        request: RegisterRequest,
        now: datetime,
    ) -> Registration:
        """Registers an agent in the operator's name, also one that was removed, or updates it.

        Raises UnavailableError.
        """
        return await self._register(agent_id, request, now, by_operator=True)

    async def _register(
        self,
        agent_id: str,
        request: RegisterRequest,
        now: datetime,
        *,
        by_operator: bool,
    ) -> Registration:
        # At the same moment as `now`, before anything is awaited: the first window is measured from
        # here, and begins for the host when it asked.
        clocks = self._bus_clock.reading()
        async with self._lock(agent_id):
            for _ in range(ATTEMPTS):
                registration = await self._try_register(
                    agent_id, request, now, clocks, by_operator=by_operator
                )
                if registration is not None:
                    return registration
        raise _contended(agent_id)

    async def remove(self, agent_id: str, now: datetime) -> None:
        """Marks the agent removed and cancels its next ping.

        Raises RefusedError 404 when no such agent is registered, and UnavailableError.
        """
        async with self._lock(agent_id):
            for _ in range(ATTEMPTS):
                if await self._try_remove(agent_id, now):
                    return
        raise _contended(agent_id)

    async def change(
        self, agent_id: str, make: Callable[[AgentEntry], AgentEntry]
    ) -> tuple[AgentEntry, AgentEntry]:
        """Replaces the entry of a registered agent by what `make` makes of it.

        Returns the entries before and after. `make` may be called again, with an entry that another
        scheduler wrote meanwhile. Raises RefusedError 404 when no such agent is registered, what
        `make` raises, and UnavailableError.
        """
        async with self._lock(agent_id):
            for _ in range(ATTEMPTS):
                tracked = self._directory.get(agent_id)
                if tracked is None or not tracked.registered:
                    tracked = await self._reload(agent_id)
                before = tracked.entry
                if before is None or not tracked.registered:
                    raise unknown(agent_id)
                after = make(before)
                if after == before:
                    return before, after
                if await self._write_entry(after, tracked.entry_revision, []):
                    return before, after
        raise _contended(agent_id)

    async def expect_gpus(
        self,
        agent_id: str,
        request: ExpectGpusRequest,
        now: datetime,
    ) -> Registration:
        """Changes the GPUs that are expected of a host.

        Raises RefusedError 404 when no such agent is registered, 400 or 409 for a change that may
        not be, and UnavailableError.
        """
        async with self._lock(agent_id):
            for _ in range(ATTEMPTS):
                tracked = await self._reload(agent_id)
                if tracked.entry is None or not tracked.registered:
                    raise unknown(agent_id)
                before = tracked.entry
                entry = expected_gpus.changed(tracked, request, now)
                if await self._write_entry(entry, tracked.entry_revision, []):
                    return Registration(tracked, created=False, before=before)
        raise _contended(agent_id)

    async def _try_register(
        self,
        agent_id: str,
        request: RegisterRequest,
        now: datetime,
        clocks: AnsweredPing,
        *,
        by_operator: bool,
    ) -> Registration | None:
        """Returns None when another scheduler changed the agent meanwhile."""
        tracked = self._directory.get(agent_id)
        if tracked is None:
            tracked = await self._reload(agent_id)
            if tracked.entry is None and tracked.state is None:
                tracked = await self._recover(agent_id, tracked)
        if _is_removed(tracked) and not by_operator:
            # Another scheduler may have let it in again a moment ago.
            tracked = await self._reload(agent_id)
            if _is_removed(tracked):
                raise _removed(agent_id)
        before = tracked.entry
        created = not tracked.registered
        signing_key = await self._signing_key(agent_id)
        if created and not by_operator:
            self._refuse_without_key(agent_id, signing_key)
        if created:
            written = await self._enrol(
                agent_id, tracked, request, signing_key, now, clocks, by_operator=by_operator
            )
        else:
            written = await self._update(
                agent_id, tracked, request, signing_key, by_operator=by_operator
            )
        known = self._directory.get(agent_id)
        if not written or known is None:
            return None
        return Registration(known, created, before)

    async def _recover(self, agent_id: str, tracked: Tracked) -> Tracked:
        """Continues from the history, where the bucket knows nothing of the agent.

        Otherwise its numbers would begin anew, and history would take its outcomes for doubles.
        """
        state = await last_recorded_state(self._client, agent_id)
        if state is None:
            return tracked
        log.warning("agent_continued_from_history", agent_id=agent_id, ping_seq=state.ping_seq)
        self._directory.replace_state(agent_id, state, 0)
        return self._directory.get(agent_id) or tracked

    async def _try_remove(self, agent_id: str, now: datetime) -> bool:
        """Returns False when another scheduler changed the agent meanwhile."""
        tracked = self._directory.get(agent_id)
        if tracked is None or not tracked.registered:
            # Another scheduler may have registered it a moment ago.
            tracked = await self._reload(agent_id)
        if tracked.entry is None or not tracked.registered:
            raise unknown(agent_id)
        entry = replace(tracked.entry, removed_at=now)
        cancellation = cancel_timer(agent_id)
        return await self._write_entry(entry, tracked.entry_revision, [cancellation])

    def _lock(self, agent_id: str) -> asyncio.Lock:
        return self._locks.setdefault(agent_id, asyncio.Lock())

    async def _enrol(
        self,
        agent_id: str,
        tracked: Tracked,
        request: RegisterRequest,
        signing_key: str | None,
        now: datetime,
        clocks: AnsweredPing,
        *,
        by_operator: bool,
    ) -> bool:
        """Begins a new enrolment now.

        An agent that was removed keeps its ping state, and its next ping is due no earlier than it
        would have been.
        """
        if tracked.entry is None:
            entry = AgentEntry(
                agent_id=agent_id,
                registered_at=now,
                enrolled_at=now,
            )
        else:
            entry = _enrolled_again(tracked.entry, now)
        if tracked.state is None:
            due_at = rules.first_ping_at(now, self._policy)
        else:
            due_at = max(now, tracked.state.next_ping_at)
        next_timer = timer(agent_id, tracked.next_seq, due_at)
        state_key = subjects.state_key(agent_id)
        guarded = only_if(next_timer, state_key, tracked.state_revision)
        entry = replace(
            _updated(entry, request, signing_key),
            mark=request.mark,
            enrolled_clocks=clocks,
        )
        if not by_operator:
            entry = _on_bus(entry)
        return await self._write_entry(entry, tracked.entry_revision, [guarded])

    async def _update(
        self,
        agent_id: str,
        tracked: Tracked,
        request: RegisterRequest,
        signing_key: str | None,
        *,
        by_operator: bool,
    ) -> bool:
        """Updates the entry of a registered agent.

        An entry that stays as it is need not be written, but another scheduler may have removed the
        agent, which is not known here yet. Returns False then.
        """
        entry = tracked.entry
        assert entry is not None  # noqa: S101  # a registered agent has one
        updated = _updated(entry, request, signing_key)
        if not by_operator:
            updated = _on_bus(updated)
        if updated != entry:
            return await self._write_entry(updated, tracked.entry_revision, [])
        current = await self._reload(agent_id)
        return current.entry == entry

    def _refuse_without_key(self, agent_id: str, signing_key: str | None) -> None:
        """Raises RefusedError 503 for a new host whose keys are not recorded yet.

        It asks again, and at once when they are. A host that has none is registered after
        KEY_SECONDS all the same, so that the operator sees it.
        """
        now = boottime()
        if signing_key is None and self._has_identities and self._requires_signed:
            since = self._without_key.setdefault(agent_id, now)
            if now - since < KEY_SECONDS:
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"the keys of {agent_id} are not recorded yet: register again shortly; if it "
                    "stays so, see whether the enrolment service runs",
                )
        self._without_key.pop(agent_id, None)
        while self._without_key:
            oldest, since = next(iter(self._without_key.items()))
            if now - since < 2 * KEY_SECONDS:
                return
            del self._without_key[oldest]  # it asks no more

    async def _signing_key(self, agent_id: str) -> str | None:
        """The key that the agent's reports must be signed with; None where none is recorded.

        It is read from the bucket, where only the enrolment service writes it, and never taken from
        the registration itself.
        """
        if not self._has_identities:
            return None
        keys = await read(self._client, subjects.host_key(agent_id), HostKeys)
        if keys is None:
            return None
        return keys.value.signing_key

    async def _write_entry(
        self,
        entry: AgentEntry,
        revision: int,
        others: list[Write],
    ) -> bool:
        """Writes the entry over `revision`, together with the other writes.

        Returns False if the bucket holds another revision.
        """
        agent_id = entry.agent_id
        write = Write(subjects.agent_key(agent_id), encode(entry), expected=revision)
        try:
            sequence = await self.batcher.write([write, *others])
        except StaleError:
            await self._reload(agent_id)
            return False
        self._directory.apply_entry(agent_id, entry, sequence)
        return True

    async def _reload(self, agent_id: str) -> Tracked:
        """Returns what the bucket holds of the agent; that may be nothing.

        A value that was spoilt by hand counts as nothing, and the next write replaces it.
        """
        await self._reload_entry(agent_id)
        await self._reload_state(agent_id)
        tracked = self._directory.get(agent_id)
        if tracked is None:
            return Tracked()
        return tracked

    async def _reload_entry(self, agent_id: str) -> None:
        key = subjects.agent_key(agent_id)
        try:
            entry = await read(self._client, key, AgentEntry)
        except BadMessageError as error:
            revision = await last_sequence(self._client, key)
            log.error(
                "spoilt_entry_replaced",
                agent_id=agent_id,
                detail=str(error),
                action="its earlier enrolments and expected GPUs are lost; see the audit log",
            )
            self._directory.replace_entry(agent_id, None, revision)
            return
        if entry:
            self._directory.apply_entry(agent_id, entry.value, entry.revision, entry.time_ns)

    async def _reload_state(self, agent_id: str) -> None:
        key = subjects.state_key(agent_id)
        try:
            state = await read(self._client, key, AgentState)
        except BadMessageError as error:
            revision = await last_sequence(self._client, key)
            log.error("spoilt_state_replaced", agent_id=agent_id, detail=str(error))
            recovered = await last_valid_state(self._client, agent_id)
            self._directory.replace_state(agent_id, recovered, revision)
            return
        if state:
            self._directory.apply_state(agent_id, state.value, state.revision, state.time_ns)


def unknown(agent_id: str) -> RefusedError:
    """Returns the refusal for an agent that is not registered."""
    return RefusedError(404, f"no agent {agent_id!r} is registered")


def _is_removed(tracked: Tracked) -> bool:
    return tracked.entry is not None and tracked.entry.removed_at is not None


def _removed(agent_id: str) -> RefusedError:
    return RefusedError(
        REMOVED_BY_OPERATOR,
        f"agent {agent_id!r} was removed by the operator, who alone can register it again",
    )


def _contended(agent_id: str) -> UnavailableError:
    return UnavailableError(
        f"agent {agent_id!r} is being changed by others at the same time: try again"
    )


def _enrolled_again(entry: AgentEntry, now: datetime) -> AgentEntry:
    """Returns the entry of a removed agent with a new enrolment that begins now."""
    ended = Enrolment(entry.enrolled_at, entry.removed_at)
    earlier = (*entry.earlier, ended)
    return replace(
        entry,
        enrolled_at=now,
        removed_at=None,
        earlier=earlier[-MAX_ENROLMENTS:],
        by_http=False,
        on_bus=False,
    )


def _on_bus(entry: AgentEntry) -> AgentEntry:
    """Returns the entry of an agent that has registered itself: it is asked there from now on."""
    if entry.answers_on_bus and not entry.by_http:
        return entry
    return replace(entry, on_bus=True, by_http=False)


def _updated(
    entry: AgentEntry,
    request: RegisterRequest,
    signing_key: str | None,
) -> AgentEntry:
    """Returns the entry with the fields that the request gives; a field of None is not given.

    A host that is given a key, or another address, is no longer asked by HTTP. Where the address is
    one that may be asked, the bridge says so anew.
    """
    given: dict[str, Any] = {}
    if signing_key is not None:
        given["signing_key"] = signing_key
        given["by_http"] = False
    if request.agent_url is not None and request.agent_url != entry.agent_url:
        given["by_http"] = False
    for name in ("agent_url", "capabilities", "metadata"):
        value = getattr(request, name)
        if value is not None:
            given[name] = value
    return replace(entry, **given)
