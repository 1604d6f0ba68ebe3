"""The JetStream layout on a real server."""

import asyncio
import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus.contract import subjects
from bus.errors import LayoutError
from bus.settings import Settings
from bus.transport import connection, jetstream_api, layout
from bus.transport.batch import Write, commit
from bus.transport.jetstream_api import JsonObject
from tests.nats_cluster import nats_cluster


async def test_layout_is_made_once_and_found_the_second_time(
    bus: connection.Client, base_settings: Settings
):
    await layout.ensure(bus, base_settings)
    info = await jetstream_api.call(bus, f"STREAM.INFO.{subjects.BUCKET_STREAM}")
    assert info["config"]["allow_msg_schedules"] is True
    bucket = await bus.jetstream().key_value(subjects.BUCKET)
    await bucket.put("agent.a", b"{}")
    assert (await bucket.get("agent.a")).value == b"{}"


async def test_two_services_make_a_stream_at_once_with_different_limits(
    bus: connection.Client, base_settings: Settings
):
    await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.HISTORY_STREAM}")
    smaller = replace(base_settings, GPUPING_HISTORY_STREAM_GB=1)
    await asyncio.gather(layout.ensure(bus, base_settings), layout.ensure(bus, smaller))
    assert (await config_of(bus, subjects.HISTORY_STREAM))["max_bytes"] > 0


async def config_of(bus: connection.Client, stream: str) -> JsonObject:
    info = await jetstream_api.call(bus, f"STREAM.INFO.{stream}")
    config: JsonObject = info["config"]
    return config


async def test_a_stream_made_otherwise_is_brought_into_line(
    bus: connection.Client, base_settings: Settings
):
    other = layout.bucket_config(base_settings) | {"allow_direct": False}
    await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", other)
    await layout.ensure(bus, base_settings)
    assert (await config_of(bus, subjects.BUCKET_STREAM))["allow_direct"] is True
    assert await layout.inspect(bus, base_settings) == []


async def test_what_cannot_be_changed_is_refused_before_anything_is(
    bus: connection.Client, base_settings: Settings
):
    other = layout.bucket_config(base_settings) | {"allow_direct": False}
    await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", other)
    await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.HISTORY_STREAM}")
    memory = layout.history_config(base_settings) | {"storage": "memory"}
    del memory["persist_mode"]
    await jetstream_api.call(bus, f"STREAM.CREATE.{subjects.HISTORY_STREAM}", memory)
    with pytest.raises(LayoutError, match="storage"):
        await layout.ensure(bus, base_settings)
    assert (await config_of(bus, subjects.BUCKET_STREAM))["allow_direct"] is not True


async def test_nothing_is_lowered_that_would_cost_messages(
    bus: connection.Client, base_settings: Settings
):
    deeper = layout.bucket_config(base_settings) | {"max_msgs_per_subject": 5}
    await jetstream_api.call(bus, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", deeper)
    fewer = replace(base_settings, GPUPING_HISTORY_STREAM_GB=1, GPUPING_HISTORY_STREAM_DAYS=30)
    await layout.ensure(bus, fewer)
    assert (await config_of(bus, subjects.BUCKET_STREAM))["max_msgs_per_subject"] == 5
    history = await config_of(bus, subjects.HISTORY_STREAM)
    assert history["max_bytes"] == base_settings.GPUPING_HISTORY_STREAM_GB * 2**30
    assert len(await layout.inspect(bus, fewer)) == 3  # depth, age and bytes are told
    more = replace(base_settings, GPUPING_HISTORY_STREAM_DAYS=500)
    await layout.ensure(bus, more)
    assert (await config_of(bus, subjects.HISTORY_STREAM))["max_age"] == 500 * 86_400 * 10**9


async def test_a_service_with_other_replicas_changes_nothing_and_says_so(
    tmp_path: Path, base_settings: Settings
):
    """One service that was started without GPUPING_REPLICAS=3 made one replica of three."""
    async with nats_cluster(tmp_path) as cluster:
        three = replace(base_settings, NATS_URL=cluster.url, GPUPING_REPLICAS=3)
        one = replace(three, GPUPING_REPLICAS=1)
        async with connection.connected(three, "test") as bus:
            await layout.ensure(bus, three)
            await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.HISTORY_STREAM}")
            await layout.ensure(bus, one)
            for name in (subjects.BUCKET_STREAM, subjects.HISTORY_STREAM):
                assert (await config_of(bus, name))["num_replicas"] == 3
            (problem,) = await layout.inspect(bus, one)
    for config in layout.stream_configs(one):
        assert config["name"] in problem.text
    assert "gpuping bus migrate --replicas 1" in problem.text
    assert problem.mended_by == "operator"


async def test_a_bucket_made_anew_is_numbered_after_the_history(
    bus: connection.Client, base_settings: Settings
):
    """The server would not copy a number that it has copied before, and lose the outcome."""
    state = subjects.state_key("a")
    old = await commit(bus, [Write(state, b"{}")])
    async with asyncio.timeout(60):
        while await layout.sourced_sequence(bus) != old:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the server follows on its own
    await jetstream_api.call(bus, f"STREAM.DELETE.{subjects.BUCKET_STREAM}")
    await layout.ensure(bus, base_settings)
    new = await commit(bus, [Write(state, b"{}")])
    assert new > old
    async with asyncio.timeout(60):
        while await layout.sourced_sequence(bus) != new:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_position_of_the_history_is_that_of_the_last_state_it_holds(
    bus: connection.Client,
):
    assert await layout.sourced_sequence(bus) == math.inf  # empty: nobody is held
    await commit(bus, [Write(subjects.timer_key("a"), b"{}")])
    first = await commit(bus, [Write(subjects.state_key(f"a{n}"), b"{}") for n in range(3)])
    await commit(bus, [Write(subjects.agent_key("a"), b"{}")])
    async with asyncio.timeout(60):
        while await layout.sourced_sequence(bus) != first + 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the server follows on its own
