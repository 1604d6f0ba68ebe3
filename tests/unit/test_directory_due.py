"""Each due agent is handed out once, oldest first, however often it is offered again."""

import asyncio
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from bus.contract.messages import AgentEntry
from bus.transport.bus_clock import BusClock
from bus.transport.connection import Client
from scheduler.cluster.cluster import Cluster
from scheduler.cluster.history_position import HistoryPosition
from scheduler.cluster.peers import Peers
from scheduler.fleet.directory import Directory
from scheduler.ping.loop import PingLoop
from scheduler.ping.pinger import PingLimits
from scheduler.policy import Policy

NOW = datetime(2026, 11, 23, tzinfo=UTC)
POLICY = Policy(
    base_seconds=900,
    max_seconds=86_400,
    multiplier=2.0,
    threshold_percent=99.0,
    recovery_pings=3,
    grace=True,
)


def directory_of(count: int) -> Directory:
    """Due one second after the other, the last of them at NOW."""
    directory = Directory(POLICY)
    for number in range(count):
        at = NOW - timedelta(seconds=count - 1 - number)
        directory.apply_entry(
            f"a{number}", AgentEntry(agent_id=f"a{number}", registered_at=at, enrolled_at=at), 1
        )
    return directory


def handed_out(directory: Directory) -> list[str]:
    taken = []
    while agent_id := directory.take_due(NOW):
        taken.append(agent_id)
    return taken


def test_each_is_handed_out_once_and_oldest_first():
    directory = directory_of(5)
    assert handed_out(directory) == ["a0", "a1", "a2", "a3", "a4"]
    assert handed_out(directory) == []


def test_what_was_handed_out_and_not_looked_after_is_offered_again():
    directory = directory_of(2)
    assert handed_out(directory) == ["a0", "a1"]
    directory.offer_again(["a0"])
    assert handed_out(directory) == ["a0"]


def test_who_is_no_longer_due_is_not_handed_out():
    directory = directory_of(2)
    tracked = directory.get("a0")
    assert tracked
    assert tracked.entry
    directory.apply_entry("a0", replace(tracked.entry, removed_at=NOW), 2)
    assert handed_out(directory) == ["a1"]


async def test_a_backlog_that_waits_for_a_place_does_not_pile_up():
    """No ping may be in flight; offering the due agents again must not make the queue grow."""
    wake = asyncio.Event()
    directory = directory_of(1000)
    loop = ping_loop(directory, wake, limit=0)
    waiting = asyncio.create_task(loop.run())
    await asyncio.sleep(0)
    for seconds in range(1, 50):
        loop.queue._offered_at = -seconds  # as if a second had gone by
        wake.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    waiting.cancel()
    assert len(directory._untaken) <= 1000


async def test_whose_time_comes_while_the_loop_looks_is_pinged_at_once():
    """The loop once read the clock twice in one turn, and then slept a second too long."""
    wake = asyncio.Event()
    directory = LateLook(POLICY, wake)
    now = datetime.now(UTC)
    entry = AgentEntry(agent_id="a0", registered_at=now, enrolled_at=directory.due_at)
    directory.apply_entry("a0", entry, 1)
    loop = ping_loop(directory, wake, limit=1)
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(60):
        while loop.pinger.in_flight == 0:  # noqa: ASYNC110  # the pinger signals nobody
            await asyncio.sleep(0.001)
    running.cancel()
    attempt = loop.active["a0"]
    assert attempt.pinged_at
    assert attempt.pinged_at - directory.due_at < timedelta(seconds=0.5)


def ping_loop(directory: Directory, wake: asyncio.Event, limit: int) -> PingLoop:
    """A loop whose client never connects, so that no agent answers."""
    client = Client("nobody")
    peers = Peers(client, "me", lambda: None)
    peers.greeted.set()

    async def restore() -> None:
        return None

    return PingLoop(
        client,
        directory,
        Cluster(peers, HistoryPosition(client, wake.set), BusClock(client)),
        wake,
        limits=PingLimits(in_flight=limit, timeout_seconds=10.0),
        on_recorded=lambda _attempt, _state: None,
        on_consumer_lost=restore,
    )


class LateLook(Directory):
    """The only agent becomes due just after the loop found that none was due."""

    def __init__(self, policy: Policy, wake: asyncio.Event) -> None:
        super().__init__(policy, wake.set)
        self.due_at = datetime.now(UTC) + timedelta(seconds=0.2)

    def take_due(self, now: datetime) -> str | None:
        taken = super().take_due(now)
        while now < self.due_at and datetime.now(UTC) <= self.due_at:
            pass  # no other task may run: this very moment is tested
        return taken


def test_what_loading_queued_too_early_is_forgotten():
    directory = directory_of(3)
    directory.rebuild_schedule()
    assert handed_out(directory) == ["a0", "a1", "a2"]
