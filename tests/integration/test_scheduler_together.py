"""Several schedulers: dividing the agents while the bus is away, and the cost of a lost race."""

import asyncio
import secrets
import signal
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    AnsweredPing,
    PingRequest,
    Timer,
    encode,
)
from bus.contract.questions import RegisterRequest
from bus.errors import RefusedError, StaleError
from bus.settings import Settings
from bus.transport import connection
from bus.transport.batch import Write, commit, only_if
from bus.transport.bucket import read
from bus.transport.bus_clock import BusClock
from gpuping.doctor import fleet_checks
from gpuping.output.findings import Finding
from scheduler.cluster.peers import Alive
from scheduler.fleet.directory import Directory
from scheduler.ping.accounting.timestamps import whole_millisecond
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.committer import Committer
from scheduler.ping.next_state import next_state
from scheduler.ping.outages.bus_monitor import BusMonitor
from scheduler.ping.outages.server_monitor import ServerMonitor
from scheduler.ping.pinger import Pinger, PingLimits
from scheduler.policy import Missed, PingResult
from scheduler.service import policy_of, running
from scheduler.write.timers import timer
from tests.agents import answering, report
from tests.freezing import frozen
from tests.history import History, until_history
from tests.scheduler_processes import scheduler_processes
from tests.waiting import until


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every 1.2 s."""
    return replace(
        base_settings, PING_BASE_INTERVAL_MINUTES=0.02, PING_MAX_INTERVAL_HOURS=4.8 / 3600
    )


async def test_a_frozen_bus_makes_no_scheduler_think_that_it_is_alone(bus, config, nats_server):
    async with running(config) as one, running(config) as two:
        await until(lambda: not one.peers.alone and not two.peers.alone)
        lonely = []
        for scheduler in (one, two):
            scheduler.peers.on_change = lambda: lonely.append(datetime.now(UTC))
        async with frozen(nats_server.process):
            await asyncio.sleep(6)  # longer than a silent scheduler is believed to be there
        await bus.flush()
        await asyncio.sleep(1.5)  # more than a beat
        assert not lonely


async def test_a_newcomer_knows_who_is_there_before_it_pings(bus, config):
    async with running(config) as one:
        for _ in range(5):  # a busy machine may take longer than the time for greetings
            async with running(config) as two:
                await two.peers.greeted.wait()
                if not two.peers.alone:
                    assert not one.peers.alone
                    return
    pytest.fail("no newcomer knew of the other")


async def test_a_lost_scheduler_is_told_until_it_is_back_or_replaced(bus, config):
    client = FleetClient(bus, 5.0)

    async def finding() -> Finding:
        return fleet_checks.lost_schedulers(await client.every_scheduler(2.0))

    async with running(config) as one, answering(config) as agents:
        for number in range(10):
            await agents.add(f"x{number}")
            await one.registry.register(f"x{number}", RegisterRequest(), datetime.now(UTC))
        async with scheduler_processes(config, 1) as (process,):
            instance = await _other_at_work(bus, one.instance)
            process.signal(signal.SIGSTOP)
            await until(lambda: one.peers.lost)
            assert [lost.instance for lost in one.peers.lost] == [instance]
            found = await finding()
            assert (found.level, instance in found.detail) == ("warning", True)
            process.signal(signal.SIGCONT)
            await until(lambda: not one.peers.lost)

            await _other_at_work(bus, one.instance)
            await process.kill()
            await until(lambda: one.peers.lost)
            await process.start()
            await until(lambda: not one.peers.lost)
            assert (await finding()).level == "ok"

            await _other_at_work(bus, one.instance)
            process.signal(signal.SIGTERM)
            await until(lambda: one.peers.alone)
            assert not one.peers.lost, "it said farewell"


async def _other_at_work(bus: connection.Client, instance: str) -> str:
    """Returns the other scheduler's name, once an outcome of it is recorded from now on."""
    begun = datetime.now(UTC)
    others: list[str] = []

    def has_other(history: History) -> bool:
        for states in history.values():
            for state in states:
                writer = state.last.ping_id.partition("-")[0]
                if state.last.pinged_at > begun and writer != instance:
                    others.append(writer)
        return bool(others)

    await until_history(bus, has_other)
    return others[0]


async def test_a_dead_scheduler_is_forgotten_by_those_who_hear_themselves(bus, config):
    async with running(config) as one:
        ghost = secrets.token_hex(5)
        await bus.publish(subjects.alive(ghost), b"no word of ours")
        await bus.publish(subjects.alive(ghost), encode(Alive(word="hello")))
        await until(lambda: not one.peers.alone)
        await until(lambda: one.peers.alone)


