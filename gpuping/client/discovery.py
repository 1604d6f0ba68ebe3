"""How verbs find a running system: `<data-dir>/bus.json`, written by `up`, and the lock that keeps a second `up` out.

The lock is an flock: the kernel gives it back however its owner dies, so no stale lock can stand in the way.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from bus.errors import GpupingError
from bus.settings import Settings

TAKEOVER_SECONDS = 5.0


class BusFile(Struct, kw_only=True, frozen=True):
    """`bus.json`. `pid` and `process_started` (clock ticks since boot) name one process, even after pids repeat."""

    schema_version: int = 1
    pid: int
    process_started: int
    started_at: datetime
    nats_url: str
    gateway_url: str


class InUseError(GpupingError):
    """Another `gpuping up` works on this data dir."""


def write(data_dir: Path, started_at: datetime, nats_url: str, gateway_url: str) -> None:
    """Readable by its owner alone; appears whole or not at all."""
    pid = os.getpid()
    started = _process_started(pid) or 0
    file = BusFile(
        pid=pid,
        process_started=started,
        started_at=started_at,
        nats_url=nats_url,
        gateway_url=gateway_url,
    )
    unfinished = data_dir / f".bus.json.{pid}"
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(file)) + b"\n")
    unfinished.replace(_path(data_dir))


def remove(data_dir: Path) -> None:
    """After this, verbs say that nothing runs here."""
    _path(data_dir).unlink(missing_ok=True)


def find(data_dir: Path) -> BusFile | None:
    """The system that runs on this data dir now; a file whose writer is gone counts for nothing."""
    try:
        file = msgspec.json.decode(_path(data_dir).read_bytes(), type=BusFile)
    except (OSError, msgspec.DecodeError):
        return None
    return file if _process_started(file.pid) == file.process_started else None


def is_stopped(data_dir: Path) -> bool:
    """Whether a system lives in this data dir and does not run now. Then another one must not be taken for it."""
    return (data_dir / "nats").is_dir() and find(data_dir) is None


def located(settings: Settings) -> Settings:
    """The settings with the address of the running system: NATS_URL or NATS_CONTEXT, or else what bus.json says."""
    if settings.NATS_URL or settings.NATS_CONTEXT:
        return settings
    found = find(settings.data_dir)
    return msgspec.structs.replace(settings, NATS_URL=found.nats_url) if found else settings


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Nobody else runs `up` on this data dir for the length of the block. Raises InUseError."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "up.lock").open("a+")
    except OSError as error:
        raise GpupingError(f"the data dir {data_dir} cannot be used: {error.strerror}") from None
    with file:
        _take(file, data_dir)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _take(file: IO[str], data_dir: Path) -> None:
    """Waits a moment for a run that was just killed: its children may hold the lock a little longer than it."""
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _owner(file)
            if _process_started(pid) is not None or time.monotonic() > deadline:
                raise InUseError(
                    f"`gpuping up` already runs on {data_dir} (pid {pid}): stop it, or choose another --data-dir"
                ) from None
            time.sleep(0.05)
        else:
            return


def _owner(file: IO[str]) -> int:
    file.seek(0)
    text = file.read().strip()
    return int(text) if text.isdigit() else 0


def _process_started(pid: int) -> int | None:
    """Start of a living process in clock ticks since boot; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _path(data_dir: Path) -> Path:
    return data_dir / "bus.json"
