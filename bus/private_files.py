"""Folders and files of ours that nobody else may read or change, whatever the host's defaults are.

A data dir that somebody else owns may hold symbolic links to files that only we may write. So such
a folder is refused, and no file is opened through a link.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from bus.errors import GpupingError, SettingsError

_ROOT = 0


class PrivateFileError(GpupingError):
    """A file of ours cannot be opened, or is not ours."""


def hide_new_files() -> None:
    """What this process and its children make from now on is for their user alone."""
    os.umask(0o077)


def private_folder(folder: Path, setting: str) -> None:
    """Makes the folder for this user alone, or makes sure of one that exists.

    Raises SettingsError as `check_folder` does, and for a folder that cannot be made.
    """
    try:
        folder.mkdir(
            mode=0o700,
            parents=True,
            exist_ok=True,
        )
    except OSError as error:
        raise SettingsError(
            f"{setting}={str(folder)!r} cannot be used: {error.strerror or error}"
        ) from None
    check_folder(folder, setting)


def check_folder(folder: Path, setting: str) -> None:
    """Makes sure that a folder, if it exists, is this user's alone.

    Raises SettingsError, which begins with the `setting` that names the folder, for one that
    belongs to somebody else or that everybody may write to. A folder of root is accepted, as
    volumes of containers are; it keeps its mode.
    """
    shown = f"{setting}={str(folder)!r}"
    try:
        found = folder.stat()
    except OSError:
        return  # whoever needs it says why it cannot be used
    if found.st_uid not in {os.geteuid(), _ROOT}:
        raise SettingsError(
            f"{shown} belongs to another user (uid {found.st_uid}), who could have files of "
            "yours overwritten: choose another, or chown it"
        )
    if found.st_mode & stat.S_IWOTH:
        raise SettingsError(
            f"{shown} can be written by everybody: choose another, "
            "or look at what is in it and chmod 700 it"
        )
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)


def open_private(path: Path, flags: int) -> BinaryIO:
    """Opens a file of ours for reading and writing, without following a link.

    `flags` are added to O_RDWR and O_CREAT. A file that others may read is hidden from them. Raises
    PrivateFileError.
    """
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        reason = error.strerror or str(error)
        if path.is_symlink():
            reason = "it is a symbolic link, and nothing is written through one"
        raise PrivateFileError(f"{path} cannot be written: {reason}") from None
    file = os.fdopen(descriptor, "r+b")
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        file.close()
        raise PrivateFileError(f"{path} cannot be written: it is no file of this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.fchmod(descriptor, 0o600)
    return file
