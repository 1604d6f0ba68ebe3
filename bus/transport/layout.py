"""The JetStream layout: buckets, history, audit log, and the consumer that schedulers share.

`ensure` makes what is missing and compares what exists. Everything is checked before anything is
changed. What could cost messages or copies of them is never changed by the way: the depth of the
bucket, replicas, and limits of age and bytes may only grow, replicas not even that
(`gpuping bus migrate`). The reasons for the values are in docs/decisions/jetstream.md. nats-py's
`create_key_value()` cannot make this bucket: it sets `discard: new`, with which the server forbids
message schedules (error 10052).
"""

import base64
import math
import re
from collections import deque
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from nats.aio.client import Client

from bus.contract import subjects
from bus.errors import LayoutError, UnavailableError
from bus.settings import Settings
from bus.transport import jetstream_api
from bus.transport.jetstream_api import (
    ErrorCode,
    JetStreamApiError,
    JsonObject,
    NotAvailableError,
)

log = structlog.get_logger("bus.transport.layout")

OLDEST_SERVER = (2, 12)  # the first with atomic batches and scheduled messages
REDELIVERY_MARGIN_SECONDS = 30.0
AUDIT_DAYS = 3650  # as long as bills are kept
AUDIT_BYTES = 256 * 2**20  # half a million entries of the usual size
# What a stream is fitted to at least, where the disk has little room.
SMALLEST_BYTES = {
    subjects.HISTORY_STREAM: 64 * 2**20,  # a month of a hundred hosts
    subjects.AUDIT_STREAM: 2**20,
}
# What must be free beside them, as a part of their size: the buckets have no limit of their own.
ROOM_BESIDE = {subjects.HISTORY_STREAM: 1 / 3, subjects.AUDIT_STREAM: 1.0}
_WANTED_BYTES = "gpuping.wanted_max_bytes"  # in the metadata of a stream that was fitted
_NO_ROOM = frozenset({ErrorCode.INSUFFICIENT_RESOURCES, ErrorCode.STORAGE_EXCEEDED})
_NANOSECONDS = 1_000_000_000
# Metadata of the bucket after `gpuping restore`: its last sequence then. The next outcome of every
# state up to it follows what was restored, and not what was recorded after the backup.
RESTORED_THROUGH = "gpuping.restored-through"
MIGRATING = "gpuping.migrating"  # metadata of the bucket while another stream is made anew
RESTORING = "gpuping.restoring"  # the same while `gpuping restore` has not finished
# A lower one of these deletes messages at once.
_LIMITS = ("max_msgs_per_subject", "max_age", "max_bytes")
_AGAIN = "if it was interrupted, run it again"
_UNCHANGEABLE = frozenset({"storage", "retention", "persist_mode"})


class Problem(NamedTuple):
    """What of the layout is not as the settings want it, in a sentence, and what mends it.

    `start`: `ensure` does, when a service starts. `command`: the command that the sentence names,
    given again. `operator`: nothing changes it by itself.
    """

    text: str
    mended_by: Literal["start", "command", "operator"]


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
    """The audit log: its messages can neither be deleted nor purged, they only expire.

    Whoever may change something could otherwise fill the disk with entries, so that it is bounded
    in bytes, too; the oldest entries go first.
    """
    return {
        "name": subjects.AUDIT_STREAM,
        "subjects": [subjects.AUDIT_ALL],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "num_replicas": settings.GPUPING_REPLICAS,
        "max_age": AUDIT_DAYS * 86_400 * _NANOSECONDS,
        "max_bytes": AUDIT_BYTES,
        "max_msg_size": 65_536,
        "deny_delete": True,
        "deny_purge": True,
    }