async def test_lost_races_in_a_batch_do_not_hold_up_the_others(bus, config):
    """Of a hundred outcomes another scheduler records every second one: one refusal, not fifty."""
    policy, now = policy_of(config), datetime.now(UTC)
    directory = Directory(policy)
    settled: dict[str, tuple[AgentState, bool]] = {}
    committer = Committer(
        bus,
        directory,
        policy,
        lambda attempt, state, ours: settled.update({attempt.agent_id: (state, ours)}),
        lambda attempt: pytest.fail(f"{attempt.agent_id} was to be pinged again"),
    )
    attempts = [await attempt_of(bus, directory, f"a{number:02d}", now) for number in range(100)]
    theirs = [
        (attempt, replace_ping(next_state(attempt, Missed("timeout"), now, policy), "another"))
        for attempt in attempts[::2]
    ]
    await commit(
        bus,
        [
            Write(subjects.state_key(attempt.agent_id), encode(state), expected=0)
            for attempt, state in theirs
        ],
    )
    for attempt in attempts:
        committer.submit(attempt, Missed("timeout"))
    writing = asyncio.create_task(committer.run())
    await until(lambda: len(settled) == len(attempts))
    writing.cancel()
    assert [settled[attempt.agent_id][1] for attempt in attempts] == [False, True] * 50
    for attempt in attempts:
        found = await read(bus, subjects.state_key(attempt.agent_id), AgentState)
        assert found
        assert found.value == settled[attempt.agent_id][0]
    assert (committer.lost_races, committer.commits) == (50, 1)


async def attempt_of(
    bus: connection.Client, directory: Directory, agent_id: str, now: datetime
) -> PingAttempt:
    entry = AgentEntry(agent_id=agent_id, registered_at=now, enrolled_at=now - timedelta(seconds=5))
    revision = await commit(bus, [Write(subjects.agent_key(agent_id), encode(entry), expected=0)])
    directory.apply_entry(agent_id, entry, revision)
    tracked = directory.get(agent_id)
    assert tracked
    attempt = PingAttempt(agent_id, tracked, f"ours-{agent_id}", now)
    attempt.start(now, "", AnsweredPing(boot_id="", boottime=0.0), 10.0)
    return attempt


def replace_ping(state: AgentState, ping_id: str) -> AgentState:
    return replace(state, last=replace(state.last, ping_id=ping_id))


async def test_what_another_scheduler_did_to_an_agent_is_seen_before_it_is_answered(bus, config):
    """One scheduler acknowledges, and another that has not caught up is asked at once."""
    async with running(config) as one, running(config) as two:
        for number in range(30):
            name, now = f"n{number}", datetime.now(UTC)
            here, there = (one, two) if number % 2 else (two, one)
            created = (await here.registry.register(name, RegisterRequest(), now)).created
            assert created
            again = (await there.registry.register(name, RegisterRequest(), now)).created
            assert not again
            await here.registry.remove(name, now)
            with pytest.raises(RefusedError, match="removed by the operator"):
                await there.registry.register(name, RegisterRequest(), now)
            back = (await there.registry.enrol(name, RegisterRequest(), now)).created
            assert back, f"{name} was removed, and would have stayed so"
            again = (await here.registry.register(name, RegisterRequest(), now)).created
            assert not again
            await here.registry.remove(name, now)
            with pytest.raises(RefusedError):
                await there.registry.remove(name, now)


async def test_a_timer_is_not_written_for_a_state_that_has_moved_on(bus, config):
    write = timer("a", 1, datetime.now(UTC))
    sequence = await commit(bus, [Write(subjects.state_key("a"), b"{}", expected=0)])
    await commit(bus, [only_if(write, subjects.state_key("a"), sequence)])
    with pytest.raises(StaleError):
        await commit(bus, [only_if(write, subjects.state_key("a"), 0)])


