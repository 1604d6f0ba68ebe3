"""Any order, any duplicates, any batches: the same history. On a real DuckDB file."""

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from bus import settings as gpuping_settings
from bus.contract.messages import Incident, Seconds, encode
from storage.archive import day_folders
from storage.engine.dictionary import Dictionaries
from storage.engine.rows import Arrival
from storage.ingest.decode import decode_batch
from storage.ingest.position import fingerprint
from storage.ingest.writer import WriteResult
from storage.store.store import Store
from tests.storage_states import START, AgentState, gpu, series, state

BAD = Seconds(up=800.0, down=100.0)
LOST = Incident(gpu="GPU-1", state="down", reason="lost", since=START, until=None)
STATES: list[AgentState] = [
    *series("a", 6),
    *series("b", 4, START + timedelta(days=1)),
    state(
        "b",
        5,
        START + timedelta(days=2),
        BAD,
        gpus=(gpu(BAD, state="down"),),
        incidents=(LOST,),
        verdict="poor",
    ),
    state("b", 6, START + timedelta(days=3), None),
    *series("a", 2, START + timedelta(days=9)),  # numbers that begin again
]
ARRIVALS = [
    Arrival(i + 1, one.agent_id, encode(one), signature="s" if i == 2 else None)
    for i, one in enumerate(STATES)
]


async def _history(batches: list[list[Arrival]]) -> tuple[day_folders.Content, int]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(gpuping_settings.load({}, GPUPING_DATA_DIR=folder))
        await store.open(START + timedelta(days=30))
        for batch in batches:
            await store.write(1, await store.prepare(batch))
            await store.seal(START + timedelta(days=30))
        content = await store.read(
            lambda reader: day_folders.content(reader.cursor, store.paths.archive)
        )
        assert store.ingest
        rows = store.ingest.rows
        await store.close()
        return content, rows


EXPECTED = asyncio.run(_history([ARRIVALS]))


@given(
    st.permutations(ARRIVALS), st.lists(st.sampled_from(ARRIVALS), max_size=8), st.integers(1, 7)
)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_delivery_makes_the_same_history(order: list[Arrival], again: list[Arrival], size: int):
    delivered = order + again
    batches = [delivered[i : i + size] for i in range(0, len(delivered), size)]
    assert asyncio.run(_history(batches)) == EXPECTED
    assert EXPECTED[1] == len(STATES)


def test_reversed_and_doubled_delivery_changes_nothing():
    assert asyncio.run(_history([ARRIVALS[::-1], ARRIVALS])) == EXPECTED


def test_a_tombstone_moves_the_position_and_is_no_outcome(tmp_path: Path):
    """Whatever it holds; a batch of nothing else, too: else whoever waits for the stream's end
    waits for ever.
    """
    tombstones = [
        Arrival(101, "a", b"", tombstone=True),
        Arrival(102, "a", b"", tombstone=True),
        Arrival(103, "gone", b"", tombstone=True),
    ]

    async def steps() -> tuple[list[WriteResult], list[int]]:
        store = Store(gpuping_settings.load({}, GPUPING_DATA_DIR=str(tmp_path)))
        await store.open(START)
        written, reached = [], []
        for batch in (tombstones[:2] + ARRIVALS, tombstones[2:], tombstones):
            written.append(await store.write(1, await store.prepare(batch)))
            assert store.ingest
            assert store.ingest.position
            reached.append(store.ingest.position.sequence)
        await store.close()
        return written, reached

    assert asyncio.run(steps()) == (
        [WriteResult(len(ARRIVALS)), WriteResult(), WriteResult()],
        [102, 103, 103],
    )


def test_tombstones_in_between_change_no_history():
    among = [
        one
        for arrival in ARRIVALS
        for one in (arrival, structs.replace(arrival, data=b"", tombstone=True))
    ]
    assert asyncio.run(_history([among, among[::-1]])) == EXPECTED


def test_tombstones_of_two_keys_are_not_taken_for_each_other():
    assert fingerprint(b"", "a") != fingerprint(b"", "b")
    assert fingerprint(b"data", "a") == fingerprint(b"data", "b")


def test_what_came_first_counts_however_the_batches_are_cut():
    """The same outcome, told twice and differently: no writer does that, and a rebuild must not
    differ if one does.
    """
    first = structs.replace(state("a", 1, START), consecutive_poor=3)
    told = [Arrival(1, "a", encode(first)), Arrival(2, "a", encode(state("a", 1, START)))]
    assert asyncio.run(_history([told])) == asyncio.run(_history([told[:1], told[1:]]))
    signed = [
        Arrival(1, "a", encode(first), signature="s"),
        Arrival(2, "a", encode(state("a", 1, START))),
    ]
    assert asyncio.run(_history([signed])) == asyncio.run(_history([signed[:1], signed[1:]]))


