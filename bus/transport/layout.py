"""The JetStream layout: the bucket, its history, the audit log, the schedulers' shared consumer.

`ensure` makes what is missing and compares what exists. A stream with another configuration is
updated where the server allows that, and refused with an error where it does not. The reasons for
the values are in docs/decisions/jetstream.md. nats-py's `create_key_value()` cannot make this
bucket: it sets `discard: new`, with which the server forbids message schedules (error 10052).
"""

import base64
import math
import re
from typing import Any

import structlog
from nats.aio.client import Client

from bus.contract import subjects
from bus.errors import LayoutError
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError, JsonObject

log = structlog.get_logger("bus.transport.layout")

OLDEST_SERVER = (2, 12)  # the first with atomic batches and scheduled messages
REDELIVERY_MARGIN_SECONDS = 30.0
AUDIT_DAYS = 3650  # as long as bills are kept
SMALLEST_HISTORY_BYTES = 64 * 2**20  # a month of a hundred hosts
_WANTED_BYTES = "gpuping.wanted_max_bytes"  # in the metadata of a history stream that was fitted
_NO_ROOM = frozenset({ErrorCode.INSUFFICIENT_RESOURCES, ErrorCode.STORAGE_EXCEEDED})
_NANOSECONDS = 1_000_000_000


class NoRoomError(LayoutError):
    """The server's disk, or its limit of storage, has no room for what a stream reserves."""


def bucket_config(settings: Settings) -> JsonObject:
    """The bucket `gpuping`: one revision a key; message schedules and batches are allowed."""
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


def history_config(settings: Settings) -> JsonObject:
    """The stream with every revision of every state, in order, which the server writes itself."""
    renamed = {
        "src": subjects.state_key("*"),
        "dest": f"{subjects.HISTORY_PREFIX}{{{{wildcard(1)}}}}",
    }
    config: JsonObject = {
        "name": subjects.HISTORY_STREAM,
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": settings.GPUPING_REPLICAS,
        "max_age": settings.GPUPING_HISTORY_STREAM_DAYS * 86_400 * _NANOSECONDS,
        "max_bytes": settings.GPUPING_HISTORY_STREAM_GB * 2**30,
        "allow_direct": True,
        "sources": [{"name": subjects.BUCKET_STREAM, "subject_transforms": [renamed]}],
    }
    if settings.GPUPING_REPLICAS == 1:
        # what a crash loses is sourced again; the server refuses this for replicated streams
        config["persist_mode"] = "async"
    return config


def audit_config(settings: Settings) -> JsonObject:
    """The audit log: its messages can neither be deleted nor purged, they only expire."""
    return {
        "name": subjects.AUDIT_STREAM,
        "subjects": [subjects.AUDIT_ALL],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": settings.GPUPING_REPLICAS,
        "max_age": AUDIT_DAYS * 86_400 * _NANOSECONDS,
        "max_msg_size": 65_536,
        "deny_delete": True,
        "deny_purge": True,
    }


def due_consumer_config(settings: Settings) -> JsonObject:
    """The durable that all schedulers share: a dead scheduler's due messages go to another."""
    ack_wait_seconds = settings.PING_RESPONSE_TIMEOUT_SECONDS + REDELIVERY_MARGIN_SECONDS
    return {
        "durable_name": subjects.DUE_CONSUMER,
        "filter_subject": f"{subjects.KEYS}due.*",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_seconds * _NANOSECONDS),
        "max_deliver": -1,
        "max_ack_pending": 100_000,  # above the attempts in flight of all schedulers
        "max_waiting": 512,
    }


async def ensure(client: Client, settings: Settings, *, grow: bool = False) -> None:
    """Makes and updates the whole layout. Raises LayoutError, or UnavailableError.

    Where the disk has no room for the history's whole limit, the limit is fitted to the disk, which
    `history_remark` tells. With `grow`, a limit that was fitted before is raised as far as the disk
    now allows.
    """
    check_server(client)
    await _ensure_stream(client, bucket_config(settings))
    await _ensure_history(client, history_config(settings), grow=grow)
    await _ensure_stream(client, audit_config(settings))
    await _ensure_consumer(client, subjects.BUCKET_STREAM, due_consumer_config(settings))


async def history_remark(client: Client, settings: Settings) -> str | None:
    """A sentence about a history stream that keeps less than the settings say, else None."""
    actual = await _config_of(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}", "history")
    if actual is None or not _is_fitted(actual, history_config(settings)):
        return None
    mebibytes = actual["max_bytes"] / 2**20
    return (
        f"the history stream keeps {mebibytes:.0f} MiB instead of "
        f"GPUPING_HISTORY_STREAM_GB={settings.GPUPING_HISTORY_STREAM_GB}, "
        "because the disk has no room for more"
    )


async def sourced_sequence(client: Client) -> float:
    """Returns the sequence of the bucket's newest message that the history holds.

    Infinity for an empty history, and for one whose last message was not copied from the bucket.
    Raises BusError when the leader of the history does not answer.
    """
    verb = f"STREAM.MSG.GET.{subjects.HISTORY_STREAM}"
    body = {"last_by_subj": f"{subjects.HISTORY_PREFIX}>"}
    try:
        answer = await jetstream_api.call(client, verb, body, timeout=2.0)
    except JetStreamApiError as error:
        if error.err_code == ErrorCode.MESSAGE_NOT_FOUND:
            return math.inf
        raise
    return _source_sequence(answer["message"])


def _source_sequence(message: JsonObject) -> float:
    """Reads `Nats-Stream-Source: <stream> <sequence> <filter> ...` of a stored message."""
    headers = base64.b64decode(message.get("hdrs", "")).decode(errors="replace")
    for line in headers.splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "nats-stream-source":
            return int(value.split()[1])
    return math.inf


