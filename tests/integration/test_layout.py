"""The JetStream layout on a real server."""

import asyncio
import math

import pytest

from bus.contract import subjects
from bus.errors import LayoutError
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from bus.transport.batch import Write, commit


async def test_layout_is_made_once_and_found_the_second_time(
    bus: connection.Client, base_settings: Settings
):
    await layout.ensure(bus, base_settings)
    info = await jetstream_api.call(bus, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    assert info["config"]["allow_msg_schedules"] is True
    bucket = await bus.jetstream().key_value(subjects.BUCKET)
    await bucket.put("agent.a", b"{}")
    assert (await bucket.get("agent.a")).value == b"{}"


async def test_a_stream_made_otherwise_is_brought_into_line_or_refused(
    bus: connection.Client, base_settings: Settings
):
    other = layout.bucket_config(base_settings) | {"max_msgs_per_subject": 5}
    await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", other)
    await layout.ensure(bus, base_settings)
    info = await jetstream_api.call(bus, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    assert info["config"]["max_msgs_per_subject"] == 1

    await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.HISTORY_STREAM}")
    memory = layout.history_config(base_settings) | {"storage": "memory"}
    del memory["persist_mode"]
    await jetstream_api.call(bus, f"STREAM.CREATE.{subjects.HISTORY_STREAM}", memory)
    with pytest.raises(LayoutError, match="storage"):
        await layout.ensure(bus, base_settings)


async def test_the_position_of_the_history_is_that_of_the_last_state_it_holds(
    bus: connection.Client,
):
    assert await layout.sourced_sequence(bus) == math.inf  # empty: nobody is held
    await commit(bus, [Write(subjects.timer_key("a"), b"{}")])
    first = await commit(bus, [Write(subjects.state_key(f"a{n}"), b"{}") for n in range(3)])
    await commit(bus, [Write(subjects.agent_key("a"), b"{}")])
    async with asyncio.timeout(10):
        while await layout.sourced_sequence(bus) != first + 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the server follows on its own
