"""One scheduler on a real bus: outcomes, registry, pings by hand, bad messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.contract.messages import (
    AgentEntry,
    AgentState,
    GpuReport,
    Incident,
    Seconds,
    Timer,
    UptimeReport,
    decode,
    encode,
)
from bus.contract.questions import (
    Agent,
    AgentPage,
    Fleet,
    GetRequest,
    ListRequest,
    LiveEvent,
    Ping,
    RegisterReply,
    RegisterRequest,
)
from bus.errors import BadMessageError, RefusedError
from bus.settings import Settings
from bus.transport import connection, micro_services
from bus.transport.bucket import read
from gateway.metric_families import fleet_families
from scheduler.service import Scheduler, running
from tests.agents import answering, report, silent, uptime
from tests.history import assert_gapless, until_history
from tests.waiting import until

LOST = Incident(state="down", reason="lost", since=datetime(2026, 11, 1, tzinfo=UTC))
BEFORE_YEAR_1 = b"0001-01-01T00:00:00+14:00"  # decodes, and cannot be converted to UTC
ABSURD_GPU = GpuReport(uuid="GPU-1", seconds=Seconds(up=1e308))


@pytest.fixture
def config(base_settings: Settings) -> Settings:
    """A base interval of 1.2 s, capped at 4.8 s, and a time-out of one second."""
    return replace(
        base_settings,
        PING_BASE_INTERVAL_MINUTES=0.02,
        PING_MAX_INTERVAL_HOURS=4.8 / 3600,
        PING_RESPONSE_TIMEOUT_SECONDS=1.0,
    )


@pytest.fixture
async def scheduler(bus: connection.Client, config: Settings) -> AsyncIterator[Scheduler]:
    async with running(config) as scheduler:
        yield scheduler


async def register(bus: connection.Client, agent_id: str, **fields: object) -> RegisterReply:
    request = RegisterRequest(**fields)  # type: ignore[arg-type]
    return await micro_services.ask(
        bus, subjects.register(agent_id), request, RegisterReply, who="scheduler"
    )


async def enrol(bus: connection.Client, agent_id: str) -> RegisterReply:
    """As the operator registers an agent."""
    return await micro_services.ask(
        bus, subjects.enrol(agent_id), RegisterRequest(), RegisterReply, who="scheduler"
    )


async def agent(bus: connection.Client, agent_id: str) -> Agent:
    return await micro_services.ask(bus, subjects.get(agent_id), None, Agent, who="scheduler")


def with_timestamp(message: UptimeReport, timestamp: bytes) -> bytes:
    """The report with another timestamp in place of that of LOST."""
    return encode(message).replace(b"2026-11-01T00:00:00Z", timestamp)


async def ping_now(bus: connection.Client, agent_id: str) -> Ping:
    return await micro_services.ask(
        bus, subjects.ping_now(agent_id), None, Ping, who="scheduler", timeout=15
    )


async def state(bus: connection.Client, agent_id: str) -> AgentState:
    found = await read(bus, subjects.state_key(agent_id), AgentState)
    assert found
    return found.value


async def test_first_ping_comes_at_registration_and_enrols_the_gpus(bus, scheduler, agents):
    await agents.add("a")
    reply = await register(
        bus, "a", capabilities=("gpu-compute",), metadata={"gpu_model": "RTX 4090"}
    )
    assert (reply.created, reply.agent.status, reply.agent.connected) == (True, "pending", None)
    history = await until_history(bus, lambda h: len(h["a"]) >= 2)
    first, second = history["a"][:2]
    assert (first.last.outcome, first.last.verdict, first.interval_seconds) == (
        "answered",
        "first",
        1.2,
    )
    assert (second.last.verdict, second.last.uptime_percent, second.good_streak) == (
        "good",
        100.0,
        1,
    )
    assert first.last.late_ms is not None
    assert first.last.late_ms >= 0
    entry = await read(bus, subjects.agent_key("a"), AgentEntry)
    assert entry
    assert entry.value.expected_gpus == ("GPU-a-0",)
    # each window begins where the last answered one ended
    assert agents.asked["a"][1].since_mark == first.since_mark
    assert first.next_ping_at == first.last.pinged_at + timedelta(seconds=1.2)


async def test_misses_have_a_reason_and_delay_nobody(bus, config, agents):
    patience = timedelta(seconds=3)
    patient = replace(config, PING_RESPONSE_TIMEOUT_SECONDS=patience.total_seconds())
    await agents.add("lively")
    await agents.add("silent", silent)
    async with running(patient):
        for agent_id in ("lively", "silent", "nobody"):
            await register(bus, agent_id)
        history = await until_history(
            bus, lambda h: h["silent"] and len(h["nobody"]) >= 2 and len(h["lively"]) >= 3
        )
        nobody = await agent(bus, "nobody")
    assert {s.last.reason for s in history["silent"]} == {"timeout"}
    assert {s.last.reason for s in history["nobody"]} == {"no_responders"}
    assert {s.last.verdict for s in history["nobody"]} == {
        "first"
    }  # never answered: nothing is judged yet
    silent_until = history["silent"][0].last.pinged_at + patience
    assert history["lively"][1].last.pinged_at < silent_until  # it did not wait for the silent one
    assert (nobody.connected, nobody.status) == (False, "pending")
    assert_gapless(history)


async def test_an_agent_that_stops_answering_is_missing_then_recovers(bus, scheduler, agents):
    alive = True
    await agents.add("a", lambda i, r: encode(report(i, r)) if alive else None)
    await register(bus, "a")
    await until_history(bus, lambda h: len(h["a"]) >= 1)
    alive = False
    history = await until_history(bus, lambda h: h["a"] and h["a"][-1].consecutive_poor >= 2)
    misses = history["a"][-2:]
    assert [s.interval_seconds for s in misses] == [2.4, 4.8]
    missing = await agent(bus, "a")
    assert (missing.status, missing.uptime_percent, missing.missed_pings) == ("missing", None, 2)
    alive = True
    poor = history["a"][-1].ping_seq
    # Between the two misses nobody heard it, so that time is unknown and the first answer is poor.
    history = await until_history(bus, lambda h: len(h["a"]) >= poor + 4)
    found = history["a"][poor : poor + 4]
    assert [s.consecutive_poor for s in found] == [3, 2, 1, 0]
    assert [s.interval_seconds for s in found] == [4.8, 4.8, 2.4, 1.2]
    assert found[0].last.remarks == ("unheard",)
    assert found[0].last.seconds
    unheard = (misses[1].last.pinged_at - misses[0].last.pinged_at).total_seconds()
    assert found[0].last.seconds.unknown == pytest.approx(unheard, abs=0.002)
    assert (await agent(bus, "a")).status == "healthy"


@pytest.mark.parametrize(
    "answer",
    [
        lambda _i, _r: b"garbage",
        lambda _i, _r: b"",
        lambda _i, _r: b"[]",
        lambda _i, r: encode(report("other", r)),
        lambda i, r: encode(report(i, r, ping_id="another-ping")),
        lambda i, r: encode(report(i, r, uptime_percent=101)),
        lambda i, r: encode(report(i, r, window=replace(report(i, r).window, seconds=1e6))),
        lambda _i, _r: b"x" * 70_000,
        lambda i, r: encode(replace(report(i, r), gpus=(ABSURD_GPU,))),
        lambda i, r: with_timestamp(report(i, r, incidents=(LOST,)), b"2026-11-01T00:00:00"),
        lambda i, r: with_timestamp(report(i, r, incidents=(LOST,)), BEFORE_YEAR_1),
    ],
    ids=[
        "garbage",
        "empty",
        "wrong-shape",
        "other-agent",
        "other-ping",
        "percent-101",
        "sums-wrong",
        "too-large",
        "absurd-time",
        "no-zone",
        "before-year-1",
    ],
)
async def test_a_bad_report_is_a_miss_with_that_reason_and_harms_nobody(
    bus, scheduler, agents, answer
):
    await agents.add("bad", answer)
    await agents.add("fine")
    await register(bus, "bad")
    await register(bus, "fine")
    history = await until_history(bus, lambda h: len(h["bad"]) >= 1 and len(h["fine"]) >= 2)
    assert (history["bad"][0].last.outcome, history["bad"][0].last.reason) == (
        "missed",
        "bad_report",
    )
    assert history["fine"][1].last.verdict == "good"
    assert scheduler.stats().bad_messages >= 1


async def test_registering_again_updates_the_entry_and_never_the_standing(bus, scheduler, agents):
    await agents.add("a", uptime(0.5))
    await register(bus, "a", metadata={"rack": 1})
    await until_history(bus, lambda h: len(h["a"]) >= 2)
    again = await register(bus, "a", metadata={"rack": 2})
    assert not again.created
    assert again.agent.metadata == {"rack": 2}
    assert again.agent.consecutive_poor_uptime >= 1
    assert again.agent.status == "poor"
    kept = await register(bus, "a")  # fields left out stay
    assert kept.agent.metadata == {"rack": 2}


async def test_removing_cancels_the_next_ping_and_registering_again_resumes(bus, scheduler, agents):
    await agents.add("a", uptime(0.0))
    await register(bus, "a")
    before = (await until_history(bus, lambda h: h["a"] and h["a"][-1].consecutive_poor == 2))["a"][
        -1
    ]
    await micro_services.ask_raw(bus, subjects.remove("a"), b"", who="scheduler")
    with pytest.raises(RefusedError, match="no agent 'a'"):
        await agent(bus, "a")
    with pytest.raises(RefusedError):
        await micro_services.ask_raw(bus, subjects.remove("a"), b"", who="scheduler")
    with pytest.raises(RefusedError):
        await ping_now(bus, "a")
    gone = await micro_services.ask(
        bus, subjects.get("a"), GetRequest(removed_too=True), Agent, who="scheduler"
    )
    assert [one.until is None for one in gone.enrolments] == [False]
    assert await read(bus, subjects.timer_key("a"), Timer) is None
    standing = await state(bus, "a")  # it stays, and may have been pinged once more
    assert standing.ping_seq >= before.ping_seq

    now = datetime.now(UTC)
    again = await enrol(bus, "a")
    assert again.created
    assert again.agent.registered_at < now
    assert again.agent.consecutive_poor_uptime == standing.consecutive_poor >= 2
    assert again.agent.next_ping_at >= standing.next_ping_at
    await until_history(bus, lambda h: len(h["a"]) > standing.ping_seq)
    first, second = (await agent(bus, "a")).enrolments
    assert first.since == again.agent.registered_at
    assert first.until
    assert first.since < first.until < second.since == again.agent.enrolled_at
    assert second.until is None
    resumed = agents.asked["a"][-1]
    assert resumed.since_mark is None  # the window starts at the new enrolment
    assert resumed.window_seconds <= (datetime.now(UTC) - now).total_seconds()


async def test_pings_by_hand_join_count_and_are_a_second_apart(bus, config, agents):
    slow = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)
    async with running(slow):
        await agents.add("a")
        await register(bus, "a")
        first = (await until_history(bus, lambda h: len(h["a"]) == 1))["a"][0]
        soon = await ping_now(bus, "a")
        if soon.ping_seq == first.ping_seq:  # within a second: the last outcome
            assert soon.pinged_at == first.last.pinged_at
        else:  # a busy machine took longer than a second to come here
            assert soon.pinged_at - first.last.pinged_at >= timedelta(seconds=1)
        await asyncio.sleep(1.05)  # an outcome may follow the one before
        both = await asyncio.gather(ping_now(bus, "a"), ping_now(bus, "a"))
        assert [p.ping_seq for p in both] == [soon.ping_seq + 1] * 2
        assert len(agents.asked["a"]) == soon.ping_seq + 1
        assert both[0].late_ms is None
        assert (await agent(bus, "a")).next_ping_at == both[0].pinged_at + timedelta(minutes=10)


async def test_lists_pages_filters_and_the_fleet(bus, config, agents):
    slow = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)

    async def ask(**fields: object) -> AgentPage:
        return await micro_services.ask(
            bus, subjects.LIST, ListRequest(**fields), AgentPage, who="scheduler"
        )  # type: ignore[arg-type]

    async with running(slow):
        names = [f"a{number:02d}" for number in range(12)]
        for number, name in enumerate(names):
            await agents.add(name)
            await register(bus, name, capabilities=("even",) if number % 2 == 0 else ("odd",))
        await until_history(bus, lambda h: len(h) == 12)
        seen, cursor = [], None
        while True:
            page = await ask(limit=5, cursor=cursor)
            assert page.total == 12
            seen += [a.agent_id for a in page.agents]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == names
        even = await ask(capability="even", limit=4)
        assert (even.total, [a.agent_id for a in even.agents], even.next_cursor) == (
            6,
            names[0:8:2],
            "a06",
        )
        assert (await ask(status="healthy")).total == 12
        assert (await ask(status="missing")).agents == ()
        assert (await ask(order="due")).total == 0
        fleet = await micro_services.ask(bus, subjects.FLEET, None, Fleet, who="scheduler")
        assert (fleet.agents, fleet.pings, fleet.due, fleet.by_status["healthy"]) == (12, 12, 0, 12)


async def test_overdue_agents_are_listed_most_overdue_first(bus, config):
    # One ping may be in flight, and its agent never answers: the others become due and wait.
    patient = replace(config, PING_MAX_CONCURRENT_AGENTS=1, PING_RESPONSE_TIMEOUT_SECONDS=30.0)
    async with running(patient), answering(patient) as agents:
        await agents.add("hog", silent)
        await register(bus, "hog")
        await until(lambda: agents.asked.get("hog"))
        for name in ("late", "later"):
            await register(bus, name)
        page = await micro_services.ask(
            bus, subjects.LIST, ListRequest(order="due"), AgentPage, who="scheduler"
        )
        assert [a.agent_id for a in page.agents] == ["hog", "late", "later"]


async def test_every_outcome_and_registration_is_an_event(bus, scheduler, agents):
    events: asyncio.Queue[LiveEvent] = asyncio.Queue()

    async def hear(message) -> None:
        events.put_nowait(decode(message.data, LiveEvent))

    await bus.subscribe(subjects.EVENT_ALL, cb=hear)
    await agents.add("a", uptime(0.0))
    await register(bus, "a")
    registered, first, poor = [await events.get() for _ in range(3)]
    assert (registered.kind, registered.agent.status) == ("registered", "pending")
    assert (first.kind, first.ping.verdict, first.previous_status, first.agent.status) == (
        "ping", "first", "pending", "healthy",
    )  # fmt: skip
    assert (poor.ping.verdict, poor.previous_status, poor.agent.status) == (
        "poor",
        "healthy",
        "poor",
    )


async def test_garbage_in_the_bucket_and_on_due_is_counted_and_set_aside(bus, scheduler, agents):
    bucket = await bus.jetstream().key_value(subjects.BUCKET)
    await bucket.put("agent.broken", b"{not json")
    await bucket.put("due.broken", b"also not")
    await bucket.put("due.ghost", encode(Timer(seq=1, due_at=datetime.now(UTC))))
    await agents.add("a")
    await register(bus, "a")
    await until_history(bus, lambda h: len(h["a"]) >= 2)
    assert scheduler.stats().bad_messages >= 2


async def test_two_hosts_under_one_id_are_flagged_and_a_reboot_is_not(bus, scheduler, agents):
    boots = iter(["one", "one", "two", "two", "one"])
    await agents.add("a", lambda i, r: encode(report(i, r, boot_id=next(boots, "one"))))
    await register(bus, "a")
    history = await until_history(bus, lambda h: len(h["a"]) >= 5)
    assert [s.conflicting_boot_ids for s in history["a"][:5]] == [(), (), (), (), ("one", "two")]
    assert (await agent(bus, "a")).conflicting_boot_ids == ("one", "two")


async def test_two_containers_on_one_host_are_flagged_in_view_event_log_and_numbers(
    bus, scheduler, agents, capsys
):
    """They share the boot and the GPU, and answer in turn."""
    events: list[LiveEvent] = []

    async def hear(message) -> None:
        events.append(decode(message.data, LiveEvent))

    await bus.subscribe(subjects.EVENT_ALL, cb=hear)
    sessions = iter(["one", "two", "one"])
    await agents.add("a", lambda i, r: encode(report(i, r, session_id=next(sessions, "two"))))
    await register(bus, "a")
    await until_history(bus, lambda h: len(h["a"]) >= 3)
    view = await agent(bus, "a")
    assert set(view.conflicting_sessions) == {"one", "two"}
    assert view.conflicting_boot_ids == ()
    assert any(event.agent and event.agent.conflicting_sessions for event in events)
    fleet = await micro_services.ask(bus, subjects.FLEET, None, Fleet, who="scheduler")
    assert fleet.duplicate_ids == 1
    texts = [str(family) for family in fleet_families(fleet)]
    assert any("gpuping_duplicate_agent_ids" in text and "value=1" in text for text in texts)
    assert capsys.readouterr().out.count("duplicate_agent_id_detected") == 1


@pytest.mark.parametrize("how", ["ruined", "deleted"])
async def test_a_state_spoilt_by_hand_is_taken_up_from_history(bus, config, agents, how):
    await agents.add("a", uptime(0.0))
    async with running(config):
        await register(bus, "a")
        before = (await until_history(bus, lambda h: h["a"] and h["a"][-1].consecutive_poor == 2))[
            "a"
        ][-1]
    bucket = await bus.jetstream().key_value(subjects.BUCKET)
    await (bucket.put("state.a", b"{ruined") if how == "ruined" else bucket.delete("state.a"))
    async with running(config), asyncio.timeout(60):  # a scheduler that has just started
        while True:
            with suppress(BadMessageError):
                found = await read(bus, subjects.state_key("a"), AgentState)
                if found and found.value.ping_seq > before.ping_seq:
                    break
            await asyncio.sleep(0.1)
    assert found.value.ping_seq == before.ping_seq + 1
    assert found.value.consecutive_poor == before.consecutive_poor + 1


@pytest.mark.parametrize("key", ["state.a", "agent.a"])
async def test_a_spoilt_value_is_written_over_by_a_registration_and_a_ping(
    bus, config, agents, key
):
    """A spoilt key refused the agent's registration for ever.

    Over a spoilt state without a history the scheduler tried the same write every 10 ms, for ever,
    and could not be stopped.
    """
    await agents.add("a", uptime(1.0))
    bucket = await bus.jetstream().key_value(subjects.BUCKET)
    await bucket.put(key, b"{ruined")
    async with running(config):
        await register(bus, "a")
        async with asyncio.timeout(60):
            while True:
                with suppress(BadMessageError):
                    found = await read(bus, subjects.state_key("a"), AgentState)
                    if found:
                        break
                await asyncio.sleep(0.1)
    assert found.value.ping_seq == 1


async def test_without_grace_the_first_ping_comes_one_interval_after_registration_and_is_judged(
    bus, config, agents
):
    strict = replace(config, PING_FIRST_PING_GRACE_PERIOD=False)
    async with running(strict):
        await agents.add("a", uptime(0.5))
        reply = await register(bus, "a")
        assert reply.agent.next_ping_at == reply.agent.registered_at + timedelta(seconds=1.2)
        first = (await until_history(bus, lambda h: len(h["a"]) >= 1))["a"][0]
        assert (first.last.verdict, first.consecutive_poor) == ("poor", 1)
        window = first.last.pinged_at - reply.agent.registered_at
        assert first.last.window_seconds == pytest.approx(window.total_seconds(), abs=0.002)
        assert first.last.window_seconds >= 1.2


async def test_many_registrations_at_once_each_get_their_answer(bus, config):
    slow = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)
    async with running(slow) as one:
        names = [f"a{number:03d}" for number in range(300)]
        # Each registers twice at once. Only one of the two creates it, and neither may fail.
        replies = await asyncio.gather(*(register(bus, name) for name in names for _ in range(2)))
        assert sum(reply.created for reply in replies) == len(names)
        assert {reply.agent.agent_id for reply in replies} == set(names)
        assert len(one.directory) == len(names)


async def test_a_page_of_large_agents_fits_into_a_message(bus, config):
    slow = replace(config, PING_BASE_INTERVAL_MINUTES=10.0, PING_MAX_INTERVAL_HOURS=1.0)
    async with running(slow):
        for number in range(40):
            await register(bus, f"a{number:02d}", metadata={"note": "x" * 60_000})
        seen: list[str] = []
        cursor = None
        while len(seen) < 40:
            page = await micro_services.ask(
                bus, subjects.LIST, ListRequest(cursor=cursor), AgentPage, who="scheduler"
            )
            assert page.total == 40
            assert page.agents
            seen += [a.agent_id for a in page.agents]
            cursor = page.next_cursor
        assert cursor is None
        assert seen == sorted(set(seen))


async def test_a_registration_has_the_limits_of_rest_on_the_bus_too(bus, scheduler):
    large = encode(RegisterRequest(metadata={"note": "x" * 70_000}))
    with pytest.raises(RefusedError) as refused:
        await micro_services.ask_raw(bus, subjects.register("large"), large, who="the scheduler")
    assert refused.value.code == 413
    deep: dict = {}
    for _ in range(40):
        deep = {"deeper": deep}
    nested = encode(RegisterRequest(metadata=deep))
    with pytest.raises(RefusedError) as refused:
        await micro_services.ask_raw(bus, subjects.register("deep"), nested, who="the scheduler")
    assert refused.value.code == 400


async def test_a_list_goes_on_after_an_agent_that_no_message_carries(bus, config):
    """Versions of before registered metadata of any size that a message carries."""
    now = datetime.now(UTC)
    for agent_id, size in (("a", 10), ("b", 950_000), ("c", 10)):
        entry = AgentEntry(
            agent_id=agent_id,
            registered_at=now,
            enrolled_at=now,
            metadata={"note": "x" * size},
        )
        await bus.jetstream().publish(subjects.agent_key(agent_id), encode(entry))
    seen: list[str] = []
    cursor = None
    async with running(config):
        for _ in range(4):
            request = ListRequest(cursor=cursor)
            page = await micro_services.ask(
                bus, subjects.LIST, request, AgentPage, who="the scheduler"
            )
            seen += [agent.agent_id for agent in page.agents]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert seen == ["a", "b", "c"]
