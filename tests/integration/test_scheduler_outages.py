"""nats-server is killed and frozen under load: nothing acknowledged is lost, no agent is harmed.

Most of the fleet are test agents that remember what they said; the others are real agentds with
simulated GPUs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from agentd import scenario
from agentd import service as agentd
from bus.clock import boottime
from bus.contract import subjects
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.settings import Settings
from bus.transport import connection, embedded_server, micro_services
from scheduler.service import Scheduler, running
from tests.freezing import frozen
from tests.history import History, assert_gapless, read_history, until_history
from tests.ledger_agents import ledger_agents
from tests.scheduler_audit import audit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

AGENTS, AGENTDS = 200, 10
BACK_SECONDS = (
    30.0  # within which each agent has answered again, counted from the end of the outage
)
ROUND_SECONDS = 8.0  # several intervals
Seen = dict[tuple[str, int], str]


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every 1.8 s, given up after 4 s."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.03,
        PING_MAX_INTERVAL_HOURS=60 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=4.0,
        PING_MAX_CONCURRENT_AGENTS=1000,
    )


async def kill(server: embedded_server.EmbeddedServer) -> None:
    """The supervisor starts it again at once."""
    assert server.process
    server.process.kill()
    await server.process.wait()


async def freeze(server: embedded_server.EmbeddedServer, seconds: float) -> None:
    async with frozen(server.process):
        await asyncio.sleep(seconds)  # the outage itself


@asynccontextmanager
async def real_agents(config: Settings, folder: Path) -> AsyncIterator[list[str]]:
    """agentds, each with a connection and a ledger of its own."""
    names = [f"real-{number:02d}" for number in range(AGENTDS)]
    async with AsyncExitStack() as stack:
        for name in names:
            probe = scenario.ScenarioProbe(scenario.load("healthy"), name, {}, boottime())
            agent = await stack.enter_async_context(
                agentd.running(config, agent_id=name, probe=probe, state_dir=folder / name)
            )
            await agent.registered.wait()
        yield names


async def register(bus: connection.Client, agent_id: str) -> RegisterReply:
    subject = subjects.register(agent_id)
    return await micro_services.ask(
        bus, subject, RegisterRequest(), RegisterReply, who="scheduler", timeout=30
    )


async def watch_acknowledged(schedulers: list[Scheduler], agent_ids: list[str], seen: Seen) -> None:
    """Notes each revision that a scheduler takes for written; an agent has at most one a second."""
    while True:
        for scheduler in schedulers:
            for agent_id in agent_ids:
                tracked = scheduler.directory.get(agent_id)
                if tracked and tracked.state:
                    seen[agent_id, tracked.state.ping_seq] = tracked.state.last.ping_id
        await asyncio.sleep(0.2)


async def history_when(
    bus: connection.Client, since: datetime, agent_ids: list[str]
) -> tuple[History, float]:
    """Returns the history once each agent answered a ping made after `since`.

    Also returns how many seconds after `since` the last of these pings was made.
    """
    while True:
        with suppress(Exception):  # the bus is coming back
            async with asyncio.timeout(10):
                history = await read_history(bus)
            first = {
                agent_id: next(
                    (
                        s
                        for s in history[agent_id]
                        if s.last.outcome == "answered" and at(s) > since
                    ),
                    None,
                )
                for agent_id in agent_ids
            }
            if all(first.values()):
                return history, max(
                    (at(state) - since).total_seconds() for state in first.values() if state
                )
        assert (datetime.now(UTC) - since).total_seconds() < 4 * BACK_SECONDS, (
            "the fleet does not come back"
        )
        await asyncio.sleep(0.5)


def at(state) -> datetime:
    return state.last.pinged_at


class Report(NamedTuple):
    """What docs/benchmarks.md reports of an outage."""

    outage: str
    outcomes: int
    excused: int
    acknowledged_seen: int
    all_answered_again_seconds: float
    worst_late_ms: float


OUTAGES = {
    "killed": kill,
    "frozen for 15 s": lambda server: freeze(server, 15),
    "frozen for 60 s": lambda server: freeze(server, 60),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_no_agent_pays_for_an_outage_of_the_server(
    bus, config, nats_server, tmp_path, outage
):
    seen: Seen = {}
    async with (
        running(config) as one,
        running(config) as two,
        ledger_agents(config) as fleet,
        real_agents(config, tmp_path) as real,
    ):
        names = [f"a{number:03d}" for number in range(AGENTS)]
        for name in names:
            await fleet.add(name)
        replies = await asyncio.gather(*(register(bus, name) for name in names))
        enrolled = {reply.agent.agent_id: [reply.agent.registered_at] for reply in replies}
        everybody = [*fleet, *real]
        watching = asyncio.create_task(watch_acknowledged([one, two], everybody, seen))
        await history_when(bus, datetime.now(UTC), everybody)
        began = datetime.now(UTC)
        await OUTAGES[outage](nats_server)
        ended = datetime.now(UTC)
        _, back = await history_when(bus, ended, everybody)
        await asyncio.sleep(ROUND_SECONDS)  # pings go on as if nothing had happened
        watching.cancel()
        history = await until_history(bus, lambda found: not lost(found, seen))
    states = [state for of_one in history.values() for state in of_one]
    print(  # noqa: T201  # with -s: what docs/benchmarks.md reports
        Report(
            outage=outage,
            outcomes=len(states),
            excused=sum(s.last.outcome == "excused" for s in states),
            acknowledged_seen=len(seen),
            all_answered_again_seconds=round(back, 1),
            worst_late_ms=round(max(s.last.late_ms or 0.0 for s in states)),
        )
    )
    assert_gapless(history)
    assert_nobody_escalated(history)
    audit(
        {n: s for n, s in history.items() if n in fleet},
        fleet,
        config,
        enrolled,
        lambda s: at(s) > began_before(began),
    )
    for name in real:
        assert_windows_tile(history, name)
    assert back < BACK_SECONDS


def began_before(began: datetime) -> datetime:
    """Pings that were in flight when the outage began are excused as well."""
    return began.fromtimestamp(began.timestamp() - 5, UTC)


def lost(history: History, seen: Seen) -> dict[tuple[str, int], str]:
    """The outcomes that a scheduler took for written and that the history does not have."""
    recorded = {}
    for agent_id, states in history.items():
        for state in states:
            recorded[agent_id, state.ping_seq] = state.last.ping_id
    return {key: ping_id for key, ping_id in seen.items() if recorded.get(key) != ping_id}


def assert_nobody_escalated(history: History) -> None:
    for agent_id, states in history.items():
        worse = [
            state for state in states if state.consecutive_poor or state.last.outcome == "missed"
        ]
        assert not worse, (agent_id, worse[0].ping_seq, worse[0].last)


def assert_windows_tile(history: History, agent_id: str) -> None:
    """Each window begins where the one before ended, to the millisecond.

    The scheduler measures it, from sending to sending. Agentd's marks are positions in its ledger,
    taken when it answers: they are as far apart as the window is long, but for the time that the
    two pings were on their way.
    """
    answered = [state for state in history[agent_id] if state.last.outcome == "answered"]
    for before, after in pairwise(answered):
        where = (agent_id, after.ping_seq)
        assert after.last.since == at(before), where
        window = (at(after) - at(before)) // timedelta(milliseconds=1)
        assert round((after.last.window_seconds or 0.0) * 1000) == window, where
        ledger, _, since = (before.since_mark or "").partition(".")
        same_ledger, _, until = (after.since_mark or "").partition(".")
        assert ledger == same_ledger, where
        on_the_way = max(before.last.response_ms or 0.0, after.last.response_ms or 0.0)
        assert abs(int(until) - int(since) - window) <= on_the_way + 2, where
