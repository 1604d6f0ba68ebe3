"""Restores a backup onto an empty bus, and compares what came out with what was put in.

The bucket is marked until everything is there. So no service works on half of it, and the same
command may be given again after an interruption.

The history is made without its source. What it has beyond the bucket was recorded while the backup
was made, and is cut off: those pings are made again, and no number is given twice. Then the source
is named, from where the history now ends.
"""

import asyncio
import hashlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nats.aio.msg import Msg

from bus.clock import utc_now
from bus.contract import subjects
from bus.settings import Settings
from bus.transport import jetstream_api, layout, stream_snapshot
from bus.transport.connection import Client
from bus.transport.consumers.ordered_consumer import OrderedConsumer
from bus.transport.consumers.pull_consumer import Delivery
from bus.transport.jetstream_api import ErrorCode, JetStreamApiError, JsonObject
from gpuping.backup import lost_states, manifest
from gpuping.backup.making import ARCHIVE, Progress, archive_folder
from gpuping.backup.manifest import BackupError, Manifest, StreamEntry

CUT_AT_ONCE = 200  # messages
READ_AHEAD = 2000
NAME_IN_USE = "stream name already in use"  # under two error codes, by how far the restore had come
SERVERS_OWN = "_nats."  # metadata that the server writes itself
_READER = {
    "ack_policy": "none",
    "mem_storage": True,
    "num_replicas": 1,
    "inactive_threshold": 60 * 1_000_000_000,
    "deliver_policy": "last_per_subject",
}


class Restored(NamedTuple):
    """What stands on the bus now. `cut` outcomes were recorded while the backup was made."""

    agents: int
    outcomes: int
    cut: int
    days: int


