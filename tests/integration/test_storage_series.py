"""Buckets of an agent's outcomes for charts, and what changed in the fleet."""

from datetime import timedelta
from pathlib import Path

import pytest

from bus.contract.messages import Incident, Seconds
from bus.contract.questions import HistoryRequest, OverviewRequest
from bus.contract.series import SeriesReply, SeriesRequest
from storage.answers import history, series
from tests.storage_kept import NOW, Kept, kept_with
from tests.storage_states import GPU, gpu, state


async def ask(kept: Kept, **asked) -> SeriesReply:
    request = SeriesRequest(**asked)
    return await kept.store.read(lambda reader: series.series(reader, "a", request))


@pytest.mark.parametrize("interval_minutes", [15, 1])
async def test_a_month_has_every_ping_in_its_buckets(tmp_path: Path, interval_minutes: int):
    begin = NOW - timedelta(days=31)
    count = 31 * 24 * 60 // interval_minutes
    step = timedelta(minutes=interval_minutes)
    whole = Seconds(up=step.total_seconds())
    half = Seconds(up=step.total_seconds() / 2, down=step.total_seconds() / 2)
    states = []
    for number in range(1, count + 1):
        seconds = half if number % 100 == 0 else whole
        states.append(state("a", number, begin + number * step, seconds))
    kept = await kept_with(tmp_path, states)
    until = NOW + timedelta(seconds=1)
    reply = await ask(kept, since=begin, until=until, points=400)
    asked = HistoryRequest(hours=31 * 24 + 1, limit=1)
    page = await kept.store.read(lambda reader: history.history(reader, "a", asked, until))
    assert reply.pings == count == page.summary.pings
    assert reply.seconds == page.summary.seconds
    assert reply.uptime_percent == page.summary.uptime_percent
    assert 395 <= len(reply.buckets) <= 400
    assert sum(bucket.pings for bucket in reply.buckets) == count
    assert min(bucket.min_uptime_percent or 0 for bucket in reply.buckets) == 50.0
    for before, after in zip(reply.buckets, reply.buckets[1:], strict=False):
        assert before.until == after.since  # whole: no gap where there was none
    await kept.store.close()


async def test_time_without_a_report_leaves_a_gap(tmp_path: Path):
    step = timedelta(minutes=15)
    quarter = Seconds(up=900.0)
    begin = NOW - timedelta(hours=10)
    early = [state("a", number, begin + number * step, quarter) for number in (1, 2, 3)]
    late = [state("a", number, begin + (number + 8) * step, quarter) for number in (4, 5)]
    kept = await kept_with(tmp_path, early + late)
    reply = await ask(kept, since=begin, until=NOW)
    gaps = [
        after.since - before.until
        for before, after in zip(reply.buckets, reply.buckets[1:], strict=False)
    ]
    assert gaps == [timedelta(0), timedelta(0), 8 * step, timedelta(0)]
    await kept.store.close()


async def test_what_changed_is_told_with_what_was_before(tmp_path: Path):
    step = timedelta(minutes=15)
    begin = NOW - timedelta(hours=5)
    verdicts = ["first", "good", "good", "poor", "poor", "good"]
    states = [
        state("a", number, begin + number * step, Seconds(up=900.0), verdict=verdict)
        for number, verdict in enumerate(verdicts, 1)
    ]
    kept = await kept_with(tmp_path, states)
    asked = OverviewRequest(recent=0, changes=10, longer_hours=(168.0,))
    reply = await kept.store.read(lambda reader: history.overview(reader, asked, NOW))
    told = [(change.ping.ping_seq, change.previous) for change in reply.changes]
    assert told == [(6, "poor"), (4, "good"), (1, None)]
    assert [sums.hours for sums in reply.longer] == [168.0]
    assert reply.longer[0].seconds == reply.seconds
    await kept.store.close()


async def test_a_trouble_is_told_once_with_its_gpu_its_end_and_how_often_it_came(tmp_path: Path):
    """Every report repeats an incident that goes on, and a host with a bad contact has many."""
    step = timedelta(minutes=15)
    begin = NOW - timedelta(hours=5)
    bad = Seconds(up=600.0, down=300.0)
    states = []
    for number in range(1, 11):
        at = begin + number * step
        lost_at = at - timedelta(minutes=10)
        ended = Incident(
            gpu=GPU,
            state="down",
            reason="lost",
            since=lost_at,
            until=lost_at + timedelta(minutes=5),
        )
        still = Incident(gpu=None, state="degraded", reason="thermal", since=begin)
        ended_since = NOW - timedelta(hours=26)  # before the period, and over before it as well
        old = Incident(
            gpu=GPU, state="down", reason="ecc", since=ended_since, until=NOW - timedelta(hours=25)
        )
        gpus = (gpu(bad, index=5),)
        states.append(state("a", number, at, bad, gpus=gpus, incidents=(still, ended, old)))
    kept = await kept_with(tmp_path, states)
    asked = OverviewRequest(recent=0, troubles=10)
    reply = await kept.store.read(lambda reader: history.overview(reader, asked, NOW))
    found = [(one.agent_id, one.index, one.state, one.reason, one.times) for one in reply.troubles]
    assert found == [("a", 5, "down", "lost", 10), ("a", None, "degraded", "thermal", 1)]
    lost, heat = reply.troubles
    last = begin + 10 * step
    assert (lost.since, lost.until) == (
        last - timedelta(minutes=10),
        last - timedelta(minutes=5),
    )
    assert (heat.since, heat.until, heat.told_at) == (begin, None, last)
    await kept.store.close()
