"""The JetStream layout on a real server."""

import pytest

from bus.contract import subjects
from bus.errors import LayoutError
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout


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
