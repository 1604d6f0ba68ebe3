"""Booked maintenance with a real scheduler: pinged, not judged, and excused to the millisecond."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract.maintenance import BookingsRequest, BookRequest, CancelRequest
from bus.contract.messages import AgentState, encode
from bus.contract.questions import RegisterRequest
from bus.contract.remarks import STOOD_STILL
from bus.errors import RefusedError
from bus.settings import Settings
from bus.transport import connection
from scheduler.service import running
from tests.agents import report
from tests.history import until_history
from tests.waiting import passed

BOOKING_SECONDS = 2.0  # ahead of its time a booking has to come, however busy this machine is


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=2.4 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=1.0,
        GPUPING_MAINTENANCE_BUDGET_HOURS=1.0,
    )


@pytest.fixture
async def fleet(bus: connection.Client, config: Settings) -> AsyncIterator[FleetClient]:
    async with running(config):
        yield FleetClient(bus, config.PING_RESPONSE_TIMEOUT_SECONDS)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def excused_ms(state: AgentState) -> int:
    assert state.last.seconds
    return round(state.last.seconds.excused * 1000)


def overlap_ms(state: AgentState, since: datetime, until: datetime) -> int:
    """Whole milliseconds of the outcome's window that lie within the booking."""
    assert state.last.since
    millisecond = timedelta(milliseconds=1)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    begin = max((state.last.since - epoch) // millisecond, round((since - epoch) / millisecond))
    end = min((state.last.pinged_at - epoch) // millisecond, round((until - epoch) / millisecond))
    return max(0, end - begin)


async def test_a_host_that_is_down_in_maintenance_is_not_judged_and_its_time_is_excused(
    bus, fleet, agents
):
    down = False
    await agents.add("a", lambda i, r: encode(report(i, r, up=0.0 if down else 1.0)))
    await fleet.register("a", RegisterRequest())
    await until_history(bus, lambda h: len(h["a"]) >= 2)
    since, until = soon(BOOKING_SECONDS), soon(BOOKING_SECONDS + 5.5)
    booked = await fleet.book_maintenance(
        BookRequest(agent_id="a", since=since, until=until, reason="fans", author="ada")
    )
    assert booked.bookings[0].agent_ids == ("a",)
    await passed(since, 0.0)
    down = True
    history = await until_history(
        bus, lambda h: sum(s.last.reason == "maintenance" for s in h["a"]) >= 3
    )
    agent = await fleet.agent("a")
    assert agent.status == "maintenance"
    assert (await fleet.fleet()).by_status["maintenance"] == 1
    down = False
    history = await until_history(bus, lambda h: h["a"][-1].last.pinged_at > until)
    for state in history["a"]:
        # A machine that stood still excuses more.
        if state.last.outcome == "answered" and STOOD_STILL not in state.last.remarks:
            assert excused_ms(state) == pytest.approx(overlap_ms(state, since, until), abs=1)
        if since <= state.last.pinged_at < until:
            assert state.last.verdict == "excused"
            assert state.consecutive_poor == 0
            assert state.interval_seconds == pytest.approx(1.2)


async def test_a_host_that_is_off_in_maintenance_misses_nothing(bus, fleet, agents):
    off = False
    await agents.add("a", lambda i, r: None if off else encode(report(i, r)))
    await fleet.register("a", RegisterRequest())
    await until_history(bus, lambda h: h["a"])
    since, until = soon(BOOKING_SECONDS), soon(BOOKING_SECONDS + 5.0)
    await fleet.book_maintenance(
        BookRequest(agent_id="a", since=since, until=until, reason="off", author="ada")
    )
    await passed(since, 0.0)
    off = True
    history = await until_history(
        bus, lambda h: sum(s.last.outcome == "excused" for s in h["a"]) >= 2
    )
    excused = [state for state in history["a"] if state.last.outcome == "excused"]
    assert {state.last.reason for state in excused} == {"maintenance"}
    distance = excused[1].last.pinged_at - excused[0].last.pinged_at
    assert distance > timedelta(seconds=1.1), "pinged at its interval, not again at once"
    off = False
    history = await until_history(bus, lambda h: h["a"][-1].last.pinged_at > until)
    assert history["a"][-1].missed == 0
    assert history["a"][-1].consecutive_poor == 0


async def test_bookings_of_a_group_are_listed_and_cancelled_together(fleet):
    for agent_id, site in (("a", "FRA"), ("b", "FRA"), ("c", "AMS")):
        await fleet.register(agent_id, RegisterRequest(metadata={"site": site}))
    request = BookRequest(
        label="site=FRA", since=soon(60), until=soon(120), reason="power", author="ada"
    )
    (booking,) = (await fleet.book_maintenance(request)).bookings
    assert booking.agent_ids == ("a", "b")
    (listed,) = (await fleet.maintenance(BookingsRequest())).bookings
    assert listed == booking
    assert (await fleet.maintenance(BookingsRequest(agent_id="c"))).bookings == ()
    await fleet.cancel_maintenance(CancelRequest(booking_id=booking.booking_id))
    assert (await fleet.maintenance(BookingsRequest(past_too=True))).bookings == ()
    with pytest.raises(RefusedError, match="no booking"):
        await fleet.cancel_maintenance(CancelRequest(booking_id=booking.booking_id))


def within_one_month(*seconds: float) -> list[datetime]:
    """Moments so many seconds from now; of the next month where this one ends before the last."""
    begin = datetime.now(UTC)
    end = begin + timedelta(seconds=seconds[-1])
    if end.month != begin.month:
        begin = end.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return [begin + timedelta(seconds=one) for one in seconds]


async def test_a_group_is_booked_whole_or_not_at_all(fleet):
    first, second, end = within_one_month(60, 3000, 6500)
    for agent_id in ("a", "b"):
        await fleet.register(agent_id, RegisterRequest(metadata={"site": "FRA"}))
    await fleet.book_maintenance(
        BookRequest(agent_id="b", since=first, until=second, reason="disk", author="ada")
    )
    with pytest.raises(RefusedError, match=r"b would have .* its budget is 1"):
        await fleet.book_maintenance(
            BookRequest(label="site=FRA", since=second, until=end, reason="power", author="ada")
        )
    assert (await fleet.maintenance(BookingsRequest(agent_id="a"))).bookings == ()


async def test_what_has_begun_and_who_is_unknown_is_refused(fleet):
    await fleet.register("a", RegisterRequest())
    begun = BookRequest(agent_id="a", since=soon(-1), until=soon(60), reason="late", author="ada")
    with pytest.raises(RefusedError, match="ahead of time"):
        await fleet.book_maintenance(begun)
    unknown = BookRequest(agent_id="x", since=soon(9), until=soon(60), reason="who", author="ada")
    with pytest.raises(RefusedError, match="no agent 'x'"):
        await fleet.book_maintenance(unknown)
    nobody = BookRequest(label="site=X", since=soon(9), until=soon(60), reason="who", author="ada")
    with pytest.raises(RefusedError, match="no registered agent has the label"):
        await fleet.book_maintenance(nobody)
