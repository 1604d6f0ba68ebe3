"""Snapshots of streams, of one chunk and of many."""

import os

import pytest

from bus.transport import jetstream_api, stream_snapshot
from bus.transport.connection import Client

NAME = "SNAPSHOTS"


@pytest.mark.parametrize("messages", [1, 40], ids=["one chunk", "many chunks"])
async def test_a_stream_of_any_size_comes_out_and_in_as_it_was(bus: Client, messages: int):
    config = {"name": NAME, "subjects": ["snapshots"], "storage": "file"}
    await jetstream_api.call(bus, f"STREAM.CREATE.{NAME}", config)
    bodies = [os.urandom(20_000) for _ in range(messages)]  # which cannot be compressed
    for body in bodies:
        await bus.jetstream().publish("snapshots", body)
    chunks: list[bytes] = []
    taken = await stream_snapshot.take(bus, NAME, chunks.append)
    assert (len(chunks) > 1) == (messages > 1)
    await jetstream_api.call(bus, f"STREAM.DELETE.{NAME}")
    information = await stream_snapshot.put(bus, taken["config"], taken["state"], chunks)
    assert information["state"]["messages"] == messages
    for number, body in enumerate(bodies, 1):
        assert await jetstream_api.message(bus, NAME, number) == body


async def test_a_chunk_that_cannot_be_written_ends_it_with_that_error(bus: Client):
    config = {"name": NAME, "subjects": ["snapshots"], "storage": "file"}
    await jetstream_api.call(bus, f"STREAM.CREATE.{NAME}", config)
    await bus.jetstream().publish("snapshots", b"x")

    def fail(_chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await stream_snapshot.take(bus, NAME, fail)
