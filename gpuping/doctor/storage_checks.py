"""The check of every storage on the bus: one that is frozen answers nothing, and others hide it."""

from datetime import datetime

from bus.contract import subjects
from bus.transport import jetstream_api, micro_services
from bus.transport.connection import Client
from bus.transport.jetstream_api import JsonObject
from gpuping.output.findings import Finding, note, ok, warning
from gpuping.output.formats import counted

# A storage acknowledges what it has written several times a second while outcomes arrive.
SILENT_SECONDS = 15.0


async def followers(client: Client) -> Finding:
    """Whether each storage follows the history stream, by the server's word. Raises BusError."""
    verb = f"CONSUMER.LIST.{subjects.HISTORY_STREAM}"
    answer = await jetstream_api.call(client, verb)
    consumers = answer.get("consumers") or []
    durable = [one for one in consumers if one["config"].get("durable_name")]
    if not durable:
        return note("storages", "no storage has read the history yet")
    answering = await _answering(client)
    silent = []
    for one in durable:
        # One of a version before does not say its name. Then only the consumers can tell.
        is_mute = bool(answering) and one["name"] not in answering
        if is_mute or does_not_follow(one):
            silent.append(one["name"])
    if not silent:
        return ok("storages", f"the history is followed by {counted(len(durable), 'storage')}")
    names = ", ".join(sorted(silent))
    advice = (
        "see their logs and start them again; of one that is gone for good delete the consumer "
        f"(`nats consumer rm {subjects.HISTORY_STREAM} NAME`)"
    )
    text = f"these do not answer, or do not follow the history: {names}"
    return warning("storages", text, advice)


async def _answering(client: Client) -> set[str]:
    """Returns the names of the storages that answer now, as far as they say them."""
    names = set()
    ping = subjects.micro_ping(subjects.STORAGE_SERVICE)
    for found in await micro_services.discover(client, ping):
        name = (found.get("metadata") or {}).get(micro_services.INSTANCE)
        if name:
            names.add(name)
    return names


def does_not_follow(consumer: JsonObject) -> bool:
    """Returns whether outcomes wait for a storage that has acknowledged none for long."""
    waiting = consumer.get("num_pending", 0) + consumer.get("num_ack_pending", 0)
    if waiting == 0:
        return False
    acknowledged = consumer.get("ack_floor", {}).get("last_active") or consumer["created"]
    silent = datetime.fromisoformat(consumer["ts"]) - datetime.fromisoformat(acknowledged)
    return silent.total_seconds() > SILENT_SECONDS
