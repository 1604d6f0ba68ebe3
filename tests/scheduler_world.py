"""The world of the scheduler model: a real nats-server, schedulers, agents, what must hold."""

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from bus import settings
from bus.background import cancel_all
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import AgentState
from bus.contract.questions import (
    REMOVED_BY_OPERATOR,
    Agent,
    AgentPage,
    ListRequest,
    Ping,
    RegisterReply,
    RegisterRequest,
)
from bus.errors import RefusedError, UnavailableError
from bus.settings import Settings
from bus.transport import connection, embedded_server, layout, micro_services
from tests.history import History, assert_gapless, read_history
from tests.ledger_agents import LedgerAgents
from tests.ports import free_port
from tests.scheduler_audit import Truth, audit
from tests.scheduler_keys import Snapshot, found_timer, snapshot, wanted_timer
from tests.scheduler_processes import InnerScheduler, SchedulerProcess

ASK_SECONDS = 20.0
STALL_SECONDS = 0.5  # of this machine: a scheduler may take a longer one for an outage
# Within which a timer is corrected after an outcome and a change of the registry met.
RECONCILED_SECONDS = 30.0


def world_settings(url: str) -> Settings:
    """Pings every 1.2 s to 4.8 s.

    The time-out is longer than the gap that excuses a ping, so that no stall makes a miss.
    """
    return settings.load(
        {},
        NATS_URL=url,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=4.8 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=2.5,
    )


class Registration(Struct):
    """What the model knows of one agent's entry."""

    registered: bool = False
    metadata: dict[str, Any] = {}
    capabilities: tuple[str, ...] = ()
    registered_at: datetime | None = None
    enrolments: list[datetime] = []


