"""The drill: storage is away while a fleet is pinged, frozen or stopped, and comes back.

Pings must not notice.

The slow ones last DRILL_SECONDS (600 unless the environment says otherwise); a short one runs with
the other tests, so that the drill itself cannot rot. Each prints what it measured.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Literal, get_args

import duckdb
import pytest
from msgspec.structs import replace

from bus import clock
from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.contract.questions import HistoryReply, HistoryRequest
from bus.errors import UnavailableError
from bus.settings import Settings
from bus.transport import micro_services
from bus.transport.connection import Client
from storage.engine import database
from tests.agents import answering
from tests.history import History, assert_gapless, until_history
from tests.registering import register
from tests.scheduler_processes import scheduler_processes
from tests.storage_process import StorageProcess, storage_process
from tests.storage_states import caught_up

LONG_SECONDS = float(os.environ.get("DRILL_SECONDS", "600"))
CATCH_UP_SECONDS = 60.0  # a frozen process must first notice that its connection is gone
STALL_SECONDS = 4.0  # of this machine, which others use too: a ping may be so late in a drill

How = Literal["frozen", "stopped"]
both_ways = pytest.mark.parametrize("how", get_args(How))


@both_ways
async def test_storage_away_for_a_moment(bus: Client, base_settings: Settings, how: How):
    await drill(bus, every(base_settings, 2.0), how, seconds=3.0, agents=40)


@pytest.mark.slow
@pytest.mark.timeout(LONG_SECONDS + 300)
@both_ways
async def test_storage_away_for_long(
    bus: Client, base_settings: Settings, how: How, capsys: pytest.CaptureFixture[str]
):
    with capsys.disabled():
        await drill(bus, every(base_settings, 6.0), how, LONG_SECONDS, agents=300)  # 50 pings/s


def every(base: Settings, seconds: float) -> Settings:
    return replace(base, PING_BASE_INTERVAL_MINUTES=seconds / 60, PING_MAX_INTERVAL_HOURS=1.0)


async def drill(bus: Client, config: Settings, how: How, seconds: float, agents: int) -> None:
    """Pings, storage goes, pings go on, storage comes back and has it all."""
    names = [f"agent-{number:03}" for number in range(agents)]
    async with (
        answering(config) as fleet,
        storage_process(config) as storage,
        scheduler_processes(config, 1) as line_up,
    ):
        for name in names:
            await fleet.add(name)
            await register(bus, name)
            await asyncio.sleep(config.base_interval_seconds / agents)  # spread over one interval
        await caught_up(bus, 2 * agents)
        gone = clock.utc_now()
        await away(storage, how)
        assert not await answers(bus)
        await asyncio.sleep(seconds)  # the drill itself
        asked = sum(len(requests) for requests in fleet.asked.values())
        back = clock.utc_now()
        await returns(storage, how)
        took = await until_caught_up(bus, asked)
        await line_up[0].kill()
        history = await all_that_was_written(bus, names)
        await caught_up(bus, sum(map(len, history.values())), CATCH_UP_SECONDS)
        await storage.end()
    check(history, names, (gone, back), config.base_interval_seconds)
    if seconds >= LONG_SECONDS:
        assert longest_gap(history) < config.base_interval_seconds + STALL_SECONDS
    compare_with_the_file(config, history)
    tell(how, history, (gone, back), took)


async def away(storage: StorageProcess, how: How) -> None:
    if how == "frozen":
        storage.send(signal.SIGSTOP)
    else:
        assert await storage.end(signal.SIGTERM) == 0


async def returns(storage: StorageProcess, how: How) -> None:
    if how == "frozen":
        storage.send(signal.SIGCONT)
    else:
        await storage.start()


async def answers(bus: Client) -> bool:
    try:
        await micro_services.ask(
            bus,
            subjects.history("agent-000"),
            HistoryRequest(),
            HistoryReply,
            who="storage",
            timeout=1,
        )
    except UnavailableError:
        return False
    return True


async def until_caught_up(bus: Client, rows: int) -> float:
    """Seconds until storage holds what it missed."""
    began = clock.boottime()
    await caught_up(bus, rows, CATCH_UP_SECONDS)
    return clock.boottime() - began


async def all_that_was_written(bus: Client, names: Sequence[str]) -> History:
    """The stream, once it has followed the bucket to its end."""
    js = bus.jetstream()
    newest = {}
    for name in names:
        message = await js.get_last_msg(subjects.BUCKET_STREAM, subjects.state_key(name))
        newest[name] = decode(message.data or b"", AgentState).ping_seq
    return await until_history(
        bus, lambda history: {name: len(rows) for name, rows in history.items()} == newest
    )


def check(
    history: History, names: Sequence[str], absence: tuple[datetime, datetime], interval: float
) -> None:
    """No number is missing, nobody was missed or escalated, and pings went on."""
    assert sorted(history) == sorted(names)
    assert_gapless(history)
    states = [state for rows in history.values() for state in rows]
    assert {state.last.outcome for state in states} <= {
        "answered",
        "excused",
    }  # excused: this machine stood still
    assert all(state.consecutive_poor == 0 for state in states)
    assert all(state.interval_seconds == interval for state in states)
    # Pings that waited for storage would be none; a busy machine makes some of them late.
    assert rate_within(states, absence) > 0.5 * len(names) / interval


def longest_gap(history: History) -> float:
    """Seconds between two pings of one agent, at most."""
    return max(
        (later.last.pinged_at - earlier.last.pinged_at).total_seconds()
        for rows in history.values()
        for earlier, later in pairwise(rows)
    )


def rate_within(states: Sequence[AgentState], stretch: tuple[datetime, datetime]) -> float:
    """Pings a second in a stretch of time."""
    since, until = stretch
    return (
        sum(since <= state.last.pinged_at < until for state in states)
        / (until - since).total_seconds()
    )


def compare_with_the_file(config: Settings, history: History) -> None:
    """The file, read by somebody else after the service, has each outcome of the stream once."""
    connection = duckdb.connect(str(database.HistoryPaths(config).file), read_only=True)
    try:
        text = "SELECT agent_id, ping_seq, pinged_us FROM pings JOIN agents USING (agent)"
        rows = sorted(connection.execute(text).fetchall())
    finally:
        connection.close()
    streamed = [
        (a, s.ping_seq, round(s.last.pinged_at.timestamp() * 1e6))
        for a, of in history.items()
        for s in of
    ]
    assert rows == sorted(streamed)


def tell(how: How, history: History, absence: tuple[datetime, datetime], took: float) -> None:
    """What people want to see of a drill."""
    states = [state for rows in history.values() for state in rows]
    began = min(state.last.pinged_at for state in states if state.ping_seq == 2)
    excused = sum(state.last.outcome == "excused" for state in states)
    before, during = rate_within(states, (began, absence[0])), rate_within(states, absence)
    lines = (
        f"storage {how} for {(absence[1] - absence[0]).total_seconds():.1f} s:",
        f"{len(states)} outcomes of {len(history)} agents, each number once",
        f"{excused} excused, none missed, none escalated",
        f"{before:.1f} pings/s before, {during:.1f} while it was away",
        f"longest gap between two pings of an agent {longest_gap(history):.2f} s",
        f"caught up {took:.1f} s after its return",
    )
    print("", *lines, sep="\n  ")  # noqa: T201  # a drill is run to be read
