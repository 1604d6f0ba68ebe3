"""Every answer about a period comes to the same figure, to the millisecond, and to the time that
was enrolled, for hosts that are healthy, dead, registered again, given other GPUs or of a broken
clock.
"""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bus.contract.durations import Durations
from bus.contract.messages import SummedSeconds, encode
from bus.contract.questions import HistoryRequest, OverviewRequest, UptimesRequest
from bus.contract.statements import FleetReplayRequest, Statement, StatementRequest
from bus.settings import load
from scheduler.ping.timestamps import milliseconds
from storage.answers import history
from storage.engine.rows import Arrival
from storage.statements import build, replay
from storage.store.store import Reader, Store
from tests.unit.measured_lives import KINDS, Event, Life, events, live

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
THRESHOLD = 99.0
EVER_HOURS = 87_600.0

fleets = st.lists(
    st.tuples(st.sampled_from(KINDS), events, st.integers(-40_000, 20_000)),
    min_size=1,
    max_size=5,
)
STEADY = [Event(600, "answered", 0, 0, False)] * 120


def lives_of(drawn: list) -> list[Life]:  # type: ignore[type-arg]
    """The lives of a fleet; each begins so many minutes after the first of October, or before."""
    lives = []
    for number, (kind, told, minutes) in enumerate(drawn):
        start = OCTOBER + timedelta(minutes=minutes, milliseconds=number)
        lives.append(live(f"host-{number}", kind, start, told))
    return lives


async def kept(folder: Path, lives: list[Life]) -> Store:
    store = Store(load({}, GPUPING_DATA_DIR=str(folder)))
    await store.open(OCTOBER)
    states = [one for life in lives for one in life.kept]
    states.sort(key=lambda one: one.last.pinged_at)
    batch = [Arrival(i, one.agent_id, encode(one)) for i, one in enumerate(states, 1)]
    await store.write(1, await store.prepare(batch))
    return store


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(fleets)
@example([("dead", STEADY, -7_000), ("healthy", STEADY, -7_000), ("replaced", STEADY, 3)])
@example([("re-enrolled", STEADY, -7_000), ("clock-broken", STEADY, -7_000)])
def test_every_answer_comes_to_one_figure(drawn: list):  # type: ignore[type-arg]
    lives = lives_of(drawn)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(Path(folder), lives))


async def _compare(folder: Path, lives: list[Life]) -> None:
    store = await kept(folder, lives)
    try:
        now = max(one.last.pinged_at for life in lives for one in life.kept)
        now += timedelta(seconds=1)
        await store.read(lambda reader: _compare_all(reader, lives, now))
    finally:
        await store.close()


def _compare_all(reader: Reader, lives: list[Life], now: datetime) -> None:
    whole_fleet = Durations()
    unreported_ms = 0
    for life in lives:
        statements = _statements(reader, life, now)
        host = Durations()
        host_unreported_ms = 0
        for statement in statements:
            host += _durations(statement.host.seconds)
            host_unreported_ms += round(statement.host.unreported_seconds * 1000)
            _compare_gpus(life, statement)
        _compare_with_truth(life, statements)
        _compare_with_history(reader, life, host, host_unreported_ms, now)
        whole_fleet += host
        unreported_ms += host_unreported_ms
    overview = history.overview(reader, OverviewRequest(hours=EVER_HOURS), now)
    assert _durations(overview.seconds) == whole_fleet
    assert round(overview.unreported_seconds * 1000) == unreported_ms
    for month in _months(lives, now):
        _compare_with_replay(reader, lives, month, now)


def _statements(reader: Reader, life: Life, now: datetime) -> list[Statement]:
    """The statement of every month that the life touches, judged by the rules of Livepeer, too."""
    statements = []
    for month in _months([life], now):
        request = StatementRequest(
            month=month,
            enrolments=tuple(life.enrolments),
            policy="livepeer",
        )
        statements.append(build.statement(reader, life.agent_id, request, now, THRESHOLD))
    return statements


def _months(lives: list[Life], now: datetime) -> list[str]:
    first = min(life.enrolments[0].since for life in lives)
    months = []
    at = first.replace(day=1)
    while at <= now:
        months.append(f"{at:%Y-%m}")
        at = (at.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0)
    return months


def _compare_with_truth(life: Life, statements: list[Statement]) -> None:
    """All months together account for the enrolled time up to the last ping that was asked."""
    enrolled_ms = 0
    for enrolment in life.enrolments:
        asked_until = life.asked_until(enrolment)
        enrolled_ms += milliseconds(asked_until) - milliseconds(enrolment.since)
    accounted_ms = 0
    for statement in statements:
        host_ms = round(statement.enrolled_seconds * 1000)
        seconds_ms = _durations(statement.host.seconds).window
        assert seconds_ms + round(statement.host.unreported_seconds * 1000) == host_ms
        accounted_ms += host_ms
    assert accounted_ms == enrolled_ms