def test_outcomes_of_1970_are_taken_in_once_too():
    told = [
        Arrival(i + 1, "a", encode(one))
        for i, one in enumerate(series("a", 3, datetime(1970, 1, 2, tzinfo=UTC)))
    ]
    assert asyncio.run(_history([told, told[::2], told, told[1:]])) == asyncio.run(_history([told]))
    assert asyncio.run(_history([told[2:], told[2:], told[2:]]))[1] == 1


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        # These seconds are in the report, in its GPU and in the outcome.
        (b'"seconds":{"up":900.0,', b'"seconds":{"up":1e308,'),
        (b'"since":"2026-11-01T00:00:00Z"', b'"since":"2026-11-01T00:00:00"'),
        (b'"index":0', b'"index":99999999999'),
        (b'"name":"RTX 4090"', b'"name":"\\u0000"'),
    ],
)
def test_whatever_a_host_says_stops_nobody_else(said: bytes, instead: bytes):
    incident = Incident(gpu=None, state="up", reason="restarted", since=START)
    odd = encode(state("a", 1, START + timedelta(hours=1), incidents=(incident,)))
    assert said in odd
    for replaced in (odd.replace(said, instead), odd.replace(said, instead, 1)):
        batch = [Arrival(1, "a", replaced), Arrival(2, "b", encode(state("b", 1, START)))]
        content, rows = asyncio.run(_history([batch]))
        assert rows in {1, 2}
        assert (content, rows) == asyncio.run(_history([batch[:1], batch[1:]]))


def test_rows_that_cannot_be_made_are_told_apart_and_set_aside(tmp_path: Path):
    """What decoding ought to have refused: the rest of its batch comes in, the odd one once."""

    async def steps() -> tuple[WriteResult, int]:
        store = Store(gpuping_settings.load({}, GPUPING_DATA_DIR=str(tmp_path)))
        await store.open(START)
        prepared = await store.prepare(ARRIVALS)
        worst = next(row for row in prepared.decoded.full.values() if row.incidents)
        worst.incidents = (
            SimpleNamespace(**structs.asdict(LOST) | {"since": START.replace(tzinfo=None)}),
        )
        written = await store.write(1, prepared)
        assert store.ingest
        poisoned = store.ingest.poisoned
        await store.close()
        return written, poisoned

    written, poisoned = asyncio.run(steps())
    assert (written.rows, written.duplicates, written.poisoned, poisoned) == (
        len(ARRIVALS) - 1,
        0,
        1,
        1,
    )


def test_poison_that_comes_again_is_set_aside_once(tmp_path: Path):
    """By its bytes and its key: after a crash of the server it may stand under another number."""
    poison = [Arrival(1, "a", b"garbage"), Arrival(2, "b", b"garbage"), Arrival(3, "a", b"another")]
    again = [structs.replace(arrival, sequence=arrival.sequence + 10) for arrival in poison]

    async def steps() -> tuple[list[int], int, int]:
        settings = gpuping_settings.load({}, GPUPING_DATA_DIR=str(tmp_path))
        store = Store(settings)
        await store.open(START)
        written = []
        for stream_us, batch in ((1, poison[:2]), (1, [*poison, *again]), (2, poison)):
            written.append((await store.write(stream_us, await store.prepare(batch))).poisoned)
        assert store.ingest
        counted = store.ingest.poisoned
        await store.open(START)
        found = store.ingest.poisoned
        await store.close()
        return written, counted, found

    assert asyncio.run(steps()) == ([2, 1, 0], 3, 3)


@given(st.binary(max_size=200))
def test_garbage_is_set_aside_and_never_raises(data: bytes):
    names = Dictionaries([], [])
    decoded = decode_batch([Arrival(1, "a", data)], names)
    assert [one.arrival.data for one in decoded.poisoned.values()] == [data]
    assert len(decoded.outcomes().agent) == len(names.agents) == 0


@given(st.data())
def test_a_message_with_a_flipped_byte_is_an_outcome_or_poison(data: st.DataObject):
    whole = bytearray(ARRIVALS[0].data)
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    decoded = decode_batch([Arrival(1, "a", bytes(whole))], Dictionaries([], []))
    assert len(decoded.healthy) + len(decoded.full) + len(decoded.poisoned) == 1
