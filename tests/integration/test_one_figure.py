"""Every answer about a period comes to the same figure, to the millisecond, and to the time that
was enrolled, for hosts that are healthy, dead, registered again, given other GPUs or of a broken
clock.
"""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from bus.client.recent_uptime import with_uptime
from bus.contract.dashboard import LONGER_HOURS
from bus.contract.durations import Durations, uptime_percent
from bus.contract.expected_gpus import ALWAYS
from bus.contract.exports import By, TableRequest
from bus.contract.fleet_map import NOT_JUDGED, FleetUptimesRequest, tenths
from bus.contract.messages import AgentEntry, AgentState, GpuChange, SummedSeconds, encode
from bus.contract.questions import (
    HistoryRequest,
    HistorySummary,
    OverviewRequest,
    Ping,
    UptimesRequest,
)
from bus.contract.statements import FleetReplayRequest, Statement, StatementRequest
from gateway.routes import byoc
from scheduler.fleet.directory import Directory
from scheduler.fleet.lists.views import agent_view
from scheduler.fleet.tracked import Tracked
from scheduler.ping.accounting.timestamps import milliseconds
from storage.answers import history, tables
from storage.engine.rows import Arrival
from storage.statements import build, replay
from storage.statements.windows import STATES
from storage.store.store import Reader, Store
from tests.storage_kept import patient
from tests.unit.measured_lives import KINDS, POLICY, Event, Life, events, live

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
THRESHOLD = 99.0
EVER_HOURS = 87_600.0

fleets = st.lists(
    st.tuples(st.sampled_from(KINDS), events, st.integers(-40_000, 20_000)),
    min_size=1,
    max_size=5,
)
STEADY = [Event(600, "answered", 0, 0, False)] * 120
LOST_BEFORE_EXCUSED = [
    *STEADY[:4],
    Event(600, "answered", 0, 0, True),
    Event(600, "excused", 0, 0, False),
]
# A miss that is lost is no answer that was lost.
LOST_MISS = [
    *STEADY[:3],
    Event(600, "missed", 0, 0, False),
    Event(600, "missed", 0, 0, True),
    Event(600, "missed", 0, 0, False),
    *STEADY[:9],
]
LOST = Event(600, "answered", 0, 0, True)
FIRST_LOST = [LOST, *STEADY[:7]]
# Half of the events are before the second enrolment.
LAST_LOST_OF_ENROLMENT = [*STEADY[:3], LOST, *STEADY[:4]]
LOST_AROUND_ENROLMENT = [*STEADY[:3], *3 * [LOST], *STEADY[:3]]
# Our clock is set back by ten hours, after an answer and after a miss.
BACK = Event(-600, "answered", 0, 0, False)
SET_BACK = [
    *STEADY[:3],
    *2 * [BACK],
    *STEADY[:4],
    Event(600, "missed", 0, 0, False),
    BACK,
    Event(60, "answered", 333, 0, False),
    Event(60, "answered", 0, 500, False),
]
MISSED_AFTER_SET_BACK = [*STEADY[:3], BACK, Event(700, "missed", 0, 0, False)]
LOST_FOR_DAYS = [*STEADY[:2], *6 * [LOST], *STEADY[:2]]


def lives_of(drawn: list) -> list[Life]:  # type: ignore[type-arg]
    """The lives of a fleet; each begins so many minutes after the first of October, or before."""
    lives = []
    for number, (kind, told, minutes) in enumerate(drawn):
        start = OCTOBER + timedelta(minutes=minutes, milliseconds=number)
        lives.append(live(f"host-{number}", kind, start, told))
    return lives


