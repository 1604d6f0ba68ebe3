"""Makes a backup while everything runs.

The bucket comes first, and the history once it holds every state that the bucket's snapshot can
have. So no outcome is in the bucket alone. The history is then ahead of the bucket, by what was
recorded meanwhile; `restore` cuts that off, so that no number is given twice. A state that was
replaced while the bucket was copied may be missing from it; `restore` takes it from the history.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from bus.clock import utc_now
from bus.contract import subjects
from bus.settings import Settings
from bus.transport import jetstream_api, layout, micro_services, stream_snapshot
from bus.transport.connection import Client
from gpuping.backup import lost_states, manifest
from gpuping.backup.manifest import BackupError, FileEntry, HashedFile, Manifest, StreamEntry

FOLLOW_SECONDS = 180.0  # a lost sourcing consumer is tried again after up to 120 s
POLL_SECONDS = 0.1
ARCHIVE = "archive"
Progress = Callable[[str, int, int], None]  # what is copied, bytes so far, bytes in all


async def back_up(
    client: Client,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> Manifest:
    """Writes the backup into a new folder. Raises BackupError or BusError."""
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty: name a folder of its own for each backup")
    folder.mkdir(
        parents=True,
        exist_ok=True,
        mode=0o700,
    )
    agents = await lost_states.agent_ids(client, subjects.agent_key("*"))
    bucket = await snapshot(client, subjects.BUCKET_STREAM, folder, progress)
    await until_followed(client, await _last_sequence(client, subjects.BUCKET_STREAM))
    history = await snapshot(client, subjects.HISTORY_STREAM, folder, progress)
    audit = await snapshot(client, subjects.AUDIT_STREAM, folder, progress)
    archive = await asyncio.to_thread(_copy_archive, settings, folder, progress)
    made = Manifest(
        format=manifest.FORMAT,
        made_at=utc_now(),
        gpuping_version=micro_services.VERSION,
        server_version=layout.server_version(client),
        streams=(bucket, history, audit),
        archive=archive,
        agents=tuple(sorted(agents)),
    )
    manifest.write(folder, made)
    return made


async def snapshot(
    client: Client,
    stream: str,
    folder: Path,
    progress: Progress,
) -> StreamEntry:
    """Writes the snapshot of one stream into the folder."""
    information = await jetstream_api.call(client, f"STREAM.INFO.{stream}")
    expected_bytes = information["state"]["bytes"]
    file = HashedFile(folder, f"{stream}.snapshot")

    def write(chunk: bytes) -> None:
        file.write(chunk)
        progress(stream, min(file.size, expected_bytes), expected_bytes)

    taken = await stream_snapshot.take(client, stream, write)
    entry = file.close()
    progress(stream, expected_bytes, expected_bytes)
    return StreamEntry(stream, entry, taken["config"], taken["state"])


async def until_followed(client: Client, sequence: int) -> None:
    """Returns when the history holds every state up to this sequence of the bucket.

    The newest messages of the bucket may be no states, so what counts is the newest state.
    """
    newest_state = await _newest_state(client)
    wanted = min(sequence, newest_state)
    try:
        async with asyncio.timeout(FOLLOW_SECONDS):
            while await layout.sourced_sequence(client) < wanted:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)  # the server follows on its own
    except TimeoutError:
        raise BackupError(
            "the history stream does not follow the bucket: see `gpuping doctor`, then try again"
        ) from None


async def _last_sequence(client: Client, stream: str) -> int:
    information = await jetstream_api.call(client, f"STREAM.INFO.{stream}")
    sequence: int = information["state"]["last_seq"]
    return sequence


async def _newest_state(client: Client) -> int:
    body = {"last_by_subj": subjects.state_key("*")}
    try:
        answer = await jetstream_api.call(client, f"STREAM.MSG.GET.{subjects.BUCKET_STREAM}", body)
    except jetstream_api.JetStreamApiError as error:
        if error.err_code == jetstream_api.ErrorCode.MESSAGE_NOT_FOUND:
            return 0
        raise
    sequence: int = answer["message"]["seq"]
    return sequence


def archive_folder(settings: Settings) -> Path:
    """Where storage of this data dir keeps its Parquet archive."""
    return settings.data_dir / "storage" / f"{settings.STORAGE_NAME}.archive"


def _copy_archive(
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> tuple[FileEntry, ...]:
    """Copies the day folders of the Parquet archive; there are none on a machine without storage.

    Storage may archive a day again meanwhile: files that are new are copied too, and ones that are
    gone are left out. Older files of a day do no harm.
    """
    source = archive_folder(settings)
    copied: dict[Path, FileEntry] = {}
    while True:
        missing = sorted(set(source.rglob("*.parquet")) - set(copied))
        if not missing:
            return tuple(copied.values())
        for path in missing:
            entry = _copy_file(source, path, folder)
            if entry is not None:
                copied[path] = entry
            progress("archive", len(copied), len(missing))


def _copy_file(
    source: Path,
    path: Path,
    folder: Path,
) -> FileEntry | None:
    """Returns None for a file that is gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    target = HashedFile(folder, f"{ARCHIVE}/{path.relative_to(source)}")
    with file:
        while chunk := file.read(manifest.READ_BYTES):
            target.write(chunk)
    return target.close()


def check_keys(
    settings: Settings,
    folder: Path,
    keys_folder: Path,
) -> None:
    """Raises BackupError where `copy_keys` could not copy them, or not apart from the backup."""
    if not _identity_folder(settings).is_dir():
        raise BackupError(f"{settings.data_dir} has no keys to copy")
    if keys_folder.exists():
        raise BackupError(f"{keys_folder} exists: name another folder for the keys")
    if keys_folder.resolve().is_relative_to(folder.resolve()):
        raise BackupError(
            f"{keys_folder} is in the backup: whoever reads a backup must not get the keys; name "
            "another folder for them"
        )


def copy_keys(settings: Settings, folder: Path) -> None:
    """Copies the identities of the data dir into a folder of their own, for their owner only."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_identity_folder(settings), folder, symlinks=True)
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_dir():
            path.chmod(0o700)
        else:
            path.chmod(0o600)


def _identity_folder(settings: Settings) -> Path:
    return settings.data_dir / "identity"
