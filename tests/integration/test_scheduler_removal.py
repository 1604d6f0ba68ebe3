"""A removal holds until the operator registers the agent again, and drops no time before it."""

import pytest
from msgspec.structs import replace

from bus.clock import boottime
from bus.contract import subjects
from bus.contract.messages import AgentEntry, PingRequest, encode
from bus.contract.questions import REMOVED_BY_OPERATOR, RegisterReply, RegisterRequest
from bus.errors import RefusedError
from bus.settings import Settings
from bus.transport import connection, micro_services
from bus.transport.bucket import read
from scheduler.ping.accounting.timestamps import whole_millisecond
from scheduler.ping.next_state import MIN_SECONDS_BETWEEN_OUTCOMES
from scheduler.service import running
from tests.agents import report, silent
from tests.history import read_history, until_history
from tests.waiting import passed


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """An interval that does not end within a test, and a time-out that would hold a removal up."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=10.0,
        PING_MAX_INTERVAL_HOURS=1.0,
        PING_RESPONSE_TIMEOUT_SECONDS=30.0,
    )


async def register(
    bus: connection.Client, subject: str, mark: str | None = None, **more: object
) -> RegisterReply:
    request = RegisterRequest(mark=mark, **more)  # type: ignore[arg-type]
    return await micro_services.ask(bus, subject, request, RegisterReply, who="scheduler")


async def remove(bus: connection.Client, agent_id: str) -> None:
    await micro_services.ask_raw(bus, subjects.remove(agent_id), b"", who="scheduler", timeout=40.0)


async def entry(bus: connection.Client, agent_id: str) -> AgentEntry:
    found = await read(bus, subjects.agent_key(agent_id), AgentEntry)
    assert found
    return found.value


async def test_only_the_operator_undoes_a_removal(bus, config, agents):
    await agents.add("a")
    async with running(config), running(config):
        assert (await register(bus, subjects.register("a"))).created
        await until_history(bus, lambda h: h["a"])
        await remove(bus, "a")
        removed = await entry(bus, "a")
        for _ in range(10):  # whichever of the two schedulers answers
            with pytest.raises(RefusedError) as refused:
                await register(bus, subjects.register("a"), metadata={"x": 1})
            assert refused.value.code == REMOVED_BY_OPERATOR
        assert await entry(bus, "a") == removed
        assert (await register(bus, subjects.enrol("a"))).created
        for _ in range(10):
            assert not (await register(bus, subjects.register("a"))).created


async def test_the_last_ping_of_a_removal_counts_the_time_until_then(bus, config, agents):
    await agents.add("a")
    async with running(config):
        await register(bus, subjects.register("a"))
        first = (await until_history(bus, lambda h: h["a"]))["a"][0]
        await passed(first.last.pinged_at, seconds=MIN_SECONDS_BETWEEN_OUTCOMES + 0.5)
        await remove(bus, "a")
        history = await until_history(bus, lambda h: len(h["a"]) == 2)
    last = history["a"][1].last
    assert (last.outcome, last.verdict, last.uptime_percent) == ("answered", "good", 100.0)
    assert last.since == first.last.pinged_at
    assert last.window_seconds == (last.pinged_at - first.last.pinged_at).total_seconds()
    assert last.window_seconds >= 1.5
    assert (await entry(bus, "a")).removed_at == last.pinged_at


async def test_a_removal_does_not_wait_where_nobody_listens(bus, config):
    async with running(config):
        await register(bus, subjects.register("nobody"))
        began = boottime()
        await remove(bus, "nobody")
        assert boottime() - began < config.PING_RESPONSE_TIMEOUT_SECONDS / 2


async def test_a_removal_does_not_ping_a_host_that_missed_its_last_ping(bus, config, agents):
    impatient = replace(config, PING_RESPONSE_TIMEOUT_SECONDS=0.5)
    await agents.add("a", silent)
    async with running(impatient):
        await register(bus, subjects.register("a"))
        await until_history(bus, lambda h: h["a"] and h["a"][0].last.outcome == "missed")
        asked = len(agents.asked["a"])
        await remove(bus, "a")
        assert len(agents.asked["a"]) == asked
        assert len((await read_history(bus))["a"]) == 1


async def test_the_first_window_of_an_enrolment_begins_at_the_mark_of_its_registration(
    bus, config, agents
):
    def answer(agent_id: str, request: PingRequest) -> bytes:
        return encode(report(agent_id, request))

    await agents.add("a", answer)
    async with running(config):
        await register(bus, subjects.register("a"), mark="ledger.100")
        await register(bus, subjects.register("a"), mark="ledger.900")  # after a reconnection
        assert (await entry(bus, "a")).mark == "ledger.100"
        first = (await until_history(bus, lambda h: h["a"]))["a"][0].last
        assert agents.asked["a"][0].since_mark == "ledger.100"
        assert first.since == whole_millisecond((await entry(bus, "a")).enrolled_at)
        await remove(bus, "a")
        await register(bus, subjects.enrol("a"))
        # The operator knows no mark, and that of the enrolment before is of no use any more.
        assert (await entry(bus, "a")).mark is None
