"""Changes how many servers keep each stream, without a lost outcome, while schedulers run.

The server changes the bucket and the audit log in place. It refuses that for a history stream that
was made for one server (`persist_mode`, error 10052), so the history is copied out and made again:

1. Its source is removed. From then on the history stands still, and schedulers hold pings as soon
   as an agent's last state is not in it. So no outcome is overwritten.
2. A snapshot is written to the backup folder, and its manifest.
3. The stream is deleted, made again from the snapshot with the new number of replicas, and follows
   the bucket from where it stopped. The held pings are made then: late, none is lost.

The bucket is marked meanwhile, so that no service that starts makes a history of its own. After an
interruption the same command goes on from the step that it had reached.
"""

import asyncio
from pathlib import Path

import msgspec

from bus.clock import utc_now
from bus.contract import subjects
from bus.settings import Settings
from bus.transport import jetstream_api, layout, micro_services
from bus.transport.connection import Client
from bus.transport.jetstream_api import JetStreamApiError, JsonObject
from gpuping.backup import making, manifest, restoring
from gpuping.backup.making import Progress
from gpuping.backup.manifest import BackupError, Manifest

REPLICATED_SECONDS = 600.0
POLL_SECONDS = 0.5
SETTLED_SECONDS = 3.0  # a batch that is on its way when the source is removed


async def migrate(
    client: Client,
    settings: Settings,
    replicas: int,
    folder: Path,
    progress: Progress,
) -> None:
    """Brings every stream to `replicas`. Raises BackupError or BusError."""
    bucket = await _config(client, subjects.BUCKET_STREAM)
    if bucket is None:
        raise BackupError("there is no bucket on this bus: there is nothing to migrate")
    wanted = msgspec.structs.replace(settings, GPUPING_REPLICAS=replicas)
    history = await _config(client, subjects.HISTORY_STREAM)
    is_complete = (folder / manifest.MANIFEST).exists()
    if history is None and not is_complete:
        raise BackupError(
            f"the history stream is gone, and {folder} has no complete copy of it: name the folder "
            "of the migration that was interrupted"
        )
    await _change(client, subjects.BUCKET_STREAM, replicas)
    await _mark(client, is_marked=True)
    # One without its source is not finished, whatever it looks like: a restore that was interrupted
    # leaves a stream with messages that the server throws away.
    is_finished = history is not None and bool(history.get("sources"))
    if history is None or not is_finished or history["num_replicas"] != replicas:
        await _remake_history(client, wanted, history, folder, progress)
    await restoring.follow_from_here(client, layout.history_config(wanted))
    await _change(client, subjects.AUDIT_STREAM, replicas)
    await _change(client, subjects.ALERTS_STREAM, replicas)
    await _mark(client, is_marked=False)
    await layout.ensure(client, wanted)
    for stream in layout.stream_configs(wanted):
        await _until_replicated(client, stream["name"])


async def _remake_history(
    client: Client,
    wanted: Settings,
    history: JsonObject | None,
    folder: Path,
    progress: Progress,
) -> None:
    name = subjects.HISTORY_STREAM
    if history is not None and not await _is_copied(client, history, folder):
        if not history.get("sources") and history["num_replicas"] == wanted.GPUPING_REPLICAS:
            raise BackupError(
                f"the history was being made again, and {folder} has no copy of it: name the "
                "folder of the migration that was interrupted"
            )
        folder.mkdir(
            parents=True,
            exist_ok=True,
            mode=0o700,
        )
        history.pop("sources", None)
        await jetstream_api.call(client, f"STREAM.UPDATE.{name}", history)
        await asyncio.sleep(SETTLED_SECONDS)
        entry = await making.snapshot(client, name, folder, progress)
        copied = Manifest(
            format=manifest.FORMAT,
            made_at=utc_now(),
            gpuping_version=micro_services.VERSION,
            server_version=layout.server_version(client),
            streams=(entry,),
        )
        manifest.write(folder, copied)
        await _refuse_incomplete(client, entry.state)
    if history is not None:
        await jetstream_api.call(client, f"STREAM.DELETE.{name}")
    found = manifest.read(folder)
    entry = found.stream(name)
    await asyncio.to_thread(manifest.check, folder, entry.file)
    config = restoring.without_source(layout.history_config(wanted))
    await restoring.put(client, folder, entry, config, progress)


async def _is_copied(
    client: Client,
    history: JsonObject,
    folder: Path,
) -> bool:
    """Returns whether the folder has all of the history, from a run that was interrupted then.

    Raises BackupError where it holds another copy.
    """
    if not (folder / manifest.MANIFEST).exists():
        return False
    entry = manifest.read(folder).stream(subjects.HISTORY_STREAM)
    information = await jetstream_api.call(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
    has_grown = information["state"]["last_seq"] > entry.state["last_seq"]
    if history.get("sources") or has_grown:
        raise BackupError(f"{folder} holds another backup already: name an empty folder")
    await asyncio.to_thread(manifest.check, folder, entry.file)
    return True


async def _refuse_incomplete(client: Client, state: JsonObject) -> None:
    """Raises BackupError if the history grew after the snapshot, which must not happen."""
    information = await jetstream_api.call(client, f"STREAM.INFO.{subjects.HISTORY_STREAM}")
    if information["state"]["last_seq"] != state["last_seq"]:
        raise BackupError("the history still grows without its source: nothing was deleted")


async def _config(client: Client, stream: str) -> JsonObject | None:
    try:
        information = await jetstream_api.call(client, f"STREAM.INFO.{stream}")
    except JetStreamApiError as error:
        if error.is_not_found:
            return None
        raise
    config: JsonObject = information["config"]
    return config


async def _change(
    client: Client,
    stream: str,
    replicas: int,
) -> None:
    """Changes the replicas of a stream in place, where they differ."""
    config = await _config(client, stream)
    if config is not None and config["num_replicas"] != replicas:
        config["num_replicas"] = replicas
        await jetstream_api.call(client, f"STREAM.UPDATE.{stream}", config, 30.0)


async def _mark(client: Client, *, is_marked: bool) -> None:
    """Marks the bucket as being migrated, or takes the mark away."""
    config = await _config(client, subjects.BUCKET_STREAM)
    assert config is not None  # noqa: S101  # looked at before
    metadata = config.get("metadata") or {}
    metadata.pop(layout.MIGRATING, None)
    if is_marked:
        metadata[layout.MIGRATING] = utc_now().isoformat()
    config["metadata"] = metadata
    await jetstream_api.call(client, f"STREAM.UPDATE.{subjects.BUCKET_STREAM}", config, 30.0)


async def _until_replicated(client: Client, stream: str) -> None:
    """Returns when every replica is up to date."""
    try:
        async with asyncio.timeout(REPLICATED_SECONDS):
            while not await _is_replicated(client, stream):  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)  # the servers copy on their own
    except TimeoutError:
        raise BackupError(
            f"{stream} is not yet copied to every server: see `nats stream report`"
        ) from None


async def _is_replicated(client: Client, stream: str) -> bool:
    information = await jetstream_api.call(client, f"STREAM.INFO.{stream}", timeout=30.0)
    replicas = (information.get("cluster") or {}).get("replicas") or []
    if len(replicas) + 1 < information["config"]["num_replicas"]:
        return False
    return all(replica.get("current", False) for replica in replicas)
