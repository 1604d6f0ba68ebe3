"""The JetStream layout: the bucket, the history sourced from it, and the schedulers' shared consumer.

Made idempotently by whoever starts first, and checked against what is there: a stream that somebody made
otherwise is brought into line where the server allows it, and refused loudly where it does not. Why each
value is what it is stands in docs/decisions.md; `create_key_value()` cannot make this bucket, because its
`discard: new` forbids message scheduling (server error 10052).
"""

import json
import re
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client

from bus.contract import subjects
from bus.errors import LayoutError, UnavailableError
from bus.settings import Settings

log = structlog.get_logger("bus.transport.layout")

OLDEST_SERVER = (2, 12)  # the first with atomic batches and scheduled messages
REDELIVERY_MARGIN_SECONDS = 30.0
_API = "$JS.API"
_NANOSECONDS = 1_000_000_000
_NOT_FOUND = {10059, 10014}  # stream, consumer


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
        info = await api(client, verb)
        if "error" in info:
            problems.append(f"{label} does not exist")
        elif differing := _differences(config, _config(info, label)):
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


async def api(
    client: Client, verb: str, body: dict[str, Any] | None = None, timeout: float = 5.0
) -> dict[str, Any]:
    """One JetStream API call; the answer as it came, an `error` inside it included. Raises UnavailableError."""
    try:
        reply = await client.request(
            f"{_API}.{verb}", json.dumps(body or {}).encode(), timeout=timeout
        )
    except nats.errors.NoRespondersError:
        raise UnavailableError(
            "JetStream is not enabled on this server: start it with -js, or set jetstream {}"
        ) from None
    except (TimeoutError, nats.errors.Error) as error:
        raise UnavailableError(f"JetStream did not answer {verb}: {type(error).__name__}") from None
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def _ensure_stream(client: Client, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    info = await api(client, f"STREAM.INFO.{name}")
    if info.get("error", {}).get("err_code") in _NOT_FOUND:
        await _done(client, f"STREAM.CREATE.{name}", wanted, name)
        log.info("stream_created", stream=name)
        return
    differing = _differences(wanted, _config(info, name))
    if differing:
        log.warning("stream_brought_into_line", stream=name, fields=differing)
        await _done(client, f"STREAM.UPDATE.{name}", _config(info, name) | wanted, name, differing)


async def _ensure_consumer(client: Client, stream: str, wanted: dict[str, Any]) -> None:
    name = wanted["durable_name"]
    info = await api(client, f"CONSUMER.INFO.{stream}.{name}")
    if "error" not in info and not _differences(wanted, _config(info, name)):
        return
    # creating a durable that exists updates it
    await _done(
        client,
        f"CONSUMER.DURABLE.CREATE.{stream}.{name}",
        {"stream_name": stream, "config": wanted},
        name,
    )


async def _done(
    client: Client, verb: str, body: dict[str, Any], name: str, fields: list[str] | None = None
) -> None:
    answer = await api(client, verb, body)
    if error := answer.get("error"):
        about = f" ({', '.join(fields)} differ)" if fields else ""
        raise LayoutError(
            f"{name}{about}: the server refused it: {error.get('description')} [{error.get('err_code')}]"
        )


def _config(info: dict[str, Any], name: str) -> dict[str, Any]:
    if error := info.get("error"):
        raise LayoutError(f"{name}: {error.get('description')} [{error.get('err_code')}]")
    config: dict[str, Any] = info["config"]
    return config


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
