"""Timers that a busy scheduler keeps through several outcomes, and what happens when they fire."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from bus.contract import subjects
from bus.contract.messages import AgentEntry, AnsweredPing, Timer, encode
from bus.settings import Settings
from bus.transport import connection, jetstream_api
from bus.transport.batch import Write, commit
from scheduler.cluster.history_position import HistoryPosition
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory
from scheduler.ping.attempt import PingAttempt
from scheduler.ping.committer import Committer
from scheduler.ping.due_queue import DueQueue
from scheduler.policy import Answered
from scheduler.service import policy_of
from scheduler.write.timers import BUSY_BATCH_SIZE, BUSY_TIMER_DELAY, TIMER_DELAY

AGENTS = BUSY_BATCH_SIZE + 20


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """Pings every 1.2 s."""
    return replace(
        base_settings, PING_BASE_INTERVAL_MINUTES=0.02, PING_MAX_INTERVAL_HOURS=4.8 / 3600
    )


async def fleet(
    bus: connection.Client, directory: Directory, now: datetime, size: int = AGENTS
) -> list[str]:
    names = [f"a{number:03d}" for number in range(size)]
    entries = [
        AgentEntry(agent_id=name, registered_at=now, enrolled_at=now, expected_gpus=("G",))
        for name in names
    ]
    first = await commit(
        bus, [Write(subjects.agent_key(e.agent_id), encode(e), expected=0) for e in entries]
    )
    for revision, entry in enumerate(entries, first):
        directory.apply_entry(entry.agent_id, entry, revision)
    return names


async def record(
    committer: Committer, directory: Directory, names: list[str], now: datetime
) -> None:
    """One good outcome each, all at once; returns when they stand in the bucket."""
    before = {name: directory.get(name).state_revision for name in names}
    for name in names:
        attempt = PingAttempt(name, directory.get(name), f"p-{name}", now)
        attempt.start(now, "", AnsweredPing(boot_id="", boottime=0.0), 10.0)
        committer.submit(attempt, Answered(100.0, gpu_available=True))
    async with asyncio.timeout(60):
        while any(  # noqa: ASYNC110  # the directory signals nobody
            directory.get(name).state_revision == before[name] for name in names
        ):
            await asyncio.sleep(0.01)


async def last_sequence(bus: connection.Client) -> int:
    info = await jetstream_api.call(bus, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    return int(info["state"]["last_seq"])


async def fires(bus: connection.Client, name: str) -> datetime:
    message = await bus.jetstream().get_last_msg(subjects.BUCKET_STREAM, subjects.timer_key(name))
    assert message.headers
    return datetime.fromisoformat(message.headers["Nats-Schedule"].removeprefix("@at "))


async def test_a_busy_scheduler_leaves_timers_standing_that_fire_late_enough(bus, config):
    # The last ping is now: one of the future would be corrected.
    directory, now = Directory(policy_of(config)), datetime.now(UTC) - timedelta(seconds=2.4)
    names = await fleet(bus, directory, now)
    again = pytest.fail
    committer = Committer(
        bus, directory, directory.policy, lambda _attempt, _state, _ours: None, again
    )
    writing = asyncio.create_task(committer.run())
    try:
        before = await last_sequence(bus)
        await record(committer, directory, names, now)
        assert await last_sequence(bus) == before + 2 * AGENTS  # states and timers
        first_due = directory.get(names[0]).state.next_ping_at
        assert await fires(bus, names[0]) == first_due + BUSY_TIMER_DELAY

        await record(committer, directory, names, now + timedelta(seconds=1.2))
        assert await last_sequence(bus) == before + 3 * AGENTS  # states only
        assert await fires(bus, names[0]) == first_due + BUSY_TIMER_DELAY

        await record(
            committer, directory, names[:1], now + timedelta(seconds=2.4)
        )  # a quiet moment: as ever
        assert (
            await fires(bus, names[0]) == directory.get(names[0]).state.next_ping_at + TIMER_DELAY
        )

        directory.apply_entry(names[1], directory.get(names[1]).entry, await last_sequence(bus) + 1)
        await record(committer, directory, names, now + timedelta(seconds=3.6))
        due = directory.get(
            names[1]
        ).state.next_ping_at  # its entry was written: whose timer stands is not known
        assert await fires(bus, names[1]) == due + BUSY_TIMER_DELAY
        assert await fires(bus, names[2]) == first_due + BUSY_TIMER_DELAY
    finally:
        writing.cancel()


async def test_a_timer_that_stood_through_outcomes_counts_when_its_agent_waits_for_long(
    bus, config
):
    directory, now = Directory(policy_of(config)), datetime.now(UTC)
    name = (await fleet(bus, directory, now, size=1))[0]
    committer = Committer(
        bus, directory, directory.policy, lambda _attempt, _state, _ours: None, pytest.fail
    )
    writing = asyncio.create_task(committer.run())
    try:
        for seconds in (0.0, 1.2):
            await record(committer, directory, [name], now + timedelta(seconds=seconds))
    finally:
        writing.cancel()
    acknowledged: list[str] = []
    history = HistoryPosition(bus, lambda: None)
    await history.read()
    peers = Peers(bus, "one", lambda: None)
    queue = DueQueue(directory, peers, history, 10, acknowledged.extend)
    due_at = directory.get(name).state.next_ping_at
    fired = Msg(
        bus, subjects.due_key(name), "ack.1", encode(Timer(seq=1, due_at=now))
    )  # two outcomes ago

    queue.add_due_message(fired)
    assert queue.next(due_at - timedelta(seconds=1)) is None
    assert acknowledged == ["ack.1"]

    queue.add_due_message(
        Msg(bus, subjects.due_key(name), "ack.2", encode(Timer(seq=1, due_at=now)))
    )
    attempt = queue.next(due_at + TIMER_DELAY)
    assert attempt
    assert (attempt.agent_id, attempt.due_at, attempt.acks) == (name, due_at, ["ack.2"])
    assert acknowledged == ["ack.1"]
