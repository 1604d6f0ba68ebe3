"""Why a month is what it is: causes, days and timelines that add up to the statement."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus.contract.explanations import Explanation, ExplanationRequest, Timeline, TimelineRequest
from bus.contract.messages import AgentState, GpuReport, GpuTime, Incident, Seconds, Span
from bus.contract.statements import Statement, StatementRequest
from bus.settings import load
from storage.explanations import explain, timeline
from storage.statements import build
from tests.storage_kept import Kept
from tests.storage_states import state

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 3, tzinfo=UTC)
UUIDS = [f"GPU-{number:08d}-0000-0000-0000-000000000000" for number in range(8)]


def month_of(interval: timedelta) -> list[AgentState]:
    """An 8-GPU host: GPU 3 is lost for 10 s in each 50th window, two hours go unanswered, GPU 5
    hangs over a day's end, and one window has down time that no incident explains.
    """
    length = interval.total_seconds()
    count = (NOVEMBER - OCTOBER) // interval + 2
    silent = {number for number in range(1, count) if 500 <= number * length / 60 < 620}
    states = []
    since = OCTOBER - interval
    for number in range(count):
        at = OCTOBER + number * interval
        if number in silent:
            states.append(state("a", number + 1, at, None, since=since))
            continue
        whole = (at - since).total_seconds()
        lost: dict[int, Seconds] = {}
        incidents: tuple[Incident, ...] = ()
        if whole > length:
            lost = {gpu: Seconds(up=length, unknown=whole - length) for gpu in range(8)}
            gone = Incident(state="unknown", reason="not-running", since=since, until=at - interval)
            incidents = (gone,)
        elif number % 50 == 0:
            lost = {3: Seconds(up=whole - 10, down=10)}
            begins = at - timedelta(seconds=30)
            ends = begins + timedelta(seconds=10)
            incidents = (
                Incident(gpu=UUIDS[3], state="down", reason="lost", since=begins, until=ends),
            )
        elif at == OCTOBER + timedelta(days=9):
            lost = {5: Seconds(down=whole)}
            incidents = (Incident(gpu=UUIDS[5], state="down", reason="hung", since=since),)
        elif at == OCTOBER + timedelta(days=9) + interval:
            lost = {5: Seconds(up=whole - 20, down=20)}
            incidents = (
                Incident(
                    gpu=UUIDS[5],
                    state="down",
                    reason="hung",
                    since=since - interval,
                    until=since + timedelta(seconds=20),
                ),
            )
        elif at == OCTOBER + timedelta(days=20):
            lost = {6: Seconds(up=whole - 7.5, down=7.5)}
        elif at == OCTOBER + timedelta(days=25) + interval:
            lost = {2: Seconds(up=whole - 20.005, down=20.005)}
            incidents = tuple(
                Incident(
                    gpu=UUIDS[2],
                    state="down",
                    reason="lost",
                    since=at - timedelta(seconds=10 * n + 5),
                    until=at - timedelta(seconds=10 * n),
                )
                for n in (4, 3, 2, 1)
            )
        healthy = Seconds(up=whole)
        gpus = tuple(
            GpuReport(
                uuid=uuid,
                index=index,
                name="NVIDIA H100",
                state="up",
                seconds=lost.get(index, healthy),
            )
            for index, uuid in enumerate(UUIDS)
        )
        host = next(iter(lost.values()), healthy)
        one = state(
            "a",
            number + 1,
            at,
            host,
            gpus=gpus,
            incidents=incidents,
            since=since,
            window_seconds=whole,
        )
        if lost:
            times = tuple(GpuTime(gpu.uuid, gpu.seconds) for gpu in gpus)
            one = replace(one, last=replace(one.last, gpus=times))
        states.append(one)
        since = at
    return states


class World:
    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    async def statement(self) -> Statement:
        request = StatementRequest(month="2026-10")
        return await self.kept.store.read(
            lambda reader: build.statement(reader, "a", request, NOW, 99.0)
        )

    async def explanation(self) -> Explanation:
        request = ExplanationRequest(month="2026-10")
        return await self.kept.store.read(
            lambda reader: explain.explanation(reader, "a", request, NOW, 99.0)
        )

    async def timeline(self, since: datetime, until: datetime, points: int = 400) -> Timeline:
        request = TimelineRequest(since=since, until=until, points=points)
        return await self.kept.store.read(lambda reader: timeline.timeline(reader, "a", request))


MINUTES = [15, pytest.param(1, marks=pytest.mark.slow)]


@pytest.fixture(params=MINUTES)
async def world(tmp_path: Path, request: pytest.FixtureRequest):
    # What is tested is what the answers say. A busy machine takes more than the usual 10 s for
    # the 44,640 pings of a month of minutes.
    settings = load({}, GPUPING_DATA_DIR=str(tmp_path), STORAGE_QUERY_TIMEOUT_SECONDS=120.0)
    kept = Kept(settings)
    await kept.fill(month_of(timedelta(minutes=request.param)))
    yield World(kept)
    await kept.store.close()


async def test_what_is_lost_by_rounding_is_no_cause_of_its_own(world: World):
    """Four incidents of a window, each rounded to the millisecond, explain 20.000 of 20.005 s."""
    explained = await world.explanation()
    of_gpu = [cause for cause in explained.causes if cause.gpu == UUIDS[2]]
    assert [(cause.reason, cause.losses, cause.seconds) for cause in of_gpu] == [
        ("lost", 4, 20.005)
    ]


async def test_causes_and_days_add_up_to_the_statement(world: World):
    stated = await world.statement()
    explained = await world.explanation()
    assert explained.host == stated.host
    assert explained.gpus == stated.gpus
    lost = stated.host.seconds.down + stated.host.seconds.unknown + stated.host.unreported_seconds
    assert lost > 0
    assert round(sum(cause.seconds for cause in explained.causes), 6) == round(lost, 6)
    if explained.losses_total == len(explained.losses):
        assert round(sum(loss.seconds for loss in explained.losses), 6) == round(lost, 6)
    points = sum(cause.points for cause in explained.causes)
    assert stated.host.uptime_percent == pytest.approx(100 - points, abs=1e-9)
    for name in ("up", "degraded", "down", "unknown", "excused"):
        by_day = sum(getattr(day.seconds, name) for day in explained.days)
        assert round(by_day, 3) == getattr(stated.host.seconds, name)
    assert len(explained.days) == 31
    assert sum(day.pings for day in explained.days) == stated.pings


async def test_each_loss_is_charged_to_its_gpu_and_reason(world: World):
    explained = await world.explanation()
    by_charge = {(cause.index, cause.reason): cause for cause in explained.causes}
    assert by_charge[3, "lost"].state == "down"
    assert by_charge[3, "lost"].seconds == 10.0 * by_charge[3, "lost"].losses
    hung = [loss for loss in explained.losses if loss.reason == "hung"]
    assert len(hung) == 1  # two reports tell of it, and it is one incident
    assert hung[0].index == 5
    assert hung[0].until == OCTOBER + timedelta(days=9, seconds=20)
    if explained.pings == 2976:
        assert by_charge[6, None].seconds == 7.5
    away = by_charge[None, "not-running"]
    assert away.state == "unknown"
    assert timedelta(hours=1.9) < timedelta(seconds=away.seconds) < timedelta(hours=2.1)


async def test_a_month_is_drawn_whole(world: World):
    drawn = await world.timeline(OCTOBER, NOVEMBER)
    assert drawn.pings_total in {2976, 44_640}
    assert [row.index for row in drawn.rows] == [None, *range(8)]
    explained = await world.explanation()
    host = drawn.rows[0]
    for name in ("up", "down", "unknown"):
        total = sum(getattr(stretch, name) for stretch in host.stretches)
        assert total == pytest.approx(getattr(explained.host.seconds, name), abs=1e-6)
    reached = 0.0
    for stretch in host.stretches:
        assert stretch.begin_seconds == pytest.approx(reached)
        reached = stretch.end_seconds
    assert reached == (NOVEMBER - OCTOBER).total_seconds()
    assert max(len(row.stretches) for row in drawn.rows) <= 2 * 400


async def test_a_zoom_shows_an_incident_to_the_second_and_every_ping(world: World):
    hung_at = OCTOBER + timedelta(days=9)
    drawn = await world.timeline(hung_at - timedelta(minutes=5), hung_at + timedelta(minutes=5))
    gpu = drawn.rows[6]
    assert gpu.index == 5
    ended = [one for one in gpu.stretches if one.down and one.end_seconds < 600]
    assert ended[-1].end_seconds == 320.0
    assert ended[-1].reasons == ("hung",)
    assert len(drawn.pings) == drawn.pings_total > 0


async def test_a_timeline_says_why_time_was_excused_or_unknown(tmp_path: Path):
    """Also where no incident says it, and the ping itself was good."""
    booked = Span(OCTOBER + timedelta(seconds=60), OCTOBER + timedelta(seconds=120))
    told = [
        (Seconds(up=840.0, excused=60.0), {"excused": (booked,)}),
        (Seconds(up=840.0, excused=60.0), {"remarks": ("stood_still",)}),
        (Seconds(up=840.0, unknown=60.0), {"remarks": ("time_missing",)}),
        (Seconds(up=900.0), {"remarks": ("by_http",)}),
    ]
    states = []
    for number, (seconds, noted) in enumerate(told, 1):
        since = OCTOBER + timedelta(minutes=15 * (number - 1))
        at = since + timedelta(minutes=15)
        states.append(state("a", number, at, seconds, since=since, **noted))
    kept = Kept(load({}, GPUPING_DATA_DIR=str(tmp_path)))
    await kept.fill(states)
    drawn = await World(kept).timeline(OCTOBER, OCTOBER + timedelta(hours=1), points=10_000)
    await kept.store.close()
    for row in drawn.rows:
        reasons = [stretch.reasons for stretch in row.stretches]
        assert reasons == [("maintenance",), ("stood_still",), ("time_missing",), ()]
