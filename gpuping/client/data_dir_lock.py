"""The lock that lets only one `gpuping up` work on a data dir.

It is an flock. The kernel releases it when its owner ends, however that happens, so no stale lock
can remain.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bus.errors import GpupingError
from bus.private_files import open_private, private_folder
from gpuping.client.process_times import start_ticks

# Children of an owner that was just killed may hold the lock a little longer than their parent.
TAKEOVER_SECONDS = 5.0
RETRY_SECONDS = 0.05


class DataDirInUseError(GpupingError):
    """Another `gpuping up` works on this data dir."""


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Holds the lock for the length of the block, and makes the data dir where it is missing.

    Raises DataDirInUseError, SettingsError for a data dir that is not this user's alone, or
    PrivateFileError.
    """
    private_folder(data_dir, "GPUPING_DATA_DIR")
    file = open_private(data_dir / "up.lock", 0)
    with file:
        _acquire(file, data_dir)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        yield


def _acquire(file: BinaryIO, data_dir: Path) -> None:
    """Tries for TAKEOVER_SECONDS, but fails at once while the owner is alive."""
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _owner(file)
            owner_is_alive = start_ticks(pid) is not None
            if owner_is_alive or time.monotonic() > deadline:
                raise DataDirInUseError(
                    f"`gpuping up` already runs on {data_dir} (pid {pid}): "
                    "stop it, or choose another --data-dir"
                ) from None
            time.sleep(RETRY_SECONDS)
        else:
            return


def _owner(file: BinaryIO) -> int:
    """The pid in the file. Returns 0 while the file is empty."""
    file.seek(0)
    text = file.read().strip()
    if not text.isdigit():
        return 0
    return int(text)
