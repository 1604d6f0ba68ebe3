"""Ingest and answers of the real service on a real server, with a real DuckDB file."""

from datetime import datetime, timedelta

from bus.clock import utc_now
from bus.contract import subjects
from bus.contract.messages import Incident, Seconds, encode
from bus.contract.questions import (
    HistoryReply,
    HistoryRequest,
    OverviewReply,
    OverviewRequest,
    UptimesReply,
    UptimesRequest,
    ping_of,
)
from bus.settings import Settings
from bus.transport import jetstream_api, layout, micro_services
from bus.transport.connection import Client
from storage import service
from storage.stream.resume import REWIND
from tests.storage_states import START, caught_up, followed, gpu, publish, series, state


async def history(client: Client, agent_id: str, **asked) -> HistoryReply:
    request = HistoryRequest(**({"hours": 87_600.0} | asked))
    return await micro_services.ask(
        client, subjects.history(agent_id), request, HistoryReply, who="storage"
    )


async def test_history_shows_each_outcome_as_it_was(bus: Client, base_settings: Settings):
    now = utc_now()
    bad = Seconds(up=600.0, degraded=100.5, down=150.25, unknown=49.25, excused=0.0)
    down = Incident(
        gpu="GPU-1", state="down", reason="lost", since=now - timedelta(seconds=150), until=None
    )
    gpus = (
        gpu(bad, state="down", reasons=("lost", "xid:79")),
        gpu(Seconds(up=900.0), uuid="GPU-2", index=None, name=""),
    )
    states = [
        state("a", 1, now - timedelta(seconds=2000), Seconds(), verdict="first"),
        state("a", 2, now - timedelta(seconds=1100)),
        state(
            "a", 3, now - timedelta(seconds=200), bad, gpus=gpus, incidents=(down,), verdict="poor"
        ),
        state("a", 4, now - timedelta(seconds=100), None),
        state(
            "a",
            5,
            now - timedelta(seconds=50),
            None,
            outcome="excused",
            verdict="excused",
            reason="bus",
        ),
    ]
    async with service.running(base_settings):
        await publish(bus, states)
        await caught_up(bus, 5)
        reply = await history(bus, "a")
    assert list(reply.pings) == [ping_of(one) for one in reversed(states)]
    assert reply.summary.pings == 5
    assert (reply.summary.answered, reply.summary.missed, reply.summary.excused) == (3, 1, 1)
    assert reply.summary.uptime_percent == 100 * (900 + 700.5) / 1800
    assert reply.summary.missing_seqs == 0


async def test_a_row_is_there_and_unknown_agents_have_no_history(
    bus: Client, base_settings: Settings
):
    async with service.running(base_settings):
        await publish(bus, series("a", 1, utc_now()))
        await caught_up(bus, 1)
        reply = await history(bus, "nobody")
        assert reply.pings == ()
        assert reply.summary.uptime_percent is None


async def test_pages_follow_one_another_without_gap_or_overlap(
    bus: Client, base_settings: Settings
):
    async with service.running(base_settings):
        await publish(bus, series("a", 10, utc_now() - timedelta(hours=4)))
        await caught_up(bus, 10)
        numbers, cursor = [], None
        while True:
            page = await history(bus, "a", limit=3, cursor=cursor)
            numbers += [ping.ping_seq for ping in page.pings]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert numbers == list(range(10, 0, -1))
        assert page.summary.pings == 10  # of the period, not of the page


async def test_overview_and_uptimes_are_sums_of_seconds(bus: Client, base_settings: Settings):
    now = utc_now()
    states = [
        state("a", 1, now - timedelta(seconds=90), Seconds(up=60.0)),
        state("b", 1, now - timedelta(seconds=80), Seconds(up=0.0, down=86_400.0), verdict="poor"),
        state("c", 1, now - timedelta(seconds=70), None),
    ]
    async with service.running(base_settings):
        await publish(bus, states)
        await caught_up(bus, 3)
        overview = await micro_services.ask(
            bus, subjects.OVERVIEW, OverviewRequest(), OverviewReply, who="storage"
        )
        asked = UptimesRequest(agent_ids=("a", "b", "c", "nobody"))
        uptimes = await micro_services.ask(
            bus, subjects.UPTIMES, asked, UptimesReply, who="storage"
        )
    assert overview.uptime_percent == 100 * 60 / 86_460
    assert overview.verdicts == {"first": 0, "good": 1, "poor": 2, "excused": 0}
    assert overview.response_ms["p50"] == 3.25
    assert overview.late_ms["p99"] == 12.5
    assert [ping.agent_id for ping in overview.recent] == ["c", "b", "a"]
    assert uptimes.uptimes == {"a": 100.0, "b": 0.0}


