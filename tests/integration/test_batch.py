"""Atomic batches on a real server: all or nothing, also when they are sent in parts."""

import pytest

from bus.contract import subjects
from bus.errors import BusError, StaleError
from bus.settings import Settings
from bus.transport import layout
from bus.transport.batch import AtomicBatch, Write, commit
from bus.transport.bucket import last_sequence
from bus.transport.connection import Client


def write(name: str, expected: int | None = None) -> Write:
    return Write(subjects.state_key(name), b'{"of": "a test"}', expected=expected)


@pytest.fixture
async def bucket(bus: Client, base_settings: Settings) -> Client:
    await layout.ensure(bus, base_settings)
    return bus


async def test_a_batch_sent_in_pieces_is_written_in_order(bucket: Client):
    batch = AtomicBatch(bucket)
    await batch.send([write("a", 0), write("b")])
    await batch.send([write("c", 0)])
    await batch.send([write("d"), write("e"), write("f")])
    first = await batch.commit()
    found = [await last_sequence(bucket, subjects.state_key(name)) for name in "abcdef"]
    assert found == list(range(first, first + 6))


async def test_nothing_of_a_batch_is_written_before_its_commit(bucket: Client):
    batch = AtomicBatch(bucket)
    await batch.send([write("a"), write("b")])
    await bucket.flush()
    assert await last_sequence(bucket, subjects.state_key("a")) == 0
    await batch.commit()
    assert await last_sequence(bucket, subjects.state_key("a")) > 0


async def test_one_stale_write_in_any_piece_refuses_them_all(bucket: Client):
    await commit(bucket, [write("b")])
    for stale in range(3):
        batch = AtomicBatch(bucket)
        for number, name in enumerate("abc"):
            await batch.send([write(name, 77 if number == stale else None)])
        with pytest.raises(StaleError):
            await batch.commit()
    assert await last_sequence(bucket, subjects.state_key("a")) == 0


async def test_a_batch_that_lost_a_piece_is_refused(bucket: Client):
    """As when the connection broke: what was sent before must not be written by itself."""
    batch = AtomicBatch(bucket)
    await batch.send([write("a"), write("b")])
    batch._sent += 1
    with pytest.raises(BusError, match="refused"):
        await batch.commit()
    assert await last_sequence(bucket, subjects.state_key("a")) == 0


async def test_batches_under_way_at_once_do_not_mix(bucket: Client):
    one, two = AtomicBatch(bucket), AtomicBatch(bucket)
    await one.send([write("a"), write("b")])
    await two.send([write("c"), write("d")])
    await one.send([write("e")])
    assert await two.commit() < await one.commit()
    sequences = [await last_sequence(bucket, subjects.state_key(name)) for name in "cdabe"]
    assert sequences == sorted(sequences)


async def test_what_was_handed_over_stays_whole(bucket: Client):
    """Whoever was refused tries again with the same list, and counts it."""
    writes = [write("a"), write("b")]
    await commit(bucket, writes)
    assert writes == [write("a"), write("b")]
