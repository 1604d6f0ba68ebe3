"""A host's days: windows are divided at midnight, silence counts, and they are the statement's."""

from datetime import timedelta
from pathlib import Path

from bus.contract.explanations import ExplanationRequest
from bus.contract.messages import Enrolment, Incident, Seconds
from bus.contract.publishing import SILENT, HostDays, HostDaysRequest
from storage.answers import host_days
from storage.explanations import explain
from tests.storage_kept import NOW, Kept, kept_with
from tests.storage_states import state

MIDNIGHT = NOW - timedelta(days=3)  # NOW is a midnight, too


async def ask(kept: Kept, until=NOW, **changes) -> dict[str, HostDays]:
    request = HostDaysRequest(agent_ids=("a", "b", "nobody"), until=until, **changes)
    reply = await kept.store.read(lambda reader: host_days.host_days(reader, request))
    return {host.agent_id: host for host in reply.hosts}


async def test_a_window_across_midnight_is_divided(tmp_path: Path):
    at = MIDNIGHT + timedelta(hours=1)
    seconds = Seconds(up=7200.0, down=7200.0)  # 4 h: 3 h before midnight, 1 h after it
    kept = await kept_with(tmp_path, [state("a", 1, at, seconds, until=at)])
    (before, after) = (await ask(kept))["a"].days
    assert (before.up_seconds, before.lost_seconds) == (5400.0, 5400.0)
    assert (after.up_seconds, after.lost_seconds) == (1800.0, 1800.0)
    assert after.uptime_percent == 50.0
    await kept.store.close()


async def test_time_before_the_registration_is_left_out(tmp_path: Path):
    at = MIDNIGHT + timedelta(hours=1)
    told = Seconds(up=1800.0, unknown=1800.0)
    kept = await kept_with(tmp_path, [state("a", 1, at, told, until=at)])
    enrolled = {"a": at - timedelta(minutes=30)}
    (day,) = (await ask(kept, enrolled_since=enrolled))["a"].days
    assert (day.up_seconds, day.lost_seconds) == (1800.0, 0.0)
    await kept.store.close()


async def test_a_host_that_falls_silent_loses_its_time_and_has_an_incident(tmp_path: Path):
    quarter = timedelta(minutes=15)
    start = MIDNIGHT + timedelta(hours=22)
    up = Seconds(up=900.0)
    states = [state("a", 1, start, up, since=start - quarter)]
    for number in range(2, 14):
        states.append(state("a", number, start + number * quarter, None, since=start))
    states.append(state("b", 1, start, up, since=start - quarter))
    kept = await kept_with(tmp_path, states)
    found = await ask(kept)
    first, second = found["a"].days
    last_miss = start + 13 * quarter
    assert first.lost_seconds == (MIDNIGHT + timedelta(days=1) - start).total_seconds()
    assert second.lost_seconds == (last_miss - MIDNIGHT - timedelta(days=1)).total_seconds()
    (silence,) = found["a"].incidents
    assert (silence.state, silence.reason, silence.until) == ("missing", SILENT, None)
    assert silence.since == start + 2 * quarter
    assert found["b"].incidents == ()
    assert set(found) == {"a", "b"}
    await kept.store.close()


async def test_the_days_are_those_of_the_statement(tmp_path: Path):
    quarter = timedelta(minutes=15)
    states = []
    for number in range(1, 3 * 96 + 1):
        lost = 30.0 * (number % 7 == 0)
        states.append(
            state("a", number, MIDNIGHT + number * quarter, Seconds(up=900.0 - lost, down=lost))
        )
    kept = await kept_with(tmp_path, states)
    enrolments = (Enrolment(MIDNIGHT),)
    question = ExplanationRequest(month="2026-11", enrolments=enrolments)
    explained = await kept.store.read(
        lambda reader: explain.explanation(reader, "a", question, NOW, 99.0)
    )
    days = {day.day: day.uptime_percent for day in (await ask(kept))["a"].days}
    stated = {day.day: day.uptime_percent for day in explained.days if day.pings > 1}
    assert {day: days[day] for day in stated} == stated
    assert len(stated) == 3
    await kept.store.close()


async def test_gpus_that_fail_together_are_one_incident(tmp_path: Path):
    at = MIDNIGHT + timedelta(hours=12)
    begin = at - timedelta(minutes=10)
    incidents = tuple(
        Incident(
            gpu=f"GPU-{number}",
            state="down",
            reason="lost",
            since=begin + timedelta(seconds=number),
            until=at - timedelta(minutes=5),
        )
        for number in range(4)
    )
    seconds = Seconds(up=600.0, down=300.0)
    kept = await kept_with(tmp_path, [state("a", 1, at, seconds, incidents=incidents)])
    (one,) = (await ask(kept))["a"].incidents
    assert (one.gpus, one.state, one.reason, one.since) == (4, "down", "lost", begin)
    await kept.store.close()
