"""What a host is paid for, from the samples of agentd to statement, history, replay and verify.

An oracle of its own (whole_lives.py) says how the enrolled time divides. Every month of every life
is compared with it to the millisecond.
"""

import asyncio
import tempfile
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from bus.contract.messages import encode
from bus.contract.questions import HistoryRequest
from bus.contract.statements import FleetReplayRequest, Statement, StatementRequest
from bus.settings import load
from gpuping.verification import files
from gpuping.verification.records import Trusted
from gpuping.verification.verifier import Verifier
from storage.answers import history
from storage.engine.rows import Arrival
from storage.statements import build, bundle, replay
from storage.store.store import Reader, Store
from tests.integration.whole_lives import (
    MEMORY,
    STATES,
    Stretch,
    WholeLife,
    expected_ms,
    lived,
    milliseconds_of,
    months_of,
    ms,
    painted,
)
from tests.unit.host_lives import HOUR, Kind

THRESHOLD = 99.0
AWAITED_MS = 40 * 24 * HOUR  # after its end, a month is final
EVER_HOURS = 87_600.0
QUARTER = HOUR // 4
LONG = (QUARTER, 24 * HOUR)

# Looks are rare, so that a life is quick; what a look misses is measured elsewhere.
KINDS = (
    Kind("whole: hours", LONG, check=HOUR),
    Kind("whole: lost replies", LONG, check=HOUR, lost=0.5),
    Kind("whole: dead for days", (HOUR, 2 * HOUR), check=HOUR, lost=0.9, windows=40),
    Kind("whole: two schedulers", LONG, check=HOUR, schedulers=2),
    Kind("whole: our clock ahead", LONG, check=HOUR, step=3 * HOUR),
    Kind("whole: our clock behind", LONG, check=HOUR, step=-3 * HOUR),
    Kind("whole: outages", LONG, check=HOUR, outage=True),
    Kind("whole: maintenance", LONG, check=HOUR, booked=True),
    Kind("whole: a GPU replaced", LONG, check=HOUR, replaced=True),
    Kind("whole: a GPU forgotten and expected", LONG, check=HOUR, toggled=True, lost=0.1),
    Kind("whole: dead for months", (24 * HOUR, 24 * HOUR), check=HOUR, lost=0.9, windows=60),
    Kind("whole: minutes", (60_000, 60_000), check=20_000, lost=0.2),
)
LIVES = 3  # of each kind
MANY_LIVES = 150