class World:
    """Everything that a rule of the model may use."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gpuping-model-"))
        self.known: dict[str, Registration] = {}
        self._stalls: list[tuple[datetime, datetime]] = []

    async def open(self) -> None:
        self.server = embedded_server.EmbeddedServer(self._folder, port=free_port())
        await self.server.start()
        self.config = world_settings(self.server.url)
        self.bus = await connection.connect(self.config, "model")
        await layout.ensure(self.bus, self.config)
        self.agents = LedgerAgents(await connection.connect(self.config, "model-agents"))
        self.schedulers: list[InnerScheduler | SchedulerProcess] = [
            SchedulerProcess(self.config),
            InnerScheduler(self.config),
        ]
        self._watching = asyncio.create_task(self._watch_stalls())

    async def close(self) -> None:
        await cancel_all([self._watching])
        for scheduler in self.schedulers:
            await scheduler.kill()
        await self.agents.client.farewell()
        await self.bus.farewell()
        await self.server.stop()
        shutil.rmtree(self._folder)

    @property
    def anybody(self) -> bool:
        """Whether any scheduler runs."""
        return any(scheduler.alive for scheduler in self.schedulers)

    async def _watch_stalls(self) -> None:
        """Records when this machine stalled: only then may a ping be excused here."""
        while True:
            at, now = datetime.now(UTC), boottime()
            await self.bus.flush()
            await asyncio.sleep(0.05)
            if boottime() - now > STALL_SECONDS:
                self._stalls.append((at, datetime.now(UTC)))

    def _stalled(self, state: AgentState) -> bool:
        since, until = state.last.pinged_at, state.last.pinged_at + timedelta(seconds=20)
        return any(begin < until and end > since for begin, end in self._stalls)

    # ---- requests from outside ----

    async def register(
        self, agent_id: str, metadata: dict[str, Any] | None, capabilities: tuple[str, ...] | None
    ) -> None:
        """Registers; the reply and the entry must be what the model says."""
        before = self.known.get(agent_id) or Registration()
        request = RegisterRequest(metadata=metadata, capabilities=capabilities)
        subject = subjects.register(agent_id)
        if before.enrolments and not before.registered:
            await self._check_that_removal_holds(agent_id)
            subject = subjects.enrol(agent_id)
        asked = datetime.now(UTC)
        reply = await self._ask(subject, request, RegisterReply)
        assert reply.created == (not before.registered), (
            f"{agent_id}: created is {reply.created}, it was {before}"
        )
        await self._note_registration(agent_id, before, request, asked)
        self._compare_view(reply.agent)

    async def _check_that_removal_holds(self, agent_id: str) -> None:
        try:
            await self._ask(subjects.register(agent_id), RegisterRequest(), RegisterReply)
        except RefusedError as error:
            assert error.code == REMOVED_BY_OPERATOR, f"{agent_id}: {error}"  # noqa: PT017
        else:
            raise AssertionError(f"{agent_id} undid its removal")

    async def _note_registration(
        self, agent_id: str, before: Registration, request: RegisterRequest, asked: datetime
    ) -> None:
        entry = (await snapshot(self.bus, agent_id)).entry
        assert entry
        enrolments = list(before.enrolments)
        if not before.registered:
            assert asked <= entry.enrolled_at <= datetime.now(UTC)
            enrolments.append(entry.enrolled_at)
        self.known[agent_id] = Registration(
            registered=True,
            metadata=before.metadata if request.metadata is None else request.metadata,
            capabilities=before.capabilities
            if request.capabilities is None
            else request.capabilities,
            registered_at=before.registered_at or entry.enrolled_at,
            enrolments=enrolments,
        )

    async def remove(self, agent_id: str) -> None:
        """Removes; refused if the agent is not registered."""
        known = self.known.get(agent_id)
        try:
            await micro_services.ask_raw(
                self.bus, subjects.remove(agent_id), b"", who="scheduler", timeout=ASK_SECONDS
            )
        except RefusedError as error:
            self._check_refusal(agent_id, error)
        else:
            assert known, agent_id
            assert known.registered, agent_id
            known.registered = False

    async def ping(self, agent_id: str) -> Ping | None:
        """Returns the recorded outcome; None when there is no such agent."""
        try:
            return await self._ask(subjects.ping_now(agent_id), None, Ping)
        except RefusedError as error:
            self._check_refusal(agent_id, error)
            return None

    def _check_refusal(self, agent_id: str, error: RefusedError) -> None:
        known = self.known.get(agent_id)
        if error.code != 404 or (known and known.registered):
            raise AssertionError(f"{agent_id}, {known}: {error}")

    async def struck_down(self, agent_id: str, verb: str) -> None:
        """Registers or removes while a scheduler is killed: all or nothing must happen."""
        before = self.known.get(agent_id) or Registration()
        request = RegisterRequest(metadata={"struck": len(before.enrolments)})
        subject = subjects.enrol(agent_id) if verb == "register" else subjects.remove(agent_id)
        body = request if verb == "register" else None
        asked = datetime.now(UTC)
        asking = asyncio.create_task(
            micro_services.ask(self.bus, subject, body, dict, who="scheduler", timeout=3.0)
        )
        await asyncio.sleep(0.001)
        await self.schedulers[0].kill()
        await asyncio.wait({asking})
        asking.exception()  # answered, refused or silent: the bucket tells what happened
        entry = (await snapshot(self.bus, agent_id)).entry
        if entry is None:
            assert not before.enrolments, agent_id
        elif entry.removed_at is not None:
            assert verb == "remove" or not before.registered, agent_id
            before.registered = False
        elif verb == "remove" or entry.metadata != request.metadata:
            assert before.registered, agent_id
        else:
            await self._note_registration(agent_id, before, request, asked)

    async def _ask(self, subject: str, request: Struct | None, reply: type[Any]) -> Any:
        """Asks again when a scheduler was killed; every such request may be sent twice."""
        for _ in range(3):
            try:
                return await micro_services.ask(
                    self.bus, subject, request, reply, who="scheduler", timeout=ASK_SECONDS
                )
            except UnavailableError:
                continue
        raise AssertionError(f"nobody answers {subject}")

    # ---- what must be true ----

    async def check_bucket(self) -> None:
        """Entries and timers are always the model's."""
        for agent_id, known in self.known.items():
            entry = (await snapshot(self.bus, agent_id)).entry
            if not known.enrolments:
                assert entry is None, agent_id
                continue
            assert entry, agent_id
            assert (entry.removed_at is None) == known.registered, agent_id
            assert (entry.metadata, entry.capabilities) == (known.metadata, known.capabilities), (
                agent_id
            )
            assert (entry.registered_at, entry.enrolled_at) == (
                known.registered_at,
                known.enrolments[-1],
            ), agent_id
            assert [span.since for span in entry.earlier] == known.enrolments[:-1], agent_id
            await self._check_timer(agent_id, known.registered)

    async def _check_timer(self, agent_id: str, registered: bool) -> None:
        deadline = boottime() + RECONCILED_SECONDS
        while True:
            entry, state, timer = await snapshot(self.bus, agent_id)
            assert entry, agent_id
            wanted = wanted_timer(agent_id, entry, state) if registered else None
            if found_timer(timer) == wanted:
                return
            assert boottime() < deadline, (
                f"the timer of {agent_id} is {found_timer(timer)}, not {wanted}"
            )
            await asyncio.sleep(0.05)

    async def check_history(self) -> History:
        """The history agrees with the agents and the rules, and ends with the bucket's states."""
        async with asyncio.timeout(60):
            while True:
                history = await read_history(self.bus)
                snapshots = {
                    agent_id: await snapshot(self.bus, agent_id) for agent_id in self.known
                }
                if all(
                    not s.state or (history[i] and history[i][-1] == s.state)
                    for i, s in snapshots.items()
                ):
                    break
                await asyncio.sleep(0.05)  # the server follows on its own
        assert_gapless(history)
        self.truths = self._audit(history)
        self._check_expectations(history, snapshots)
        return history

    def _audit(self, history: History) -> dict[str, Truth]:
        history = {agent_id: states for agent_id, states in history.items() if states}
        enrolments = {agent_id: known.enrolments for agent_id, known in self.known.items()}
        return audit(history, self.agents, self.config, enrolments, self._stalled)

    def _check_expectations(self, history: History, snapshots: dict[str, Snapshot]) -> None:
        """The GPUs of the first report that shows any are expected from then on."""
        for agent_id, known in self.known.items():
            entry = snapshots[agent_id].entry
            shown = any(
                s.last.outcome == "answered"
                and not s.no_gpu
                and s.last.pinged_at >= known.enrolments[-1]
                for s in history.get(agent_id, ())
            )
            if entry and known.registered and shown:
                assert entry.expected_gpus == (f"GPU-{agent_id}",)

    async def check_views(self) -> None:
        """The list holds the model's registry; each view agrees with the record of that agent."""
        page = await self._ask(subjects.LIST, ListRequest(), AgentPage)
        assert {a.agent_id for a in page.agents} == {
            i for i, known in self.known.items() if known.registered
        }
        history = await self.check_history()
        for view in page.agents:
            self._compare_view(view)
            states = history.get(view.agent_id, [])[: view.total_pings]
            assert len(states) == view.total_pings, view
            truth = (
                self._audit({view.agent_id: states})[view.agent_id]
                if states
                else Truth(self.config)
            )
            shown = (view.status, view.consecutive_poor_uptime, view.good_streak, view.missed_pings)
            assert shown == (truth.status(), truth.poor, truth.streak, truth.missed), view
            assert view.uptime_percent == truth.uptime, view

    def _compare_view(self, view: Agent) -> None:
        known = self.known[view.agent_id]
        assert (view.metadata, view.capabilities) == (known.metadata, known.capabilities)
        assert view.registered_at == known.registered_at

    async def until_all_pinged(self) -> None:
        """Returns when every registered agent has a new outcome."""
        since = datetime.now(UTC)
        wanted = [agent_id for agent_id, known in self.known.items() if known.registered]
        async with asyncio.timeout(60):
            while True:
                history = await read_history(self.bus)
                if all(history[i] and history[i][-1].last.pinged_at > since for i in wanted):
                    return
                await asyncio.sleep(0.1)