async def kept(folder: Path, lives: list[Life]) -> Store:
    store = Store(patient(folder))
    await store.open(OCTOBER)
    states = [one for life in lives for one in life.kept]
    states.sort(key=lambda one: one.last.pinged_at)
    batch = [Arrival(i, one.agent_id, encode(one)) for i, one in enumerate(states, 1)]
    await store.write(1, await store.prepare(batch))
    return store


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(fleets)
@example([("dead", STEADY, -7_000), ("healthy", STEADY, -7_000), ("replaced", STEADY, 3)])
@example([("re-enrolled", [*STEADY[:2], *LOST_MISS[2:6], *STEADY[:6]], 3)])
@example([("healthy", LOST_MISS, 3), ("dead", STEADY[:60], -16_000)])
@example([("healthy", LOST_BEFORE_EXCUSED, 3), ("re-enrolled", 2 * LOST_BEFORE_EXCUSED, 3)])
@example(
    [
        ("re-enrolled", LOST_AROUND_ENROLMENT, 3),
        ("re-enrolled", LAST_LOST_OF_ENROLMENT, 3),
        ("replaced", FIRST_LOST, 3),
    ]
)
@example(
    [
        ("healthy", LOST_FOR_DAYS, 42_400),
        ("replaced", SET_BACK, 42_000),
        ("re-enrolled", SET_BACK, 40_000),
        ("healthy", MISSED_AFTER_SET_BACK, 40_000),
    ]
)
@example([("re-enrolled", STEADY, -7_000), ("clock-broken", STEADY, -7_000)])
def test_every_answer_comes_to_one_figure(drawn: list):  # type: ignore[type-arg]
    lives = lives_of(drawn)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(Path(folder), lives))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(fleets)
def test_every_answer_of_many_fleets_comes_to_one_figure(drawn: list):  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(Path(folder), lives_of(drawn)))


async def _compare(folder: Path, lives: list[Life]) -> None:
    store = await kept(folder, lives)
    try:
        now = max(one.last.pinged_at for life in lives for one in life.kept)
        now += timedelta(seconds=1)
        await _compare_all(store, lives, now)
    finally:
        await store.close()


async def _compare_all(store: Store, lives: list[Life], now: datetime) -> None:
    """Asks one host at a time, because a question has a time limit.

    Questions take nearly all the time of an example, so what was answered is asked once.
    """
    whole_fleet = Durations()
    unreported_ms = 0
    statements: dict[str, dict[str, Statement]] = {}
    for life in lives:
        of_life = await store.read(partial(_statements, life=life, now=now))
        statements[life.agent_id] = of_life
        compare = partial(_compare_host, life=life, statements=list(of_life.values()), now=now)
        host, host_unreported_ms = await store.read(compare)
        whole_fleet += host
        unreported_ms += host_unreported_ms
    request = OverviewRequest(hours=EVER_HOURS)
    overview = await store.read(lambda reader: history.overview(reader, request, now))
    assert _durations(overview.seconds) == whole_fleet
    assert round(overview.unreported_seconds * 1000) == unreported_ms
    await store.read(partial(_compare_with_dashboard, lives=lives, now=now))
    for month in _months(lives, now):
        of_month = {agent_id: of_life.get(month) for agent_id, of_life in statements.items()}
        await store.read(partial(_compare_with_replay, of_month=of_month, month=month, now=now))


def _compare_host(
    reader: Reader,
    life: Life,
    statements: list[Statement],
    now: datetime,
) -> tuple[Durations, int]:
    """Returns the time that the statements of all months account for, and what they do not."""
    host = Durations()
    unreported_ms = 0
    for statement in statements:
        host += _durations(statement.host.seconds)
        unreported_ms += round(statement.host.unreported_seconds * 1000)
        _compare_gpus(life, statement)
    _compare_with_truth(life, statements)
    ever = history.history(reader, life.agent_id, HistoryRequest(hours=EVER_HOURS), now)
    _compare_with_history(reader, life, ever.summary, host, unreported_ms, now)
    _compare_with_lists_and_job_runners(reader, life, ever.pings, now)
    return host, unreported_ms


