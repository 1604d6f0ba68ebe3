"""Our losses are ours: an outcome that never reaches history costs its host nothing.

A real scheduler pings, the server makes the history, and messages of it are deleted before
storage reads them, as a server that lost them would have it.
"""

import pytest
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import AgentState, decode
from bus.contract.questions import HistoryRequest, OverviewRequest, RegisterRequest
from bus.contract.statements import StatementRequest
from bus.settings import Settings
from scheduler.service import running as scheduler_running
from storage.service import running as storage_running
from tests.agents import answering
from tests.history import until_history
from tests.storage_states import caught_up
from tests.waiting import clear_of_months_end

LOST = (1, 2, 4)  # the numbers of the outcomes that are lost


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=1.2 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=10.0,
    )


async def delete_from_history(bus) -> list[AgentState]:
    """Returns the outcomes that are gone, in order."""
    js = bus.jetstream()
    last = (await js.stream_info(subjects.HISTORY_STREAM)).state.last_seq
    gone = []
    for sequence in range(1, last + 1):
        message = await js.get_msg(subjects.HISTORY_STREAM, sequence)
        state = decode(message.data or b"", AgentState)
        if state.ping_seq in LOST:
            await js.delete_msg(subjects.HISTORY_STREAM, sequence)
            gone.append(state)
    return gone


async def test_lost_outcomes_are_excused_as_history_lost_and_listed_in_the_statement(bus, config):
    """Also where they are the first ones, after which nothing of the enrolment is left."""
    await clear_of_months_end()
    client = FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)
    async with scheduler_running(config), answering(config) as agents:
        await agents.add("a")
        await client.register("a", RegisterRequest())
        await until_history(bus, lambda found: len(found["a"]) > LOST[-1] + 1)
        gone = await delete_from_history(bus)
        async with storage_running(config):
            await caught_up(bus, 2)
            month = f"{utc_now():%Y-%m}"
            made = await client.statement("a", StatementRequest(month=month))
            history = await client.history("a", HistoryRequest(hours=1.0))
            overview = await client.overview(OverviewRequest(hours=1.0))
    first, second, fourth = [one.last for one in gone]
    assert first.since
    assert fourth.since
    lost = [(span.since, span.until) for span in made.history_lost]
    assert lost == [(first.since, second.pinged_at), (fourth.since, fourth.pinged_at)]
    lost_seconds = sum((until - since).total_seconds() for since, until in lost)
    assert lost_seconds > len(LOST) - 1
    assert made.missing_seqs == len(LOST)
    assert made.host.seconds.excused == pytest.approx(lost_seconds, abs=1e-6)
    assert made.host.unreported_seconds == 0.0
    assert made.host.uptime_percent == 100.0
    accounted = made.host.seconds.up + made.host.seconds.excused
    assert accounted == pytest.approx(made.enrolled_seconds, abs=1e-6)
    assert history.summary.seconds.excused == made.host.seconds.excused
    assert overview.seconds.excused == made.host.seconds.excused
    assert history.summary.uptime_percent == 100.0
    assert not set(LOST) & {ping.ping_seq for ping in history.pings}
