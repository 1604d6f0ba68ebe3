"""Any order, any duplicates, any batches: the same history. On a real DuckDB file."""

import asyncio
import tempfile
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus import settings as gpuping_settings
from bus.messages import Incident, Seconds, encode
from storage import archive
from storage.names import Names
from storage.reading import read
from storage.rows import Arrival
from storage.store import Store
from tests.storage_states import START, AgentState, gpu, series, state

BAD = Seconds(up=800.0, down=100.0)
LOST = Incident(gpu="GPU-1", state="down", reason="lost", since=START, until=None)
STATES: list[AgentState] = [
    *series("a", 6),
    *series("b", 4, START + timedelta(days=1)),
    state("b", 5, START + timedelta(days=2), BAD, gpus=(gpu(BAD, state="down"),), incidents=(LOST,), verdict="poor"),
    state("b", 6, START + timedelta(days=3), None),
    *series("a", 2, START + timedelta(days=9)),  # numbers that begin again
]
ARRIVALS = [
    Arrival(i + 1, one.agent_id, encode(one), signature="s" if i == 2 else None) for i, one in enumerate(STATES)
]


async def _history(batches: list[list[Arrival]]) -> tuple[archive.Content, int]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(gpuping_settings.load({}, GPUPING_DATA_DIR=folder))
        await store.open(START + timedelta(days=30))
        for batch in batches:
            await store.write(1, await store.prepare(batch))
            await store.seal(START + timedelta(days=30))
        content = await store.read(lambda reader: archive.content(reader.cursor, store.places.archive))
        assert store.ingest
        rows = store.ingest.rows
        await store.close()
        return content, rows


EXPECTED = asyncio.run(_history([ARRIVALS]))


@given(st.permutations(ARRIVALS), st.lists(st.sampled_from(ARRIVALS), max_size=8), st.integers(1, 7))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_delivery_makes_the_same_history(order: list[Arrival], again: list[Arrival], size: int):
    delivered = order + again
    batches = [delivered[i : i + size] for i in range(0, len(delivered), size)]
    assert asyncio.run(_history(batches)) == EXPECTED
    assert EXPECTED[1] == len(STATES)


def test_reversed_and_doubled_delivery_changes_nothing():
    assert asyncio.run(_history([ARRIVALS[::-1], ARRIVALS])) == EXPECTED


@given(st.binary(max_size=200))
def test_garbage_is_set_aside_and_never_raises(data: bytes):
    names = Names([], [])
    taken = read([Arrival(1, "a", data)], names)
    assert [one.arrival.data for one in taken.poisoned] == [data]
    assert len(taken.outcomes().agent) == len(names.agents) == 0


@given(st.data())
def test_a_message_with_a_flipped_byte_is_an_outcome_or_poison(data: st.DataObject):
    whole = bytearray(ARRIVALS[0].data)
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    taken = read([Arrival(1, "a", bytes(whole))], Names([], []))
    assert len(taken.healthy) + len(taken.full) + len(taken.poisoned) == 1