@pytest.mark.parametrize("back", [False, True])
async def test_an_outcome_that_crosses_a_removal_leaves_no_timer_behind(bus, config, back):
    """Whichever write comes first, only a registered agent has a timer, for its next outcome."""
    patient = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)
    async with running(patient) as one, running(patient) as two, answering(patient) as agents:
        for number in range(10):
            name = f"x{number}"
            await agents.add(name)
            await one.registry.register(name, RegisterRequest(), datetime.now(UTC))
        await until_history(bus, lambda h: all(h[f"x{number}"] for number in range(10)))
        await asyncio.sleep(1.1)  # an outcome may follow the first
        for number in range(10):
            name = f"x{number}"
            pinging = asyncio.create_task(two.loop.ping_now(name))
            await asyncio.sleep(number / 2000)  # the removal comes at another moment each time
            await one.registry.remove(name, datetime.now(UTC))
            if back:
                await two.registry.enrol(name, RegisterRequest(), datetime.now(UTC))
            await pinging
            async with asyncio.timeout(60):
                expected = 3 if back else None
                while await timer_seq(bus, name) != expected:  # noqa: ASYNC110  # polls the bucket
                    await asyncio.sleep(0.02)


async def test_an_answer_that_comes_after_a_new_enrolment_leaves_its_window_to_begin_there(
    bus, config
):
    """No millisecond is counted in two windows, and none of the new enrolment is left out."""
    patient = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)
    heard = asyncio.Event()

    def second_time(agent_id: str, request: PingRequest) -> bytes | None:
        if request.seq == 2 and not heard.is_set():
            heard.set()
            return None
        return encode(report(agent_id, request))

    async with running(patient) as scheduler, answering(patient) as agents:
        await agents.add("a", second_time)
        await scheduler.registry.register("a", RegisterRequest(), datetime.now(UTC))
        await until_history(bus, lambda h: h["a"])
        await asyncio.sleep(1.1)  # an outcome may follow the first
        pinging = asyncio.create_task(scheduler.loop.ping_now("a"))
        await heard.wait()
        await scheduler.registry.remove("a", datetime.now(UTC))
        await scheduler.registry.enrol("a", RegisterRequest(), datetime.now(UTC))
        assert (await pinging).outcome == "answered"
        await asyncio.sleep(1.1)  # an outcome may follow the one before
        await scheduler.loop.ping_now("a")
        history = await until_history(bus, lambda h: len(h["a"]) == 3)
        enrolled_at = scheduler.directory.get("a").entry.enrolled_at
    assert history["a"][1].last.pinged_at < enrolled_at
    assert history["a"][2].last.since == whole_millisecond(enrolled_at)


async def timer_seq(bus: connection.Client, agent_id: str) -> int | None:
    found = await read(bus, subjects.timer_key(agent_id), Timer)
    return found.value.seq if found else None


class BrokenBusMonitor(BusMonitor):
    """Fails in an unexpected way."""

    async def await_round_trip(self) -> None:
        raise RuntimeError("the bus monitor failed")


async def test_a_failure_while_a_time_out_is_judged_ends_the_pinger_loudly(bus, config):
    """Otherwise the attempt would never end, and its agent would not be pinged again."""

    def fail(attempt: PingAttempt, result: PingResult) -> None:
        pytest.fail(f"{attempt.agent_id}: {result}")

    pinger = Pinger(
        bus,
        "me",
        BrokenBusMonitor(bus, 0.1),
        ServerMonitor(bus),
        BusClock(bus),
        PingLimits(100, timeout_seconds=0.1),
        fail,
        lambda _message: None,
    )
    attempt = await attempt_of(bus, Directory(policy_of(config)), "a", datetime.now(UTC))
    await pinger.launch([attempt])
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(60):
            await pinger.run()
    assert raised.group_contains(RuntimeError, match="the bus monitor failed")


async def test_an_outcome_that_was_written_after_all_is_not_pinged_for_again(bus, config):
    """The next ping's timer has fired before the scheduler finds its outcome in the bucket.

    An attempt that was started anew recorded two outcomes under one ping_id (drill `standstill`).
    """
    policy, now = policy_of(config), datetime.now(UTC)
    directory = Directory(policy)
    settled: list[tuple[AgentState, bool]] = []
    retried: list[PingAttempt] = []
    committer = Committer(
        bus,
        directory,
        policy,
        lambda _attempt, state, ours: settled.append((state, ours)),
        retried.append,
    )
    attempt = await attempt_of(bus, directory, "a", now)
    state = next_state(attempt, Missed("timeout"), now, policy)
    # Its acknowledgement was lost.
    await commit(bus, [Write(subjects.state_key("a"), encode(state), expected=0)])
    attempt.due_seq = state.ping_seq + 1
    committer.submit(attempt, Missed("timeout"))
    writing = asyncio.create_task(committer.run())
    await until(lambda: settled or retried)
    writing.cancel()
    assert not retried
    assert settled == [(state, True)]