async def test_twice_the_same_and_a_missing_number(bus: Client, base_settings: Settings):
    one, two, five = series("a", 5)[0], series("a", 5)[1], series("a", 5)[4]
    async with service.running(base_settings):
        assert (await caught_up(bus, 0)).stream_begins is None
        await publish(bus, [one, two])
        await bus.jetstream().publish(
            subjects.state_key("a"), encode(two)
        )  # a writer that is not sure, again
        await publish(bus, [five])
        stats = await caught_up(bus, 3)
        reply = await history(bus, "a")
    assert stats.rows == 3
    assert stats.stream_begins, "what the bus holds is known with the first outcome"
    assert stats.missing_seqs == 2
    assert reply.summary.missing_seqs == 2


async def test_poisoned_messages_are_set_aside_and_stop_nobody(
    bus: Client, base_settings: Settings
):
    good = series("good", 2)
    huge = state("huge", 1, START, Seconds(up=900.0), response_ms=1e30)
    async with service.running(base_settings):
        await publish(bus, good[:1])
        for key, data in {
            "garbage": b"\xff\x00 not json",
            "other": encode(good[0]),  # the state of somebody else
            "zero": encode(state("zero", 0, START)),
            "huge": encode(huge),
            "poor": encode(state("poor", 1, START)).replace(
                b'"consecutive_poor":0', b'"consecutive_poor":99999999999'
            ),
        }.items():
            await bus.jetstream().publish(subjects.state_key(key), data)
        await publish(bus, good[1:])
        stats = await caught_up(bus, 2)
        assert (stats.rows, stats.poisoned) == (2, 5)
        bucket = await bus.jetstream().key_value(subjects.BUCKET)
        await bucket.delete("state.good")  # a key deleted by hand is no outcome
        await publish(bus, series("after", 1))
        stats = await caught_up(bus, 3)
        assert (stats.rows, stats.poisoned) == (3, 5)


async def test_a_restart_goes_on_where_it_was(bus: Client, base_settings: Settings):
    async with service.running(base_settings):
        await publish(bus, series("a", 2))
        await caught_up(bus, 2)
    await publish(bus, series("a", 2, START + timedelta(hours=1), first=3))
    async with service.running(base_settings):
        await caught_up(bus, 4)
        assert [ping.ping_seq for ping in (await history(bus, "a")).pings] == [4, 3, 2, 1]


async def test_a_stream_made_anew_adds_no_row_twice(bus: Client, base_settings: Settings):
    first = series("a", 2) + series("b", 1)
    async with service.running(base_settings):
        await publish(bus, first)
        await caught_up(bus, 3)
        await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.HISTORY_STREAM}")
        await layout.ensure(bus, base_settings)  # sources the newest state of each agent again
        await followed(bus, first[1])
        await publish(bus, series("a", 1, START + timedelta(hours=1), first=3))
        stats = await caught_up(bus, 4)
        assert stats.rows == 4
        assert stats.missing_seqs == 0


async def test_a_tail_lost_while_storage_was_away_for_hours_leaves_no_gap(
    bus: Client, base_settings: Settings
):
    """What a crash of the server does: the message at the file's position is gone, and others
    follow.
    """
    long_ago = utc_now() - timedelta(hours=5)
    async with service.running(base_settings):
        await publish(bus, series("a", 2, long_ago))
        reached = (await caught_up(bus, 2)).last_sequence
    await bus.jetstream().delete_msg(subjects.HISTORY_STREAM, reached)
    await publish(bus, series("a", 2, long_ago + timedelta(hours=1), first=3))
    async with service.running(base_settings):
        await caught_up(bus, 4)
        info = await jetstream_api.call(
            bus, f"CONSUMER.INFO.{subjects.HISTORY_STREAM}.{base_settings.STORAGE_NAME}"
        )
    newest_read = long_ago + timedelta(seconds=900)
    assert datetime.fromisoformat(info["config"]["opt_start_time"]) == newest_read - REWIND


async def test_numbers_that_begin_again_are_new_outcomes(bus: Client, base_settings: Settings):
    async with service.running(base_settings):
        await publish(bus, series("a", 3))
        await publish(bus, series("a", 2, START + timedelta(days=1)))  # the bucket was lost
        stats = await caught_up(bus, 5)
        assert stats.missing_seqs == 0
    async with service.running(base_settings):
        await publish(bus, series("a", 1, START + timedelta(days=1)))  # an old one comes again
        await publish(bus, series("a", 1, START + timedelta(days=2), first=3))
        stats = await caught_up(bus, 6)
        assert (stats.rows, stats.missing_seqs) == (6, 0)


async def test_two_names_are_two_replicas(bus: Client, base_settings: Settings):
    import msgspec

    replica = msgspec.structs.replace(base_settings, STORAGE_NAME="replica")
    async with service.running(base_settings) as one:
        await publish(bus, series("a", 2))
        await caught_up(bus, 2)
        async with service.running(replica) as two:
            await publish(bus, series("b", 1))
            await caught_up(bus, 3)
            await caught_up(bus, 3)
            assert one.store.paths.file != two.store.paths.file
            assert two.store.paths.file.exists()