def _compare_with_history(
    reader: Reader,
    life: Life,
    host: Durations,
    unreported_ms: int,
    now: datetime,
) -> None:
    page = history.history(reader, life.agent_id, HistoryRequest(hours=EVER_HOURS), now)
    summary = page.summary
    assert _durations(summary.seconds) == host
    assert round(summary.unreported_seconds * 1000) == unreported_ms
    # Job runners are told the uptime of the last judged ping.
    assert page.pings[0].uptime_percent == life.kept[-1].last.uptime_percent
    request = UptimesRequest(agent_ids=(life.agent_id,), hours=EVER_HOURS)
    uptimes = history.uptimes(reader, request, now)
    assert uptimes.uptimes.get(life.agent_id) == summary.uptime_percent
    judged_ms = round(uptimes.judged_seconds.get(life.agent_id, 0.0) * 1000)
    assert judged_ms == host.judged + unreported_ms


def _compare_gpus(life: Life, statement: Statement) -> None:
    """A GPU that is expected all the time is accounted as long as its host."""
    for gpu in statement.gpus:
        seconds_ms = _durations(gpu.seconds).window
        enrolled_ms = round(gpu.enrolled_seconds * 1000)
        assert seconds_ms + round(gpu.unreported_seconds * 1000) == enrolled_ms
        assert gpu.enrolled_seconds <= statement.enrolled_seconds


def _compare_with_replay(reader: Reader, lives: list[Life], month: str, now: datetime) -> None:
    request = FleetReplayRequest(month=month, policy="livepeer")
    replayed = replay.fleet(reader, request, now, THRESHOLD)
    by_agent = {one.agent_id: one for one in replayed.agents}
    for life in lives:
        statement_request = StatementRequest(
            month=month,
            enrolments=tuple(life.enrolments),
            policy="livepeer",
        )
        statement = build.statement(reader, life.agent_id, statement_request, now, THRESHOLD)
        assert statement.replay is not None
        agent = by_agent.get(life.agent_id)
        if agent is None:
            assert statement.enrolled_seconds == 0
            continue
        assert agent.uptime_percent == statement.replay.now.uptime_percent
        assert agent.now_paid_percent == statement.replay.now.paid_percent
        assert agent.then_paid_percent == statement.replay.then.paid_percent


def _durations(seconds: SummedSeconds) -> Durations:
    return Durations(
        up=round(seconds.up * 1000),
        degraded=round(seconds.degraded * 1000),
        down=round(seconds.down * 1000),
        unknown=round(seconds.unknown * 1000),
        excused=round(seconds.excused * 1000),
    )


def test_a_gpu_that_was_replaced_is_accounted_until_then_and_the_new_one_from_then_on():
    life = live("a", "replaced", OCTOBER + timedelta(hours=1), STEADY[:40])

    async def statement(folder: Path) -> Statement:
        store = await kept(folder, [life])
        now = life.kept[-1].last.pinged_at + timedelta(seconds=1)
        request = StatementRequest(month="2026-10", enrolments=tuple(life.enrolments))
        try:
            return await store.read(
                lambda reader: build.statement(reader, "a", request, now, THRESHOLD)
            )
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(statement(Path(folder)))
    enrolled = {gpu.uuid: round(gpu.enrolled_seconds * 1000) for gpu in made.gpus}
    host_ms = round(made.enrolled_seconds * 1000)
    replaced_at = life.gpus["GPU-old"].end
    began = milliseconds(life.enrolments[0].since)
    assert enrolled["GPU-old"] == replaced_at - began
    assert enrolled["GPU-old"] + enrolled["GPU-new"] == host_ms
    assert enrolled["GPU-other"] == host_ms


def test_lost_time_is_excused_and_listed_and_costs_the_host_nothing():
    told = [*STEADY[:3], Event(600, "answered", 0, 0, True), *STEADY[:9]]
    life = live("a", "healthy", OCTOBER + timedelta(hours=1), told)
    assert len(life.kept) == len(life.states) - 1

    async def statement(folder: Path) -> Statement:
        store = await kept(folder, [life])
        now = life.kept[-1].last.pinged_at + timedelta(seconds=1)
        request = StatementRequest(month="2026-10", enrolments=tuple(life.enrolments))
        try:
            return await store.read(
                lambda reader: build.statement(reader, "a", request, now, THRESHOLD)
            )
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(statement(Path(folder)))
    (lost,) = made.history_lost
    (gone,) = [one for one in life.states if one not in life.kept]
    assert (lost.since, lost.until) == (gone.last.since, gone.last.pinged_at)
    assert made.host.uptime_percent == 100.0
    assert made.host.unreported_seconds == 0
