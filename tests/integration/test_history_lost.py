"""Our losses are ours: an outcome that never reaches history costs its host nothing.

A real scheduler pings, the server makes the history, and one message of it is deleted before
storage reads it, as a server that lost it would have it.
"""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.contract.questions import HistoryRequest, RegisterRequest
from bus.contract.statements import StatementRequest
from bus.settings import Settings
from scheduler.service import running as scheduler_running
from storage.service import running as storage_running
from tests.agents import answering
from tests.history import until_history
from tests.storage_states import caught_up

LOST = 3  # the number of the outcome that is lost


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=1.2 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=10.0,
    )


async def delete_from_history(bus, number: int) -> AgentState:
    """Returns the outcome that is gone."""
    js = bus.jetstream()
    last = (await js.stream_info(subjects.HISTORY_STREAM)).state.last_seq
    for sequence in range(1, last + 1):
        message = await js.get_msg(subjects.HISTORY_STREAM, sequence)
        state = decode(message.data or b"", AgentState)
        if state.ping_seq == number:
            await js.delete_msg(subjects.HISTORY_STREAM, sequence)
            return state
    raise AssertionError(f"no outcome {number}")


async def test_a_lost_outcome_is_excused_as_history_lost_and_listed_in_the_statement(bus, config):
    client = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
    async with scheduler_running(config), answering(config) as agents:
        await agents.add("a")
        await client.register("a", RegisterRequest())
        await until_history(bus, lambda found: len(found["a"]) > LOST + 1)
        gone = await delete_from_history(bus, LOST)
        async with storage_running(config):
            await caught_up(bus, LOST)
            month = f"{utc_now():%Y-%m}"
            made = await client.statement("a", StatementRequest(month=month))
            history = await client.history("a", HistoryRequest(hours=1.0))
    window = gone.last.pinged_at - (gone.last.since or gone.last.pinged_at)
    assert window > timedelta(seconds=1)
    (lost,) = made.history_lost
    assert (lost.since, lost.until) == (gone.last.since, gone.last.pinged_at)
    assert made.missing_seqs == 1
    assert made.host.seconds.excused == window.total_seconds()
    assert made.host.unreported_seconds == 0.0
    assert made.host.uptime_percent == 100.0
    accounted = made.host.seconds.up + made.host.seconds.excused
    assert accounted == pytest.approx(made.enrolled_seconds, abs=1e-6)
    assert history.summary.seconds.excused == window.total_seconds()
    assert history.summary.uptime_percent == 100.0
    assert LOST not in {ping.ping_seq for ping in history.pings}
