"""What a backup folder holds, with the hash of each file."""

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bus.errors import GpupingError

MANIFEST = "manifest.json"
FORMAT = 1
READ_BYTES = 1024 * 1024


class BackupError(GpupingError):
    """A backup cannot be made or used. The text says why and what to do."""


class FileEntry(Struct, frozen=True):
    """One file, by its path in the folder."""

    path: str
    bytes: int
    sha256: str


class StreamEntry(Struct, frozen=True):
    """The snapshot of one stream; `config` and `state` are the server's words."""

    name: str
    file: FileEntry
    config: dict[str, Any]
    state: dict[str, Any]


class Manifest(Struct, kw_only=True, frozen=True):
    """The contents of `manifest.json`, which is written last: a folder without it is unfinished.

    `agents` had an entry when the backup was begun; None in backups of versions before.
    """

    format: int
    made_at: datetime
    gpuping_version: str
    server_version: str
    streams: tuple[StreamEntry, ...]
    archive: tuple[FileEntry, ...] = ()
    agents: tuple[str, ...] | None = None

    def stream(self, name: str) -> StreamEntry:
        """The snapshot of that stream. Raises BackupError where there is none."""
        for entry in self.streams:
            if entry.name == name:
                return entry
        raise BackupError(f"the backup has no stream {name}")


class HashedFile:
    """Writes a file and hashes it on the way."""

    def __init__(self, folder: Path, path: str) -> None:
        self._path = path
        self._full_path = folder / path
        self._full_path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._full_path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def close(self) -> FileEntry:
        """The file is on the disk when this returns: what it was copied from may be deleted."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileEntry(self._path, self.size, self._hash.hexdigest())


def write(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, which makes the backup complete."""
    text = msgspec.json.format(msgspec.json.encode(manifest))
    unfinished = folder / f"{MANIFEST}.new"
    with unfinished.open("wb") as file:
        file.write(text + b"\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(folder / MANIFEST)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path) -> Manifest:
    """Reads the manifest. Raises BackupError where the backup cannot be used."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError:
        raise BackupError(f"{folder} is no complete backup: {path} cannot be read") from None
    except msgspec.MsgspecError as error:
        raise BackupError(f"{path} cannot be understood: {error}") from None
    if manifest.format != FORMAT:
        raise BackupError(f"{path} has format {manifest.format}; this gpuping reads {FORMAT}")
    return manifest


def check(folder: Path, entry: FileEntry) -> None:
    """Raises BackupError unless the file has the content that the manifest names."""
    digest = hashlib.sha256()
    try:
        with (folder / entry.path).open("rb") as file:
            while chunk := file.read(READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BackupError(f"{folder / entry.path}: {error.strerror}") from None
    if digest.hexdigest() != entry.sha256:
        raise BackupError(f"{folder / entry.path} is damaged: its hash is not the manifest's")


def chunks(
    folder: Path,
    entry: FileEntry,
    size: int,
) -> Iterator[bytes]:
    """Yields the file's content in pieces of `size` bytes."""
    with (folder / entry.path).open("rb") as file:
        while chunk := file.read(size):
            yield chunk
