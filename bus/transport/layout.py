"""The JetStream layout: the bucket, the history sourced from it, and the schedulers' shared consumer.

Made idempotently by whoever starts first, and checked against what is there: a stream that somebody
made otherwise is brought into line where the server allows it, and refused loudly where it does
not. Why each value is what it is stands in docs/architecture.md; `create_key_value()` cannot make
this bucket, because its `discard: new` forbids message scheduling (server error 10052).
"""

import re
from typing import Any

import structlog
from nats.aio.client import Client

from bus.contract import subjects
from bus.errors import LayoutError
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.jetstream_api import JetStreamApiError

log = structlog.get_logger("bus.transport.layout")

OLDEST_SERVER = (2, 12)  # the first with atomic batches and scheduled messages
REDELIVERY_MARGIN_SECONDS = 30.0
_NANOSECONDS = 1_000_000_000


def bucket_config(settings: Settings) -> dict[str, Any]:
    """The bucket `gpuping`: one revision a key, no unacknowledged loss, timers and batches allowed."""
    return {
        "name": subjects.BUCKET_STREAM,
        "subjects": [f"{subjects.KEYS}>"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "num_replicas": settings.GPUPING_REPLICAS,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_msg_schedules": True,
    }


def history_config(settings: Settings) -> dict[str, Any]:
    """Every revision of every state, in order, written by the server itself."""
    config: dict[str, Any] = {
        "name": subjects.HISTORY_STREAM,
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": settings.GPUPING_REPLICAS,
        "max_age": settings.GPUPING_HISTORY_STREAM_DAYS * 86_400 * _NANOSECONDS,
        "max_bytes": settings.GPUPING_HISTORY_STREAM_GB * 2**30,
        "allow_direct": True,
        "sources": [
            {
                "name": subjects.BUCKET_STREAM,
                "subject_transforms": [
                    {
                        "src": f"{subjects.KEYS}state.*",
                        "dest": f"{subjects.HISTORY_PREFIX}{{{{wildcard(1)}}}}",
                    }
                ],
            }
        ],
    }
    if settings.GPUPING_REPLICAS == 1:
        config["persist_mode"] = (
            "async"  # what a crash loses is sourced again; replicated streams refuse it
        )
    return config


def due_consumer_config(settings: Settings) -> dict[str, Any]:
    """One durable shared by all schedulers. A due message of a scheduler that died comes to another."""
    return {
        "durable_name": subjects.DUE_CONSUMER,
        "filter_subject": f"{subjects.KEYS}due.*",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(
            (settings.PING_RESPONSE_TIMEOUT_SECONDS + REDELIVERY_MARGIN_SECONDS) * _NANOSECONDS
        ),
        "max_deliver": -1,
        "max_ack_pending": 100_000,  # above all flights of all schedulers
        "max_waiting": 512,
    }


async def ensure(client: Client, settings: Settings) -> None:
    """The whole layout stands when this returns. Raises LayoutError, or UnavailableError without JetStream."""
    check_server(client)
    await _ensure_stream(client, bucket_config(settings))
    await _ensure_stream(client, history_config(settings))
    await _ensure_consumer(client, subjects.BUCKET_STREAM, due_consumer_config(settings))


async def inspect(client: Client, settings: Settings) -> list[str]:
    """What `ensure` would have to make or change, in words; empty when the layout stands. Changes nothing."""
    wanted = {
        f"STREAM.INFO.{c['name']}": (c["name"], c)
        for c in (bucket_config(settings), history_config(settings))
    }
    consumer = due_consumer_config(settings)
    name = consumer["durable_name"]
    wanted[f"CONSUMER.INFO.{subjects.BUCKET_STREAM}.{name}"] = (f"consumer {name}", consumer)
    problems = []
    for verb, (label, config) in wanted.items():
        actual = await _config_of(client, verb, label)
        if actual is None:
            problems.append(f"{label} does not exist")
            continue
        differing = _differences(config, actual)
        if differing:
            problems.append(f"{label} differs in {', '.join(differing)}")
    return problems


def check_server(client: Client) -> None:
    """Says so when the server is too old for scheduled messages."""
    version = server_version(client)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST_SERVER:
        raise LayoutError(
            f"nats-server {version} is too old: gpuping needs 2.12 or newer (scheduled messages)"
        )


def server_version(client: Client) -> str:
    """`2.15.1`; nats-py dresses it up as `<nats server v2.15.1>`."""
    return str(client.connected_server_version).removeprefix("<nats server v").removesuffix(">")


async def _ensure_stream(client: Client, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    actual = await _config_of(client, f"STREAM.INFO.{name}", name)
    if actual is None:
        await _change(client, f"STREAM.CREATE.{name}", wanted, name)
        log.info("stream_created", stream=name)
        return
    differing = _differences(wanted, actual)
    if differing:
        log.warning("stream_updated", stream=name, fields=differing)
        await _change(
            client,
            f"STREAM.UPDATE.{name}",
            actual | wanted,
            f"{name} ({', '.join(differing)} differ)",
        )


async def _ensure_consumer(client: Client, stream: str, wanted: dict[str, Any]) -> None:
    name = wanted["durable_name"]
    actual = await _config_of(client, f"CONSUMER.INFO.{stream}.{name}", name)
    if actual is not None and not _differences(wanted, actual):
        return
    # creating a durable consumer that exists updates it
    body = {"stream_name": stream, "config": wanted}
    await _change(client, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body, name)


async def _config_of(client: Client, verb: str, label: str) -> dict[str, Any] | None:
    """The configuration of a stream or consumer; None where it does not exist. Raises LayoutError."""
    try:
        info = await jetstream_api.call(client, verb)
    except JetStreamApiError as error:
        if error.is_not_found:
            return None
        raise LayoutError(f"{label}: {error}") from None
    config: dict[str, Any] = info["config"]
    return config


async def _change(client: Client, verb: str, body: dict[str, Any], label: str) -> None:
    try:
        await jetstream_api.call(client, verb, body)
    except JetStreamApiError as error:
        raise LayoutError(f"{label}: the server refused it: {error}") from None


def _differences(wanted: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """Names of wanted fields that differ; what we do not ask for may be as it likes."""
    return [key for key, value in wanted.items() if not _same(value, actual.get(key))]


def _same(wanted: Any, actual: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and not _differences(wanted, actual)
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(wanted) == len(actual)
            and all(map(_same, wanted, actual))
        )
    return bool(wanted == actual)