def _statements(reader: Reader, life: Life, now: datetime) -> dict[str, Statement]:
    """The statement of every month that the life touches, judged by the rules of Livepeer, too."""
    statements = {}
    for month in _months([life], now):
        request = StatementRequest(
            month=month,
            enrolments=tuple(life.enrolments),
            policy="livepeer",
        )
        made = build.statement(reader, life.agent_id, request, now, THRESHOLD)
        statements[month] = made
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
    summary: HistorySummary,
    host: Durations,
    unreported_ms: int,
    now: datetime,
) -> None:
    assert _durations(summary.seconds) == host
    assert round(summary.unreported_seconds * 1000) == unreported_ms
    request = UptimesRequest(agent_ids=(life.agent_id,), hours=EVER_HOURS)
    uptimes = history.uptimes(reader, request, now)
    assert uptimes.uptimes.get(life.agent_id) == summary.uptime_percent
    judged_ms = round(uptimes.judged_seconds.get(life.agent_id, 0.0) * 1000)
    assert judged_ms == host.judged + unreported_ms


def _compare_with_lists_and_job_runners(
    reader: Reader,
    life: Life,
    newest: tuple[Ping, ...],
    now: datetime,
) -> None:
    """What lists show of 24 hours is the sum of that history; `gpu-check` has its last window."""
    day = history.history(reader, life.agent_id, HistoryRequest(hours=24.0), now)
    uptimes = history.uptimes(reader, UptimesRequest(agent_ids=(life.agent_id,)), now)
    packed = history.fleet_uptimes(reader, FleetUptimesRequest(), now)
    of_map = dict(zip(packed.agent_ids, packed.uptimes, strict=True))
    assert of_map.get(life.agent_id, NOT_JUDGED) == tenths(day.summary.uptime_percent)
    judged_seconds = uptimes.judged_seconds.get(life.agent_id, 0.0)
    too_early = FleetUptimesRequest(judged_seconds=judged_seconds + 0.001)
    assert life.agent_id not in history.fleet_uptimes(reader, too_early, now).agent_ids
    agent = with_uptime(agent_view(_tracked(life), POLICY, now), uptimes)
    assert agent.uptime_24h_percent == day.summary.uptime_percent
    row = _durations(day.summary.seconds)
    unreported_ms = round(day.summary.unreported_seconds * 1000)
    if agent.uptime_24h_percent is None:
        assert row.judged + unreported_ms == 0
    else:
        assert agent.uptime_24h_seconds is not None
        assert round(agent.uptime_24h_seconds * 1000) == row.judged + unreported_ms
    answer = byoc.answer_about(agent)
    assert answer.last_ping_at == life.states[-1].last.pinged_at
    if life.kept[-3:] != life.states[-3:]:
        return  # some of the newest outcomes never reached history
    judged = _judged_last(newest)
    if judged is None:
        assert answer.uptime_percent is None
        return
    assert judged.seconds is not None
    window = _durations(judged.seconds)
    assert window.window == round((judged.window_seconds or 0.0) * 1000)
    assert answer.uptime_percent == 100.0 * window.good / window.judged


def _tracked(life: Life) -> Tracked:
    """What the scheduler knows of the agent after its last outcome."""
    directory = Directory(POLICY)
    entry = AgentEntry(
        agent_id=life.agent_id,
        registered_at=life.enrolments[0].since,
        enrolled_at=life.enrolments[-1].since,
        expected_gpus=tuple(life.gpus),
    )
    directory.apply_entry(life.agent_id, entry, 1)
    directory.apply_state(life.agent_id, life.states[-1], 2, _nanoseconds(life.states[-1]))
    tracked = directory.get(life.agent_id)
    assert tracked is not None
    return tracked


def _nanoseconds(state: AgentState) -> int:
    return milliseconds(state.last.pinged_at) * 1_000_000