async def restore(
    client: Client,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> Restored:
    """Restores everything. Raises BackupError before anything is changed, or BusError."""
    found = manifest.read(folder)
    for entry in [*(stream.file for stream in found.streams), *found.archive]:
        await asyncio.to_thread(manifest.check, folder, entry)
    archive = archive_folder(settings)
    if not await _is_unfinished_restore(client):
        await _refuse_a_bus_in_use(client, found)
        if found.archive and archive.is_dir() and any(archive.iterdir()):
            raise BackupError(f"{archive} is not empty: restore onto an empty data dir")
    await _refuse_running_schedulers(client)
    await _delete_streams(client, found)
    bucket = await put(
        client,
        folder,
        found.stream(subjects.BUCKET_STREAM),
        layout.bucket_config(settings),
        progress,
        may_lack_states=found.agents is not None,
        mark=layout.RESTORING,
    )
    history_config = layout.history_config(settings)
    history = found.stream(subjects.HISTORY_STREAM)
    await put(client, folder, history, without_source(history_config), progress)
    cut = await cut_after(client, bucket["state"]["last_seq"])
    if found.agents is not None:
        await lost_states.refill(client, found.agents)
    audit = found.stream(subjects.AUDIT_STREAM)
    await put(client, folder, audit, layout.audit_config(settings), progress)
    agents = await compare(client)
    await follow_from_here(client, history_config)
    await asyncio.to_thread(_restore_archive, folder, found, archive, progress)
    await mark_restored(client)
    await layout.ensure(client, settings)
    days = {entry.path.split("/")[1] for entry in found.archive}
    outcomes = history.state["messages"] - cut
    return Restored(agents, outcomes, cut, len(days))


async def put(
    client: Client,
    folder: Path,
    entry: StreamEntry,
    wanted: JsonObject,
    progress: Progress,
    *,
    may_lack_states: bool = False,
    mark: str | None = None,
) -> JsonObject:
    """Makes one stream as it was, with what the settings want where that does not cost messages.

    `mark` is metadata that it gets besides.

    Raises BackupError where it has fewer messages than before, unless `may_lack_states`: those of
    the bucket are then put back from the history.
    """
    config = merged(entry.config, wanted)
    if mark is not None:
        config["metadata"][mark] = utc_now().isoformat()
    total = max(1, entry.file.bytes)
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for chunk in manifest.chunks(folder, entry.file, stream_snapshot.CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            progress(entry.name, sent, total)

    try:
        information = await stream_snapshot.put(client, config, entry.state, counted())
    except JetStreamApiError as error:
        if NAME_IN_USE not in str(error):
            raise
        raise BackupError(
            f"{entry.name} was made by somebody else meanwhile, or by an interrupted run of this "
            "command: stop all services and give the command again"
        ) from None
    for figure in ("messages", "first_seq", "last_seq"):
        expected = entry.state[figure]
        # What was written while the snapshot was taken may be in it as well.
        if figure == "first_seq" and information["state"][figure] != expected:
            continue
        if figure == "messages" and may_lack_states:
            continue
        if information["state"][figure] < expected:
            raise BackupError(
                f"{entry.name} has {figure} {information['state'][figure]} after the restore, and "
                f"had {expected}: do not use it"
            )
    return information


def merged(was: JsonObject, wanted: JsonObject) -> JsonObject:
    """Returns the configuration of a restored stream: as it was, with what is wanted now.

    Limits are those of the larger one, so that nothing is dropped.
    """
    config = was | wanted
    for limit in ("max_age", "max_bytes", "max_msgs_per_subject"):
        values = [was.get(limit, 0), wanted.get(limit, was.get(limit, 0))]
        if min(values) > 0:
            config[limit] = max(values)
        else:
            config[limit] = min(values)
    if "persist_mode" not in wanted:
        config.pop("persist_mode", None)
    if "sources" not in wanted:
        config.pop("sources", None)
    metadata = was.get("metadata") or {}
    config["metadata"] = {
        name: value for name, value in metadata.items() if not name.startswith(SERVERS_OWN)
    }
    for mark in (layout.MIGRATING, layout.RESTORING):
        config["metadata"].pop(mark, None)
    return config


def without_source(history_config: JsonObject) -> JsonObject:
    """The history's configuration before it follows the bucket."""
    return {name: value for name, value in history_config.items() if name != "sources"}


async def mark_restored(client: Client) -> None:
    """Notes in the bucket what of it was restored, so that the next outcomes can say so.

    Services may use it from then on.
    """
    name = subjects.BUCKET_STREAM
    information = await jetstream_api.call(client, f"STREAM.INFO.{name}")
    config = information["config"]
    metadata = config.get("metadata") or {}
    metadata.pop(layout.RESTORING, None)
    metadata[layout.RESTORED_THROUGH] = str(information["state"]["last_seq"])
    config["metadata"] = metadata
    await jetstream_api.call(client, f"STREAM.UPDATE.{name}", config)


async def cut_after(client: Client, bucket_sequence: int) -> int:
    """Deletes the outcomes at the end of the history that the bucket does not know.

    Returns how many. They are the last ones, because the history has the order of the bucket.
    """
    name = subjects.HISTORY_STREAM
    information = await jetstream_api.call(client, f"STREAM.INFO.{name}")
    first = information["state"]["first_seq"]
    sequence = information["state"]["last_seq"]
    cut = 0
    while sequence >= first:
        numbers = range(sequence, max(first, sequence - CUT_AT_ONCE + 1) - 1, -1)
        sources = await asyncio.gather(*(_source_of(client, number) for number in numbers))
        beyond = []
        for number, source in zip(numbers, sources, strict=True):
            if source is not None and source > bucket_sequence:
                beyond.append(number)
        deletions = []
        for number in beyond:
            body = {"seq": number, "no_erase": True}
            deletions.append(jetstream_api.call(client, f"STREAM.MSG.DELETE.{name}", body))
        await asyncio.gather(*deletions)
        cut += len(beyond)
        if any(source is not None and source <= bucket_sequence for source in sources):
            break
        sequence -= len(numbers)
    return cut


async def _source_of(client: Client, sequence: int) -> float | None:
    body = {"seq": sequence}
    try:
        answer = await jetstream_api.call(
            client, f"STREAM.MSG.GET.{subjects.HISTORY_STREAM}", body, timeout=30.0
        )
    except JetStreamApiError as error:
        if error.err_code == ErrorCode.MESSAGE_NOT_FOUND:
            return None
        raise
    return layout.source_sequence(answer["message"])


async def follow_from_here(client: Client, history_config: JsonObject) -> None:
    """Lets the history follow the bucket, beginning after the last state that it holds.

    Without the start the server would copy every state of the bucket once more.
    """
    name = subjects.HISTORY_STREAM
    position = await layout.sourced_sequence(client)
    source = dict(history_config["sources"][0])
    if not math.isinf(position):
        source["opt_start_seq"] = int(position) + 1
    information = await jetstream_api.call(client, f"STREAM.INFO.{name}")
    config = information["config"] | {"sources": [source]}
    config.pop("subjects", None)
    await jetstream_api.call(client, f"STREAM.UPDATE.{name}", config)


async def compare(client: Client) -> int:
    """Compares each agent's state with its last outcome in the history; returns how many agree.

    An agent whose outcomes have all expired is not compared. Raises BackupError for a difference.
    """
    states = await _last_values(client, subjects.BUCKET_STREAM, subjects.state_key("*"))
    outcomes = await _last_values(client, subjects.HISTORY_STREAM, f"{subjects.HISTORY_PREFIX}*")
    differing = []
    for agent_id, value in states.items():
        if agent_id in outcomes and outcomes[agent_id] != value:
            differing.append(agent_id)
    if differing:
        raise BackupError(
            f"the last outcome of {len(differing)} agents differs between bucket and history "
            f"({', '.join(differing[:3])}): do not use this bus"
        )
    return len(states)


async def _last_values(
    client: Client,
    stream: str,
    subject: str,
) -> dict[str, bytes]:
    """Returns the hash of the last message of each agent."""
    values: dict[str, bytes] = {}
    complete = asyncio.Event()

    def deliver(message: Msg, where: Delivery) -> None:
        agent_id = message.subject.rpartition(".")[2]
        values[agent_id] = hashlib.blake2b(message.data, digest_size=16).digest()
        if where.pending == 0:
            complete.set()

    consumer = OrderedConsumer(client, stream, deliver, lambda: READ_AHEAD)
    while True:
        values.clear()
        config = {**_READER, "filter_subject": subject}
        if await consumer.create(config, {}) == 0:
            return values
        reading = asyncio.create_task(consumer.run())
        finished = asyncio.create_task(complete.wait())
        await asyncio.wait({reading, finished}, return_when=asyncio.FIRST_COMPLETED)
        consumer.stop()
        finished.cancel()
        await asyncio.wait({reading, finished})
        if complete.is_set():
            return values


async def _refuse_a_bus_in_use(client: Client, found: Manifest) -> None:
    """Raises BackupError unless every stream is missing or has no message."""
    for entry in found.streams:
        information = await _information(client, entry.name)
        if information is not None and information["state"]["messages"] > 0:
            raise BackupError(
                f"this bus is not empty: {entry.name} has {information['state']['messages']} "
                "messages. Restore onto a new server, or a new data dir"
            )


async def _refuse_running_schedulers(client: Client) -> None:
    """Raises BackupError while a scheduler waits for due messages: it has read the empty bucket."""
    verb = f"CONSUMER.INFO.{subjects.BUCKET_STREAM}.{subjects.DUE_CONSUMER}"
    try:
        information = await jetstream_api.call(client, verb)
    except JetStreamApiError as error:
        if error.is_not_found:
            return
        raise
    if information.get("num_waiting", 0) > 0:
        raise BackupError("a scheduler runs on this bus: stop all services first")


async def _is_unfinished_restore(client: Client) -> bool:
    """Whether an earlier restore onto this bus was interrupted: nobody has used it since."""
    information = await _information(client, subjects.BUCKET_STREAM)
    if information is None:
        return False
    return layout.RESTORING in (information["config"].get("metadata") or {})


async def _delete_streams(client: Client, found: Manifest) -> None:
    """Deletes empty streams, and those of a restore that was interrupted; the bucket last.

    As long as it stands, what is left is known to be unfinished.
    """
    for entry in reversed(found.streams):
        if await _information(client, entry.name) is not None:
            await jetstream_api.call(client, f"STREAM.DELETE.{entry.name}")


async def _information(client: Client, stream: str) -> JsonObject | None:
    try:
        return await jetstream_api.call(client, f"STREAM.INFO.{stream}")
    except JetStreamApiError as error:
        if error.is_not_found:
            return None
        raise


def _restore_archive(
    folder: Path,
    found: Manifest,
    archive: Path,
    progress: Progress,
) -> None:
    for number, entry in enumerate(found.archive, 1):
        target = archive / Path(entry.path).relative_to(ARCHIVE)
        target.parent.mkdir(
            parents=True,
            exist_ok=True,
            mode=0o700,
        )
        shutil.copyfile(folder / entry.path, target)
        progress("archive", number, len(found.archive))
