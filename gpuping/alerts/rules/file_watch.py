"""The alerts file on the disk: read at the start, and again when it changes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from bus.errors import GpupingError, SettingsError
from bus.identity.credentials import CredentialsError, read_secret
from bus.settings import Settings
from gpuping.alerts.rules.alerts_file import AlertsFile, parse
from gpuping.alerts.rules.rulebook import Rulebook

log = structlog.get_logger("gpuping.alerts.file")

RECHECK_SECONDS = 2.0


class _Stamp(NamedTuple):
    """What differs after the file was written or replaced."""

    modified_ns: int
    size: int
    inode: int


class FileWatch:
    """The rulebook of GPUPING_ALERTS_FILE; without one, the ready-made rules and no target."""

    def __init__(self, settings: Settings, on_change: Callable[[], None]) -> None:
        self._path: Path | None = None
        if settings.GPUPING_ALERTS_FILE:
            self._path = Path(settings.GPUPING_ALERTS_FILE).expanduser()
        self._on_change = on_change
        self._stamp = self._stamp_now()
        self.rulebook = Rulebook(read(settings))

    async def run(self) -> None:
        """Reads the file again when it changes. One that cannot be used changes nothing."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            stamp = self._stamp_now()
            if self._path is None or stamp is None or stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                self.rulebook = Rulebook(_read(self._path))
            except GpupingError as error:
                log.error("alerts_file_refused", detail=str(error), action="the rules stay")
            else:
                log.info("alerts_file_read", targets=len(self.rulebook.file.target))
                self._on_change()

    def _stamp_now(self) -> _Stamp | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino)


def read(settings: Settings) -> AlertsFile:
    """The alerts file, or one that says nothing where none is set. Raises SettingsError."""
    if not settings.GPUPING_ALERTS_FILE:
        return AlertsFile()
    return _read(Path(settings.GPUPING_ALERTS_FILE).expanduser())


def _read(path: Path) -> AlertsFile:
    setting = f"GPUPING_ALERTS_FILE={str(path)!r}"
    try:
        text = read_secret(path)  # the addresses of targets have passwords in them
    except CredentialsError as error:
        raise SettingsError(f"GPUPING_ALERTS_FILE: {error}") from None
    return parse(text, setting)
