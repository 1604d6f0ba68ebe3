"""A late answer shows that the host was there: its miss is no silence, but earlier ones stay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import AgentEntry, PingRequest, Silence, decode, encode
from bus.contract.questions import RegisterReply, RegisterRequest
from bus.settings import Settings
from bus.transport import connection, micro_services
from scheduler.cluster.bus_clock import BusClock
from scheduler.fleet.directory import Directory
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.bus_monitor import BusMonitor
from scheduler.ping.pinger import Pinger, PingLimits
from scheduler.ping.server_monitor import ServerMonitor
from scheduler.ping.silence import heard_late, silence_after_miss, unheard_milliseconds
from scheduler.policy import Answered, Missed, PingResult
from scheduler.service import running
from tests.agents import report
from tests.history import until_history
from tests.unit.measured_lives import POLICY

TIMEOUT_SECONDS = 1.0
LATE_SECONDS = 1.8  # before the next ping is sent
NOW = datetime(2026, 11, 23, tzinfo=UTC)


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
    client: connection.Client, answer: Callable[[int, Msg, PingRequest], Awaitable[None]]
) -> AsyncIterator[None]:
    """Answers each ping in a task of its own, so that a late answer delays no other."""
    tasks: set[asyncio.Task[None]] = set()

    async def hear(message: Msg) -> None:
        request = decode(message.data, PingRequest)
        task = asyncio.create_task(answer(request.seq or 0, message, request))
        tasks.add(task)

    subscription = await client.subscribe(subjects.ping("a"), cb=hear)
    await client.flush()
    yield
    await subscription.unsubscribe()
    await asyncio.gather(*tasks)


async def respond(message: Msg, request: PingRequest) -> None:
    await message.respond(encode(report("a", request)))


async def register(bus: connection.Client) -> None:
    subject = subjects.register("a")
    await micro_services.ask(bus, subject, RegisterRequest(), RegisterReply, who="scheduler")


@pytest.mark.parametrize("late", [True, False])
async def test_misses_that_were_answered_late_are_no_silence(bus, config, late):
    """The pings 2 to 4 are missed. Where they are answered late, the host loses no time."""

    async def answer(seq: int, message: Msg, request: PingRequest) -> None:
        if 2 <= seq <= 4:
            if not late:
                return
            await asyncio.sleep(LATE_SECONDS)  # the answer is to be late
        await respond(message, request)

    async with running(config), agent(bus, answer):
        await register(bus)
        history = (await until_history(bus, lambda h: len(h["a"]) >= 5, within=40.0))["a"]
    assert [s.last.outcome for s in history[1:4]] == ["missed"] * 3
    back = history[4].last
    assert back.outcome == "answered"
    assert back.seconds
    if late:
        assert (back.remarks, back.uptime_percent) == ((), 100.0)
    else:
        unheard = (history[3].last.pinged_at - history[1].last.pinged_at).total_seconds()
        assert back.remarks == ("unheard",)
        assert back.seconds.unknown == pytest.approx(unheard, abs=0.002)


async def test_one_late_answer_does_not_make_up_for_the_silence_before_it(bus, config):
    """The pings 2 to 5 are missed, and only the last of them is answered late."""

    async def answer(seq: int, message: Msg, request: PingRequest) -> None:
        if 2 <= seq <= 4:
            return
        if seq == 5:
            await asyncio.sleep(LATE_SECONDS)  # the answer is to be late
        await respond(message, request)

    async with running(config), agent(bus, answer):
        await register(bus)
        history = (await until_history(bus, lambda h: len(h["a"]) >= 6, within=40.0))["a"]
    assert [s.last.outcome for s in history[1:5]] == ["missed"] * 4
    back = history[5].last
    unheard = (history[3].last.pinged_at - history[1].last.pinged_at).total_seconds()
    assert back.remarks == ("unheard",)
    assert back.seconds
    assert back.seconds.unknown == pytest.approx(unheard, abs=0.002)


def misses(*minutes: int) -> Silence | None:
    silence = None
    for minute in minutes:
        silence = silence_after_miss(silence, NOW + timedelta(minutes=minute))
    return silence


def test_only_the_last_miss_is_answered_late():
    assert unheard_milliseconds(misses(0, 15, 45)) == 45 * 60_000
    heard = heard_late(misses(0, 15, 45), NOW + timedelta(minutes=45))
    assert unheard_milliseconds(heard) == 15 * 60_000
    # A new row begins with the next miss.
    again = silence_after_miss(heard, NOW + timedelta(minutes=60))
    assert unheard_milliseconds(again) == 15 * 60_000
    again = silence_after_miss(again, NOW + timedelta(minutes=90))
    assert unheard_milliseconds(again) == 45 * 60_000
    # An answer to an earlier miss says nothing about the time after it.
    assert heard_late(misses(0, 15, 45), NOW + timedelta(minutes=15)) == misses(0, 15, 45)
    assert unheard_milliseconds(heard_late(misses(0), NOW)) == 0
    assert heard_late(None, NOW) is None
    assert heard_late(heard, NOW + timedelta(minutes=45)) == heard


async def test_an_answer_that_lay_with_us_at_the_time_out_counts(bus, config):
    """The scheduler was busy when the time was over, and had not read the answer yet."""
    results: list[PingResult] = []
    directory = Directory(POLICY)
    directory.apply_entry("a", AgentEntry(agent_id="a", registered_at=NOW, enrolled_at=NOW), 1)
    tracked = directory.get("a")
    assert tracked
    pinger = Pinger(
        bus,
        BusMonitor(bus, TIMEOUT_SECONDS),
        ServerMonitor(bus),
        BusClock(bus),
        PingLimits(1, timeout_seconds=TIMEOUT_SECONDS),
        lambda _attempt, result: results.append(result),
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
    assert tracked.late_answer_at == missed.pinged_at