async def inspect(client: Client, settings: Settings) -> list[str]:
    """What `ensure` would make or change, in sentences; empty for nothing. Changes nothing."""
    wanted = []
    history = history_config(settings)
    actual_history = await _config_of(client, f"STREAM.INFO.{history['name']}", history["name"])
    if actual_history is not None and _is_fitted(actual_history, history):
        history["max_bytes"] = actual_history["max_bytes"]
    for stream in (bucket_config(settings), history, audit_config(settings)):
        name = stream["name"]
        wanted.append((f"STREAM.INFO.{name}", name, stream))
    consumer = due_consumer_config(settings)
    name = consumer["durable_name"]
    verb = f"CONSUMER.INFO.{subjects.BUCKET_STREAM}.{name}"
    wanted.append((verb, f"consumer {name}", consumer))
    problems = []
    for verb, label, config in wanted:
        actual = await _config_of(client, verb, label)
        if actual is None:
            problems.append(f"{label} does not exist")
            continue
        differing = _differences(config, actual)
        if differing:
            problems.append(f"{label} differs in {', '.join(differing)}")
    return problems


def check_server(client: Client) -> None:
    """Raises LayoutError for a server that is too old for message schedules."""
    version = server_version(client)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        return  # a build of somebody's own: the layout's creation shows what it can do
    major, minor = numbers.groups()
    if (int(major), int(minor)) < OLDEST_SERVER:
        raise LayoutError(
            f"nats-server {version} is too old: gpuping needs 2.12 or newer (scheduled messages)"
        )


def server_version(client: Client) -> str:
    """The version, such as `2.15.1`; nats-py makes it `<nats server v2.15.1>`."""
    return str(client.connected_server_version).removeprefix("<nats server v").removesuffix(">")


async def _ensure_stream(client: Client, wanted: JsonObject) -> None:
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


async def _ensure_history(client: Client, wanted: JsonObject, *, grow: bool) -> None:
    """Makes the history stream with the wanted limit, or with the largest that the disk allows."""
    name = wanted["name"]
    actual = await _config_of(client, f"STREAM.INFO.{name}", name)
    if actual is not None and _is_fitted(actual, wanted) and not grow:
        await _ensure_stream(client, _fitted(wanted, actual["max_bytes"]))
        return
    sizes = [wanted["max_bytes"]]
    if actual is None:
        sizes += _smaller_sizes(wanted["max_bytes"])
    else:
        sizes.append(actual["max_bytes"])
    for size in sizes:
        config = wanted
        if size < wanted["max_bytes"]:
            config = _fitted(wanted, size)
        try:
            await _ensure_stream(client, config)
        except NoRoomError:
            if size == sizes[-1]:
                raise
            continue
        if config is not wanted:
            log.warning("history_limit_fitted", wanted_bytes=wanted["max_bytes"], max_bytes=size)
        return


def _smaller_sizes(wanted_bytes: int) -> list[int]:
    """Halves of the wanted limit, down to SMALLEST_HISTORY_BYTES."""
    sizes = []
    size = wanted_bytes // 2
    while size >= SMALLEST_HISTORY_BYTES:
        sizes.append(size)
        size //= 2
    return sizes


def _fitted(wanted: JsonObject, max_bytes: int) -> JsonObject:
    """The wanted configuration with another limit, which remembers the one that was wanted."""
    metadata = {_WANTED_BYTES: str(wanted["max_bytes"])}
    return wanted | {"max_bytes": max_bytes, "metadata": metadata}


def _is_fitted(actual: JsonObject, wanted: JsonObject) -> bool:
    """Whether the limit of a stream was fitted to the disk when as much as now was wanted."""
    remembered = (actual.get("metadata") or {}).get(_WANTED_BYTES)
    is_smaller: bool = actual["max_bytes"] < wanted["max_bytes"]
    return is_smaller and remembered == str(wanted["max_bytes"])


async def _ensure_consumer(client: Client, stream: str, wanted: JsonObject) -> None:
    name = wanted["durable_name"]
    actual = await _config_of(client, f"CONSUMER.INFO.{stream}.{name}", name)
    if actual is not None and not _differences(wanted, actual):
        return
    # creating a durable consumer that exists updates it
    body = {"stream_name": stream, "config": wanted}
    await _change(client, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body, name)


async def _config_of(client: Client, verb: str, label: str) -> JsonObject | None:
    """A stream's or consumer's configuration; None where it does not exist. Raises LayoutError."""
    try:
        info = await jetstream_api.call(client, verb)
    except JetStreamApiError as error:
        if error.is_not_found:
            return None
        raise LayoutError(f"{label}: {error}") from None
    config: JsonObject = info["config"]
    return config


async def _change(client: Client, verb: str, body: JsonObject, label: str) -> None:
    try:
        await jetstream_api.call(client, verb, body)
    except JetStreamApiError as error:
        text = f"{label}: the server refused it: {error}"
        if error.err_code in _NO_ROOM:
            raise NoRoomError(text) from None
        raise LayoutError(text) from None


def _differences(wanted: JsonObject, actual: JsonObject) -> list[str]:
    """Names of the wanted fields that differ. Fields that are not wanted may have any value."""
    differing = []
    for key, value in wanted.items():
        if not _same(value, actual.get(key)):
            differing.append(key)
    return differing


def _same(wanted: Any, actual: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and not _differences(wanted, actual)
    if isinstance(wanted, list):
        if not isinstance(actual, list) or len(wanted) != len(actual):
            return False
        return all(map(_same, wanted, actual))
    return bool(wanted == actual)