def _judged_last(newest: tuple[Ping, ...]) -> Ping | None:
    """Returns the outcome whose uptime is shown: the last judged one, unless a miss followed it."""
    for ping in sorted(newest, key=_number, reverse=True):
        if ping.outcome == "missed":
            return None
        if ping.verdict in {"good", "poor"}:
            return ping
    return None


def _number(ping: Ping) -> int:
    return ping.ping_seq


def _compare_with_dashboard(reader: Reader, lives: list[Life], now: datetime) -> None:
    """The fleet's figures of a day, a week and a month are the sums of its hosts' histories."""
    request = OverviewRequest(hours=24.0, longer_hours=LONGER_HOURS)
    overview = history.overview(reader, request, now)
    shown = [(24.0, overview.seconds, overview.unreported_seconds, overview.uptime_percent)]
    for sums in overview.longer:
        shown.append((sums.hours, sums.seconds, sums.unreported_seconds, sums.uptime_percent))
    assert [hours for hours, *_ in shown] == [24.0, *LONGER_HOURS]
    for hours, seconds, unreported_seconds, percent in shown:
        fleet = Durations()
        unreported_ms = 0
        for life in lives:
            asked = HistoryRequest(hours=hours)
            summary = history.history(reader, life.agent_id, asked, now).summary
            fleet += _durations(summary.seconds)
            unreported_ms += round(summary.unreported_seconds * 1000)
        assert _durations(seconds) == fleet
        assert round(unreported_seconds * 1000) == unreported_ms
        assert percent == uptime_percent(fleet.good, fleet.judged + unreported_ms)
        for by in ("period", "day", "hour"):
            _compare_with_export(reader, hours, by, (fleet, unreported_ms), now)


def _compare_with_export(
    reader: Reader,
    hours: float,
    by: By,
    whole: tuple[Durations, int],
    now: datetime,
) -> None:
    """The rows of `gpuping export fleet` add up to the same, whatever a row is of."""
    query = tables.table(reader, TableRequest(table="fleet", hours=hours, by=by), now)
    (statement,) = reader.cursor.extract_statements(query.text)
    parameters = {name: query.parameters[name] for name in statement.named_parameters}
    columns = ", ".join(f"coalesce(sum({name}_seconds), 0)" for name in (*STATES, "unreported"))
    text = f"SELECT {columns} FROM ({query.text})"  # noqa: S608  # our own texts
    sums = reader.cursor.execute(text, parameters).fetchone()
    exported = [round(seconds * 1000) for seconds in sums or ()]
    fleet, unreported_ms = whole
    assert exported == [*astuple(fleet), unreported_ms]


def _compare_gpus(life: Life, statement: Statement) -> None:
    """A GPU that is expected all the time is accounted as long as its host."""
    for gpu in statement.gpus:
        seconds_ms = _durations(gpu.seconds).window
        enrolled_ms = round(gpu.enrolled_seconds * 1000)
        assert seconds_ms + round(gpu.unreported_seconds * 1000) == enrolled_ms
        assert gpu.enrolled_seconds <= statement.enrolled_seconds
        if life.gpus[gpu.uuid] is ALWAYS:
            assert gpu.enrolled_seconds == statement.enrolled_seconds


def _compare_with_replay(
    reader: Reader,
    of_month: dict[str, Statement | None],
    month: str,
    now: datetime,
) -> None:
    request = FleetReplayRequest(month=month, policy="livepeer")
    replayed = replay.fleet(reader, request, now, THRESHOLD)
    by_agent = {one.agent_id: one for one in replayed.agents}
    for agent_id, statement in of_month.items():
        agent = by_agent.get(agent_id)
        if agent is None:
            assert statement is None or statement.enrolled_seconds == 0
            continue
        assert statement is not None
        assert statement.replay is not None
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


