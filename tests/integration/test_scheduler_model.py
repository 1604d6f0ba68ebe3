"""A model of the scheduler against a real nats-server: the bucket always follows the policy.

Hypothesis draws registrations, removals, pings by hand, behaviour of agents, crashes and time.
`World` checks what must be true after each step, and audits the whole history at the end.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bus.contract.questions import Ping
from tests.ledger_agents import Manner
from tests.scheduler_world import World

AGENT_IDS = [f"m{number}" for number in range(8)]
PATIENT: list[Manner] = [
    "answering",
    "answering",
    "no_gpu",
    "nothing_to_judge",
    "garbage",
    "other_agent",
]
some_agent = st.sampled_from(AGENT_IDS)
some_manner = st.sampled_from([*PATIENT, "silent", "absent"])
some_uptime = st.sampled_from([1.0, 0.995, 0.99, 0.98, 0.5, 0.0])
some_metadata = st.none() | st.fixed_dictionaries({"rack": st.integers(0, 3)})
some_capabilities = st.none() | st.sampled_from(
    [(), ("gpu-compute",), ("gpu-compute", "image-generation")]
)


class SchedulerModel(RuleBasedStateMachine):
    """Each rule runs the event loop until it is done; schedulers of this process run in it too."""

    @initialize(
        schedulers=st.sampled_from([(0,), (1,), (0, 1)]),
        manners=st.lists(
            st.tuples(some_manner, some_uptime), min_size=len(AGENT_IDS), max_size=len(AGENT_IDS)
        ),
        registered=st.integers(2, len(AGENT_IDS)),
    )
    def begin(self, schedulers, manners, registered):
        self.runner = asyncio.Runner()
        self.world = World()
        self.run(self._begin(schedulers, manners, registered))

    async def _begin(self, schedulers, manners, registered):
        await self.world.open()
        for agent_id, (manner, up) in zip(AGENT_IDS, manners, strict=True):
            await self.world.agents.add(agent_id, manner, up)
        for number in schedulers:
            await self.world.schedulers[number].start()
        for agent_id in AGENT_IDS[:registered]:
            await self.world.register(agent_id, None, None)

    def run(self, work):
        return self.runner.run(work)

    def anybody(self) -> bool:
        return self.world.anybody

    @rule(agent_id=some_agent, manner=some_manner, up=some_uptime)
    def behave(self, agent_id, manner, up):
        self.run(self.world.agents[agent_id].behave(manner, up))

    @rule(seconds=st.floats(0.05, 1.5))
    def time_passes(self, seconds):
        self.run(asyncio.sleep(seconds))

    @precondition(anybody)
    @rule(agent_id=some_agent, metadata=some_metadata, capabilities=some_capabilities)
    def register(self, agent_id, metadata, capabilities):
        self.run(self.world.register(agent_id, metadata, capabilities))

    @precondition(anybody)
    @rule(agent_id=some_agent)
    def remove(self, agent_id):
        self.run(self.world.remove(agent_id))

    @precondition(anybody)
    @rule(agent_id=some_agent, at_once=st.integers(1, 3))
    def ping_by_hand(self, agent_id, at_once):
        self.run(self._ping_by_hand(agent_id, at_once))

    async def _ping_by_hand(self, agent_id, at_once):
        pings = await asyncio.gather(*(self.world.ping(agent_id) for _ in range(at_once)))
        await self._assert_recorded(agent_id, [ping for ping in pings if ping])

    async def _assert_recorded(self, agent_id: str, pings: list[Ping]):
        """The caller got the outcome that the history holds."""
        if not pings:
            return
        history = (await self.world.check_history())[agent_id]
        for ping in pings:
            state = history[ping.ping_seq - 1]
            told = (
                ping.pinged_at,
                ping.outcome,
                ping.verdict,
                ping.reason,
                ping.uptime_percent,
                ping.next_ping_at,
            )
            last = state.last
            assert told == (
                *(last.pinged_at, last.outcome, last.verdict, last.reason, last.uptime_percent),
                state.next_ping_at,
            )

    @precondition(anybody)
    @rule(agent_id=some_agent, back=st.booleans())
    def remove_in_flight(self, agent_id, back):
        """Removes an agent during a ping, and may register it again at once."""
        known = self.world.known.get(agent_id)
        if known and known.registered:
            self.run(self._remove_in_flight(agent_id, back))

    async def _remove_in_flight(self, agent_id, back):
        pinging = asyncio.create_task(self.world.ping(agent_id))
        await asyncio.sleep(0)
        await self.world.remove(agent_id)
        if back:
            await self.world.register(agent_id, None, None)
        async with asyncio.timeout(60):
            await asyncio.wait({pinging})
        if not pinging.exception():  # refused, when the removal came first
            await self._assert_recorded(agent_id, [ping for ping in [pinging.result()] if ping])

    @precondition(lambda self: self.world.schedulers[0].alive)
    @rule()
    def kill_the_process(self):
        self.run(self.world.schedulers[0].kill())

    @precondition(lambda self: self.world.schedulers[0].alive)
    @rule(agent_id=some_agent, verb=st.sampled_from(["register", "remove"]))
    def kill_the_process_over_it(self, agent_id, verb):
        self.run(self.world.struck_down(agent_id, verb))

    @precondition(lambda self: not self.world.schedulers[0].alive)
    @rule()
    def start_the_process(self):
        self.run(self.world.schedulers[0].start())

    @precondition(lambda self: self.world.schedulers[1].alive)
    @rule()
    def stop_the_inner_scheduler(self):
        self.run(self.world.schedulers[1].kill())

    @precondition(lambda self: not self.world.schedulers[1].alive)
    @rule()
    def start_the_inner_scheduler(self):
        self.run(self.world.schedulers[1].start())

    @precondition(anybody)
    @rule()
    def look(self):
        self.run(self.world.check_views())

    @invariant()
    def the_bucket_is_the_models(self):
        if hasattr(self, "world"):
            self.run(self.world.check_bucket())

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self.run(self._end())
        finally:
            self.run(self.world.close())
            self.runner.close()

    async def _end(self):
        """With a scheduler running, every agent is pinged again; then the history is audited."""
        if not self.world.anybody:
            await self.world.schedulers[1].start()
        await self.world.until_all_pinged()
        await self.world.check_views()
        await self.world.check_bucket()


COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.generate,),  # depends on real time: a failure cannot be shrunk
    "print_blob": True,
}


@pytest.mark.timeout(300)
def test_the_bucket_equals_the_model():
    run_state_machine_as_test(
        SchedulerModel, settings=settings(max_examples=2, stateful_step_count=12, **COMMON)
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_bucket_equals_the_model_at_length():
    run_state_machine_as_test(
        SchedulerModel, settings=settings(max_examples=60, stateful_step_count=40, **COMMON)
    )