@pytest.mark.parametrize("lost_share", [0.0, 0.15], ids=["all kept", "some lost"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_month_is_accounted_as_the_outcomes_divide_it(kind: Kind, lost_share: float) -> None:
    compare([lived(kind, seed, lost_share) for seed in range(LIVES)])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lost_share", [0.0, 0.15], ids=["all kept", "some lost"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_very_many_months_are_accounted_as_the_outcomes_divide_them(
    kind: Kind, lost_share: float
) -> None:
    compare([lived(kind, seed, lost_share) for seed in range(LIVES, LIVES + MANY_LIVES)])


def compare(lives: list[WholeLife]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        asyncio.run(_compare(Path(folder), [life for life in lives if life.kept]))


async def _compare(folder: Path, lives: list[WholeLife]) -> None:
    settings = load({}, GPUPING_DATA_DIR=str(folder), STORAGE_QUERY_TIMEOUT_SECONDS=120.0)
    store = Store(settings)
    newest = max(state.last.pinged_at for life in lives for state in life.states)
    now = newest + timedelta(seconds=1)
    await store.open(now)
    states = [state for life in lives for state in life.kept]
    states.sort(key=lambda state: state.last.pinged_at)
    batch = [Arrival(i, state.agent_id, encode(state)) for i, state in enumerate(states, 1)]
    await store.write(1, await store.prepare(batch))
    try:
        by_month: dict[str, dict[str, Statement]] = {}
        for life in lives:
            made = await store.read(partial(_compare_life, life=life, now=now, folder=folder))
            for month, statement in made.items():
                by_month.setdefault(month, {})[life.agent_id] = statement
        for month, statements in by_month.items():
            await store.read(partial(_compare_replay, month=month, made=statements, now=now))
    finally:
        await store.close()


def _compare_life(
    reader: Reader, life: WholeLife, now: datetime, folder: Path
) -> dict[str, Statement]:
    line = painted(life)
    where = f"{life.kind.name} {life.agent_id}"
    statements = {}
    for month, (begin, end) in months_of(line).items():
        request = StatementRequest(
            month=month,
            enrolments=tuple(life.enrolments),
            gpu_changes=life.gpu_changes,
            policy="livepeer",
        )
        made = build.statement(reader, life.agent_id, request, now, THRESHOLD)
        statements[month] = made
        of_month = painted(life, end + AWAITED_MS)
        _compare_month(made, of_month, (begin, end), where)
        _compare_gpus(made, life, of_month, (begin, end))
        text = bundle.bundle(reader, life.agent_id, request, now, THRESHOLD)
        _verify(text, folder, f"{where} {month}")
    if any(one.end - one.begin > AWAITED_MS for one in line):
        return statements  # a statement is final before such a window ends
    _compare_whole(statements, line, where)
    asked = HistoryRequest(hours=EVER_HOURS)
    summary = history.history(reader, life.agent_id, asked, now).summary
    whole = [sum(of_state) for of_state in zip(*map(_host, statements.values()), strict=True)]
    assert list(milliseconds_of(summary.seconds)) == (whole or [0] * 5), where
    unreported = sum(one.host.unreported_seconds * 1000 for one in statements.values())
    assert round(summary.unreported_seconds * 1000) == round(unreported), where
    return statements


def _host(statement: Statement) -> tuple[int, ...]:
    return milliseconds_of(statement.host.seconds)


def _compare_month(
    made: Statement, line: list[Stretch], month: tuple[int, int], where: str
) -> None:
    """The lengths of the month are exact; of each state, what windows at its edges leave open."""
    where = f"{where} {made.month}"
    least = [0] * 5
    most = [0] * 5
    accounted = unreported = lost = 0
    for one in line:
        length = one.within(*month)
        if length == 0:
            continue
        if one.row is not None:
            accounted += length
            is_whole = length == one.end - one.begin
            for index, spent in enumerate(one.row):
                least[index] += (
                    spent if is_whole else max(0, spent - (one.end - one.begin - length))
                )
                most[index] += spent if is_whole else min(spent, length)
        elif one.lost:
            lost += length
        else:
            unreported += length
    least[4] += lost
    most[4] += lost
    host = _host(made)
    assert round(made.host.unreported_seconds * 1000) == unreported, where
    assert sum(host) == accounted + lost, where
    for state, low, told, high in zip(STATES, least, host, most, strict=True):
        assert low - 1 <= told <= high + 1, (where, state, low, told, high)
    assert round(made.enrolled_seconds * 1000) == accounted + lost + unreported, where
    spans = sum(ms(span.until) - ms(span.since) for span in made.history_lost)
    assert spans == lost, where
    judged = sum(host[:4]) + unreported
    percent = 100.0 * (host[0] + host[1]) / judged if judged else None
    assert made.host.uptime_percent == percent, where
    for gpu in made.gpus:
        row = milliseconds_of(gpu.seconds)
        enrolled = round(gpu.enrolled_seconds * 1000)
        assert sum(row) + round(gpu.unreported_seconds * 1000) == enrolled, (where, gpu.uuid)
        assert enrolled <= accounted + lost + unreported, (where, gpu.uuid)


def _compare_gpus(
    made: Statement, life: WholeLife, line: list[Stretch], month: tuple[int, int]
) -> None:
    """A GPU is accounted for as long as it was expected, also in time that no window has."""
    where = f"{life.kind.name} {life.agent_id} {made.month}"
    told = {gpu.uuid: round(gpu.enrolled_seconds * 1000) for gpu in made.gpus}
    for uuid, told_ms in told.items():
        expected = 0
        for one in line:
            begin = max(one.begin, month[0])
            end = min(one.end, month[1])
            if begin < end and (one.row is None or uuid in one.gpus):
                expected += expected_ms(life, uuid, begin, end)
        assert abs(told_ms - expected) <= 1, (where, uuid, told_ms, expected)


def _compare_whole(statements: dict[str, Statement], line: list[Stretch], where: str) -> None:
    """Over all months each state is exact, of the host and of each GPU."""
    host = Counter[str]()
    gpus: dict[str, Counter[str]] = {}
    for statement in statements.values():
        host += Counter(dict(zip(STATES, _host(statement), strict=True)))
        for gpu in statement.gpus:
            row = dict(zip(STATES, milliseconds_of(gpu.seconds), strict=True))
            gpus[gpu.uuid] = gpus.get(gpu.uuid, Counter()) + Counter(row)
    expected = Counter[str]()
    of_gpus: dict[str, Counter[str]] = {}
    lost = 0
    for one in line:
        if one.row is not None:
            expected += Counter(dict(zip(STATES, one.row, strict=True)))
        elif one.lost:
            lost += one.end - one.begin
        for uuid, spent in one.gpus.items():
            row = dict(zip(STATES, spent, strict=True))
            of_gpus[uuid] = of_gpus.get(uuid, Counter()) + Counter(row)
    expected += Counter({"excused": lost})
    assert host == expected, where
    if lost or not all(one.gpus or one.row is None for one in line):
        return  # which GPUs were expected in lost time is not on the line
    for uuid in gpus.keys() | of_gpus.keys():
        assert gpus.get(uuid, Counter()) == of_gpus.get(uuid, Counter()), (where, uuid)


def _verify(text: str, folder: Path, where: str) -> None:
    path = folder / "bundle.json"
    path.write_text(text)
    verifier = Verifier(Trusted(None))
    for content in files.read(path):
        assert content.statement is not None
        verifier.add_statement(content.statement, list(content.outcomes))
    assert verifier.faults == [], where


def _compare_replay(reader: Reader, month: str, made: dict[str, Statement], now: datetime) -> None:
    request = FleetReplayRequest(month=month, policy="livepeer")
    replayed = replay.fleet(reader, request, now, THRESHOLD)
    by_agent = {one.agent_id: one for one in replayed.agents}
    for agent_id, statement in made.items():
        agent = by_agent.get(agent_id)
        if agent is None:
            assert statement.enrolled_seconds == 0, agent_id
            continue
        assert statement.replay is not None
        assert agent.uptime_percent == statement.replay.now.uptime_percent, agent_id
        assert agent.now_paid_percent == statement.replay.now.paid_percent, agent_id
        assert agent.then_paid_percent == statement.replay.then.paid_percent, agent_id