def alerts_config(settings: Settings) -> JsonObject:
    """The bucket `gpuping_alerts`: what is wrong, what is to be told, and what was told."""
    return {
        "name": subjects.ALERTS_STREAM,
        "subjects": [f"{subjects.ALERTS_KEYS}>"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "num_replicas": settings.GPUPING_REPLICAS,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
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


class _MadeMeanwhileError(LayoutError):
    """Another service made the stream since it was planned, with another limit of bytes."""


class _Found(NamedTuple):
    """A stream that exists: its configuration, and how much it keeps."""

    config: JsonObject
    bytes: int


class _Fit(NamedTuple):
    """A stream with some limit of bytes.

    `reserved` is tried. Where the disk has room for it, the stream gets `kept`, which is less, so
    that the streams without a limit have room beside it.
    """

    reserved: JsonObject
    kept: JsonObject


class _Change(NamedTuple):
    """What brings one stream into line, with the largest limit of `fits` that there is room for."""

    verb: str
    fits: tuple[_Fit, ...]  # the first is what is wanted
    label: str
    event: str
    details: JsonObject


async def ensure(
    client: Client,
    settings: Settings,
    *,
    grow: bool = False,
) -> None:
    """Makes and updates the whole layout. Raises LayoutError, or UnavailableError.

    What differs and is not changed is logged, and named by `inspect`. Where the disk has no room
    for a stream's whole limit, the limit is fitted to the disk, which `room_remark` tells.
    With `grow`, a limit that was fitted before is raised as far as the disk now allows.
    """
    check_server(client)
    changes = deque(await _plan(client, settings, grow=grow))
    while changes:
        change = changes.popleft()
        try:
            await _apply(client, change)
        except _MadeMeanwhileError as error:
            log.info("stream_made_meanwhile", stream=change.label, detail=str(error))
            changes = deque(await _plan(client, settings, grow=grow))
            continue
        if change.details:
            log.warning(change.event, stream=change.label, **change.details)
        else:
            log.info(change.event, stream=change.label)  # the first start of all
    await ensure_consumer(client, settings)
    for problem in await inspect(client, settings):
        log.error("layout_not_as_set", detail=problem.text)


async def ensure_consumer(client: Client, settings: Settings) -> None:
    """Makes the schedulers' consumer, or brings it into line. Makes no stream."""
    await _ensure_consumer(client, subjects.BUCKET_STREAM, due_consumer_config(settings))


def stream_configs(settings: Settings) -> list[JsonObject]:
    """Every stream as the settings want it."""
    return [
        bucket_config(settings),
        history_config(settings),
        audit_config(settings),
        alerts_config(settings),
    ]


async def _plan(
    client: Client,
    settings: Settings,
    *,
    grow: bool,
) -> list[_Change]:
    """Returns what is to be changed. Raises LayoutError before the first change."""
    actual: dict[str, _Found] = {}
    for wanted in stream_configs(settings):
        stream = await _found(client, wanted["name"])
        if stream is not None:
            actual[wanted["name"]] = stream
    _refuse_unfinished(actual.get(subjects.BUCKET_STREAM))
    replicas = [settings.GPUPING_REPLICAS]
    replicas += [stream.config["num_replicas"] for stream in actual.values()]
    most = msgspec.structs.replace(settings, GPUPING_REPLICAS=max(replicas))
    changes = []
    for wanted in stream_configs(most):
        found = actual.get(wanted["name"])
        if found is None:
            changes.append(await _creation(client, wanted))
        else:
            fitted = _without_lowering(settings, wanted["name"], found, grow=grow)
            differing = _differences(fitted, found.config)
            _refuse_unchangeable(wanted["name"], differing)
            if differing:
                changes.append(_update(fitted, found, differing))
    return changes


def unfinished(bucket_config: JsonObject) -> str | None:
    """A sentence about a command that makes streams and has not finished; None for none."""
    metadata = bucket_config.get("metadata") or {}
    if MIGRATING in metadata:
        return f"`gpuping bus migrate` is changing the streams: {_AGAIN}"
    if RESTORING in metadata:
        return f"`gpuping restore` has not finished on this bus, and outcomes are missing: {_AGAIN}"
    return None


def _refuse_unfinished(bucket: _Found | None) -> None:
    """Raises UnavailableError while `gpuping bus migrate` or `gpuping restore` makes streams."""
    if bucket is None:
        return
    sentence = unfinished(bucket.config)
    if sentence is not None:
        raise UnavailableError(sentence)


async def _creation(client: Client, wanted: JsonObject) -> _Change:
    """Returns the creation of a stream.

    A bucket that is made while the history stands is numbered from where the history ends: the
    server would skip its first messages otherwise, because it has copied those numbers before.
    """
    name = wanted["name"]
    details: JsonObject = {}
    if name == subjects.BUCKET_STREAM:
        position = await _position_of_old_history(client)
        if position:
            wanted = wanted | {"first_seq": position + 1}
            details = {
                "detail": "the bucket was gone, and the history stream is not empty",
                "action": "let the agents register again; they continue where they were",
            }
    return _Change(f"STREAM.CREATE.{name}", _fits(wanted), name, "stream_created", details)


async def _position_of_old_history(client: Client) -> int:
    try:
        position = await sourced_sequence(client)
    except JetStreamApiError:
        return 0  # there is no history
    if math.isinf(position):
        return 0
    return int(position)


def _update(
    wanted: JsonObject,
    found: _Found,
    differing: list[str],
) -> _Change:
    name = wanted["name"]
    label = f"{name} ({', '.join(differing)} differ)"
    details = {"fields": differing}
    body = found.config | wanted
    fits: tuple[_Fit, ...] = (_Fit(body, body),)
    if "max_bytes" in differing:
        least = max(found.config["max_bytes"], found.bytes)
        unchanged = found.config | _fitted(wanted, found.config["max_bytes"])
        larger = (fit for fit in _fits(body) if fit.kept["max_bytes"] > least)
        fits = (*larger, _Fit(unchanged, unchanged))
    return _Change(f"STREAM.UPDATE.{name}", fits, label, "stream_updated", details)


def _fits(wanted: JsonObject) -> tuple[_Fit, ...]:
    """The stream as wanted, and with halves of its limit down to SMALLEST_BYTES.

    A stream without a limit is made as it is.
    """
    smallest = SMALLEST_BYTES.get(wanted["name"])
    if smallest is None:
        return (_Fit(wanted, wanted),)
    whole: int = wanted["max_bytes"]
    fits = []
    size = whole
    while size >= smallest or size == whole:
        kept = wanted
        if size < whole:
            kept = _fitted(wanted, size)
        room = int(size * ROOM_BESIDE[wanted["name"]])
        fits.append(_Fit(kept | {"max_bytes": size + room}, kept))
        size //= 2
    return tuple(fits)


async def _apply(client: Client, change: _Change) -> None:
    wanted = change.fits[0].kept
    for fit in change.fits:
        try:
            await _change(client, change.verb, fit.reserved, change.label)
        except NoRoomError:
            if fit is change.fits[-1]:
                raise
            continue
        if fit.kept != fit.reserved:
            await _change(client, f"STREAM.UPDATE.{wanted['name']}", fit.kept, change.label)
        if fit is not change.fits[0]:
            log.warning(
                "stream_limit_fitted",
                stream=wanted["name"],
                wanted_bytes=wanted["max_bytes"],
                max_bytes=fit.kept["max_bytes"],
            )
        return


def _without_lowering(
    settings: Settings,
    name: str,
    found: _Found,
    *,
    grow: bool = False,
) -> JsonObject:
    """Returns the stream as wanted, without what must not change: replicas, and what is less.

    A limit that was fitted to the disk stays as it is, unless it shall grow. A stream without a
    limit of bytes gets one where everything that it keeps fits into it.
    """
    config = found.config
    same_replicas = msgspec.structs.replace(settings, GPUPING_REPLICAS=config["num_replicas"])
    wanted = next(other for other in stream_configs(same_replicas) if other["name"] == name)
    for limit in _LIMITS:
        if limit not in wanted or _is_less(config.get(limit, 0), wanted[limit]):
            continue
        is_unbounded = limit == "max_bytes" and config[limit] <= 0
        if not is_unbounded or found.bytes > wanted[limit]:
            wanted[limit] = config[limit]
    if _is_fitted(config, wanted) and not grow:
        return _fitted(wanted, config["max_bytes"])
    return wanted


def _is_less(found: int, wanted: int) -> bool:
    """Returns whether a limit is lower than wanted. 0 and less stand for no limit."""
    if found <= 0:
        return False
    return wanted <= 0 or found < wanted


def _refuse_unchangeable(name: str, differing: list[str]) -> None:
    refused = sorted(set(differing) & _UNCHANGEABLE)
    if refused:
        raise LayoutError(
            f"{name}: {', '.join(refused)} cannot be changed on a stream that exists: "
            "nothing was changed; back it up, delete it and restore it"
        )


async def room_remark(client: Client, settings: Settings) -> str | None:
    """A sentence about streams that keep less than they should, for want of room; else None."""
    history_gigabytes = settings.GPUPING_HISTORY_STREAM_GB
    audit_mebibytes = AUDIT_BYTES // 2**20
    parts = []
    kept = await _fitted_mebibytes(client, history_config(settings))
    if kept is not None:
        parts.append(
            f"the history stream keeps {kept:.0f} MiB instead of "
            f"GPUPING_HISTORY_STREAM_GB={history_gigabytes}"
        )
    kept = await _fitted_mebibytes(client, audit_config(settings))
    if kept is not None:
        parts.append(f"the audit log keeps {kept:.0f} MiB instead of {audit_mebibytes} MiB")
    if not parts:
        return None
    return f"{' and '.join(parts)}, because the disk has no room for more"


async def _fitted_mebibytes(client: Client, wanted: JsonObject) -> float | None:
    """How much a stream keeps whose limit was fitted to the disk; None for any other."""
    found = await _found(client, wanted["name"])
    if found is None or not _is_fitted(found.config, wanted):
        return None
    return float(found.config["max_bytes"] / 2**20)


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
    return source_sequence(answer["message"])


def source_sequence(message: JsonObject) -> float:
    """Returns the sequence in the bucket of a message of the history, as the API returned it.

    It is in the header `Nats-Stream-Source: <stream> <sequence> <filter> ...`. Infinity without it.
    """
    headers = base64.b64decode(message.get("hdrs", "")).decode(errors="replace")
    for line in headers.splitlines():
        name, _, value = line.partition(":")
        if name.lower() == "nats-stream-source":
            words = value.split()
            if len(words) > 1 and words[1].isdigit():
                return int(words[1])
    return math.inf


async def inspect(client: Client, settings: Settings) -> list[Problem]:
    """What is not as the settings want it; empty for nothing. Changes nothing.

    Raises BusError when the server does not answer.
    """
    bucket = await _found(client, subjects.BUCKET_STREAM)
    if bucket is not None:
        sentence = unfinished(bucket.config)
        if sentence is not None:
            return [Problem(sentence, "command")]  # what else differs is on its way
    problems = []
    names_by_replicas: dict[int, list[str]] = {}
    for wanted in stream_configs(settings):
        stream = await _found(client, wanted["name"])
        if stream is None:
            problems.append(Problem(f"{wanted['name']} does not exist", "start"))
            continue
        replicas = stream.config["num_replicas"]
        if replicas != settings.GPUPING_REPLICAS:
            names_by_replicas.setdefault(replicas, []).append(wanted["name"])
        problems += _problems_of(settings, wanted, stream)
    for replicas, names in names_by_replicas.items():
        text = _replicas_sentence(replicas, names, settings.GPUPING_REPLICAS)
        problems.append(Problem(text, "operator"))
    consumer = due_consumer_config(settings)
    name = consumer["durable_name"]
    label = f"consumer {name}"
    found = await _config_of(client, f"CONSUMER.INFO.{subjects.BUCKET_STREAM}.{name}", label)
    if found is None:
        problems.append(Problem(f"{label} does not exist", "start"))
    elif differing := _differences(consumer, found):
        problems.append(Problem(f"{label} differs in {', '.join(differing)}", "start"))
    return problems


def _replicas_sentence(replicas: int, names: list[str], wanted: int) -> str:
    return (
        f"{', '.join(names)}: num_replicas is {replicas} and GPUPING_REPLICAS is {wanted}: set it "
        f"to {replicas} for every service, or change the streams with "
        f"`gpuping bus migrate --replicas {wanted}`"
    )


def _problems_of(
    settings: Settings,
    wanted: JsonObject,
    stream: _Found,
) -> list[Problem]:
    name = wanted["name"]
    found = stream.config
    problems = []
    kept = _without_lowering(settings, name, stream)
    for limit in _LIMITS:
        if limit in kept and _is_less(wanted[limit], kept[limit]):
            text = (
                f"{name} has {limit} {found[limit]}, which is more than the settings say "
                f"({wanted[limit]}), and is never lowered by itself"
            )
            problems.append(Problem(text, "operator"))
    differing = _differences(kept, found)
    if differing:
        problems.append(Problem(f"{name} differs in {', '.join(differing)}", "start"))
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


def _fitted(wanted: JsonObject, max_bytes: int) -> JsonObject:
    """The wanted configuration with another limit, which remembers the one that was wanted."""
    metadata = (wanted.get("metadata") or {}) | {_WANTED_BYTES: str(wanted["max_bytes"])}
    return wanted | {"max_bytes": max_bytes, "metadata": metadata}


def _is_fitted(actual: JsonObject, wanted: JsonObject) -> bool:
    """Whether the limit of a stream was fitted to the disk when as much as now was wanted."""
    if "max_bytes" not in wanted:
        return False
    remembered = (actual.get("metadata") or {}).get(_WANTED_BYTES)
    return _is_less(actual["max_bytes"], wanted["max_bytes"]) and remembered == str(
        wanted["max_bytes"]
    )


async def _ensure_consumer(
    client: Client,
    stream: str,
    wanted: JsonObject,
) -> None:
    name = wanted["durable_name"]
    actual = await _config_of(client, f"CONSUMER.INFO.{stream}.{name}", name)
    if actual is not None and not _differences(wanted, actual):
        return
    # creating a durable consumer that exists updates it
    body = {"stream_name": stream, "config": wanted}
    await _change(client, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body, name)


async def _found(client: Client, name: str) -> _Found | None:
    """A stream; None where it does not exist. Raises LayoutError."""
    try:
        info = await jetstream_api.call(client, f"STREAM.INFO.{name}")
    except NotAvailableError:
        raise
    except JetStreamApiError as error:
        if error.is_not_found:
            return None
        raise LayoutError(f"{name}: {error}") from None
    return _Found(info["config"], info["state"]["bytes"])


async def _config_of(
    client: Client,
    verb: str,
    label: str,
) -> JsonObject | None:
    """A consumer's configuration; None where it does not exist. Raises LayoutError."""
    try:
        info = await jetstream_api.call(client, verb)
    except NotAvailableError:
        raise
    except JetStreamApiError as error:
        if error.is_not_found:
            return None
        raise LayoutError(f"{label}: {error}") from None
    config: JsonObject = info["config"]
    return config


async def _change(
    client: Client,
    verb: str,
    body: JsonObject,
    label: str,
) -> None:
    try:
        await jetstream_api.call(client, verb, body)
    except NotAvailableError:
        raise
    except JetStreamApiError as error:
        text = f"{label}: the server refused it: {error}"
        if error.err_code in _NO_ROOM:
            raise NoRoomError(text) from None
        if error.err_code == ErrorCode.STREAM_NAME_IN_USE:
            raise _MadeMeanwhileError(text) from None
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