def october(life: Life, *changes: GpuChange) -> Statement:
    """The statement of October, out of a history that has what is kept of the life."""

    async def statement(folder: Path) -> Statement:
        store = await kept(folder, [life])
        now = life.kept[-1].last.pinged_at + timedelta(seconds=1)
        request = StatementRequest(
            month="2026-10", enrolments=tuple(life.enrolments), gpu_changes=changes
        )
        try:
            return await store.read(
                lambda reader: build.statement(reader, "a", request, now, THRESHOLD)
            )
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(statement(Path(folder)))


def test_a_gpu_that_was_replaced_is_accounted_until_then_and_the_new_one_from_then_on():
    life = live("a", "replaced", OCTOBER + timedelta(hours=1), STEADY[:40])
    made = october(life)
    enrolled = {gpu.uuid: round(gpu.enrolled_seconds * 1000) for gpu in made.gpus}
    host_ms = round(made.enrolled_seconds * 1000)
    replaced_at = life.gpus["GPU-old"][0].end
    began = milliseconds(life.enrolments[0].since)
    assert enrolled["GPU-old"] == replaced_at - began
    assert enrolled["GPU-old"] + enrolled["GPU-new"] == host_ms
    assert enrolled["GPU-other"] == host_ms


def test_a_gpu_that_is_forgotten_while_its_host_is_dead_is_accounted_until_then():
    """No window says so; another one is unreported from when it is expected on."""
    began = OCTOBER + timedelta(hours=1)
    life = live("a", "dead", began, STEADY[:40])
    at = began + timedelta(days=12)
    changes = []
    for uuid, expected in (("GPU-other", False), ("GPU-new", True)):
        change = GpuChange(uuid=uuid, expected=expected, since=at, author="ada", at=at)
        changes.append(change)
    made = october(life, *changes)
    enrolled = {gpu.uuid: gpu.enrolled_seconds for gpu in made.gpus}
    assert enrolled["GPU-old"] == made.enrolled_seconds
    assert enrolled["GPU-other"] == 12 * 86_400
    assert enrolled["GPU-new"] == pytest.approx(made.enrolled_seconds - 12 * 86_400, abs=0.001)
    (new,) = [gpu for gpu in made.gpus if gpu.uuid == "GPU-new"]
    assert new.unreported_seconds == new.enrolled_seconds
    assert new.uptime_percent == 0.0


def test_lost_time_is_excused_and_listed_and_costs_the_host_nothing():
    told = [*STEADY[:3], Event(600, "answered", 0, 0, True), *STEADY[:9]]
    life = live("a", "healthy", OCTOBER + timedelta(hours=1), told)
    assert len(life.kept) == len(life.states) - 1
    made = october(life)
    (lost,) = made.history_lost
    (gone,) = [one for one in life.states if one not in life.kept]
    assert (lost.since, lost.until) == (gone.last.since, gone.last.pinged_at)
    assert made.host.uptime_percent == 100.0
    assert made.host.unreported_seconds == 0


def test_a_miss_that_is_lost_excuses_nothing():
    """The window after it still begins at the last answer, so nothing was reported meanwhile."""
    told = [*STEADY[:3], *LOST_MISS[3:6]]
    life = live("a", "healthy", OCTOBER + timedelta(hours=1), told)
    assert len(life.kept) == len(life.states) - 1
    made = october(life)
    assert made.history_lost == ()
    assert made.host.unreported_seconds == pytest.approx(3 * 36_000, abs=1)
    assert made.host.uptime_percent == pytest.approx(50.0, abs=0.01)


def test_an_answer_that_is_lost_before_an_excused_ping_is_excused_too():
    """The excused ping's window begins at the lost answer, which proves that there was one."""
    life = live("a", "healthy", OCTOBER + timedelta(hours=1), LOST_BEFORE_EXCUSED)
    made = october(life)
    (lost,) = made.history_lost
    assert (lost.since, lost.until) == (life.states[3].last.pinged_at, life.states[5].last.since)
    assert made.host.seconds.excused == (lost.until - lost.since).total_seconds()
