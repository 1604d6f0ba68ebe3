"""A late answer shows that the host was there: its miss is no silence, but earlier ones stay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    PingRequest,
    Silence,
    decode,
    encode,
)
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.settings import Settings
from bus.transport import connection, jetstream_api
from bus.transport.bus_clock import BusClock
from bus.transport.micro_services import ask
from scheduler.fleet.directory import Directory
from scheduler.ping.accounting.silence import heard_late, silence_after_miss, unheard_milliseconds
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.outages.bus_monitor import BusMonitor
from scheduler.ping.outages.server_monitor import ServerMonitor
from scheduler.ping.pinger import Pinger, PingLimits
from scheduler.policy import Answered, Missed, PingResult
from scheduler.service import running
from tests.agents import report
from tests.history import until_history
from tests.unit.measured_lives import POLICY

TIMEOUT_SECONDS = 1.0
LATE_SECONDS = 1.8  # before the next ping is sent
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ALL = dict.fromkeys(("late", "silent", "once"), True)


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """An interval of 3 s, whatever was missed."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.05,
        PING_MAX_INTERVAL_HOURS=3 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=TIMEOUT_SECONDS,
    )


@asynccontextmanager
async def agent(
    client: connection.Client, agent_id: str, missed: range, late: range
) -> AsyncIterator[None]:
    """Misses the pings of these numbers; those of `late` it answers after the time-out.

    Each answer is a task of its own, so that a late one delays no other.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def answer(message: Msg, request: PingRequest) -> None:
        if request.seq in late:
            await asyncio.sleep(LATE_SECONDS)  # the answer is to be late
        elif request.seq in missed:
            return
        await message.respond(encode(report(agent_id, request)))

    async def hear(message: Msg) -> None:
        tasks.add(asyncio.create_task(answer(message, decode(message.data, PingRequest))))

    subscription = await client.subscribe(subjects.ping(agent_id), cb=hear)
    await client.flush()
    await ask(
        client, subjects.register(agent_id), RegisterRequest(), RegisterReply, who="scheduler"
    )
    yield
    await subscription.unsubscribe()
    await asyncio.gather(*tasks)


def seconds_between(history: list[AgentState], first: int, last: int) -> float:
    """From one ping to another, by their numbers."""
    return (history[last - 1].last.pinged_at - history[first - 1].last.pinged_at).total_seconds()


async def history_of_three(bus: connection.Client, config: Settings) -> dict[str, list[AgentState]]:
    """Their outcomes. Where this machine stood still meanwhile they are excused: it is tried again.

    Each time the hosts have the same names, and the history is empty.
    """
    none = range(0)
    for _ in range(3):
        async with (
            running(config),
            agent(bus, "late", missed=range(2, 5), late=range(2, 5)),
            agent(bus, "silent", missed=range(2, 5), late=none),
            agent(bus, "once", missed=range(2, 6), late=range(5, 6)),
        ):
            history = await until_history(
                bus, lambda h: {n: len(s) >= 6 for n, s in h.items()} == ALL
            )
        if not any(s.last.outcome == "excused" for states in history.values() for s in states):
            break
        for stream in (subjects.BUCKET_STREAM, subjects.HISTORY_STREAM):
            await jetstream_api.call(bus, f"STREAM.PURGE.{stream}")
    return history


async def test_only_a_miss_that_was_answered_late_is_no_silence(bus, config):
    """Three hosts miss pings from the second on: one answers them late, one not at all, and one
    answers only the last of them late.
    """
    history = await history_of_three(bus, config)
    late, silent, once = history["late"], history["silent"], history["once"]
    for states, back in ((late, 5), (silent, 5), (once, 6)):
        outcomes = [state.last.outcome for state in states[1:back]]
        assert outcomes == ["missed"] * (back - 2) + ["answered"]

    assert (late[4].last.remarks, late[4].last.uptime_percent) == ((), 100.0)

    assert silent[4].last.remarks == ("unheard",)
    assert silent[4].last.seconds
    unheard = seconds_between(silent, 2, 4)
    assert silent[4].last.seconds.unknown == pytest.approx(unheard, abs=0.002)

    # The late answer does not make up for the silence before it.
    assert once[5].last.remarks == ("unheard",)
    assert once[5].last.seconds
    assert once[5].last.seconds.unknown == pytest.approx(seconds_between(once, 2, 4), abs=0.002)


def misses(*minutes: int) -> Silence | None:
    silence = None
    for minute in minutes:
        silence = silence_after_miss(silence, NOW + timedelta(minutes=minute))
    return silence


def test_only_the_last_miss_is_answered_late():
    assert unheard_milliseconds(misses(0, 15, 45)) == 45 * 60_000
    heard = heard_late(misses(0, 15, 45), answered_late=True)
    assert unheard_milliseconds(heard) == 15 * 60_000
    # A new row begins with the next miss.
    again = silence_after_miss(heard, NOW + timedelta(minutes=60))
    assert unheard_milliseconds(again) == 15 * 60_000
    again = silence_after_miss(again, NOW + timedelta(minutes=90))
    assert unheard_milliseconds(again) == 45 * 60_000
    assert heard_late(misses(0, 15, 45), answered_late=False) == misses(0, 15, 45)
    assert unheard_milliseconds(heard_late(misses(0), answered_late=True)) == 0
    assert heard_late(None, answered_late=True) is None
    assert heard_late(heard, answered_late=True) == heard


async def test_an_answer_that_lay_with_us_at_the_time_out_counts(bus, config):
    """The scheduler was busy when the time was over, and had not read the answer yet."""
    results: list[PingResult] = []
    late: list[Msg] = []
    directory = Directory(POLICY)
    directory.apply_entry("a", AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW), 1)
    tracked = directory.get("a")
    assert tracked
    pinger = Pinger(
        bus,
        "me",
        BusMonitor(bus, TIMEOUT_SECONDS),
        ServerMonitor(bus),
        BusClock(bus),
        PingLimits(1, timeout_seconds=TIMEOUT_SECONDS),
        lambda _attempt, result: results.append(result),
        late.append,
    )

    def answer(attempt: PingAttempt) -> None:
        request = decode(attempt.request, PingRequest)
        subject = f"{pinger._inbox}.{attempt.ping_id}"
        pinger._receive(Msg(bus, subject=subject, data=encode(report("a", request))))

    in_time, missed = PingAttempt("a", tracked, "p-1", None), PingAttempt("a", tracked, "p-2", None)
    await pinger.launch([in_time, missed])
    over = missed.first_sent_at + TIMEOUT_SECONDS
    expired = pinger._take_expired(over)
    answer(in_time)
    assert [type(result) for result in results] == [Answered]
    await pinger._expire(expired, over)
    assert [type(result) for result in results] == [Answered, Missed]
    answer(missed)
    assert len(results) == 2
    assert [message.subject.rpartition(".")[2] for message in late] == ["p-2"]
    assert (in_time.may_be_answered_late, missed.may_be_answered_late) == (False, True)
