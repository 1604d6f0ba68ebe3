"""The sessions that were signed out: refused by every gateway until they would have expired.

They are kept in a file of the data dir, so that a restart does not bring them back and gateways
that share the data dir know of each other's. Gateways elsewhere are told over the bus
(`gateway/sign_outs.py`).
"""

import fcntl
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import structlog

from bus.errors import GpupingError
from bus.private_files import open_private

log = structlog.get_logger("gateway.web.access.ended_sessions")

FILE = "gateway-ended-sessions"
MAX_ENDED = 10_000
_LINE = re.compile(rb"^([0-9a-f]{64}) (\d{1,12})$", re.MULTILINE)


class EndedSession(NamedTuple):
    """The hexadecimal hash of a session, and when it would have expired, in seconds since 1970."""

    digest: str
    expires_at: int


class _FileStamp(NamedTuple):
    """What differs after the file was written or replaced."""

    modified_ns: int
    size: int
    inode: int


class EndedSessions:
    """Remembers the last MAX_ENDED sessions that were signed out.

    `folder` is the data dir. Without one they are remembered for as long as this process lasts.
    `now` is in seconds since 1970.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path: Path | None = None
        if folder is not None:
            self._path = folder / FILE
        self._expiries: dict[str, int] = {}  # by hash, in the order in which they ended
        self._stamp: _FileStamp | None = None

    def has(self, digest: str) -> bool:
        """Whether this session was signed out, here or at a gateway that shares the data dir."""
        self._reload_if_changed()
        return digest in self._expiries

    def all(self) -> list[EndedSession]:
        """Every session that is remembered."""
        self._reload_if_changed()
        return [EndedSession(*item) for item in self._expiries.items()]

    def add(self, sessions: Iterable[EndedSession], now: float) -> None:
        """Refuses these sessions from now on. What cannot be written to the file is logged."""
        added: list[EndedSession] = []
        for session in sessions:
            if session.expires_at > now and not self.has(session.digest):
                added.append(session)
        if not added:
            return
        self._remember(added)
        try:
            self._write(now)
        except (GpupingError, OSError) as error:
            log.warning(
                "ended_sessions_write_failed",
                detail=str(error),
                action="this gateway refuses them until it is started again",
            )

    def _remember(self, sessions: Iterable[EndedSession]) -> None:
        self._expiries.update(sessions)
        while len(self._expiries) > MAX_ENDED:
            del self._expiries[next(iter(self._expiries))]

    def _write(self, now: float) -> None:
        """Adds what this process remembers to the file, and drops what has expired."""
        if self._path is None:
            return
        with open_private(self._path, 0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._remember(_parsed(file.read()))
            for digest, expires_at in list(self._expiries.items()):
                if expires_at <= now:
                    del self._expiries[digest]
            lines = [f"{digest} {expires_at}\n" for digest, expires_at in self._expiries.items()]
            file.seek(0)
            file.write("".join(lines).encode())
            file.truncate()

    def _reload_if_changed(self) -> None:
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            return
        stamp = _FileStamp(found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            with open_private(self._path, 0) as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                self._remember(_parsed(file.read()))
        except (GpupingError, OSError) as error:
            log.warning("ended_sessions_read_failed", detail=str(error))


def _parsed(text: bytes) -> list[EndedSession]:
    """The sessions in a file. A line that a crash has cut is left out."""
    return [EndedSession(digest.decode(), int(until)) for digest, until in _LINE.findall(text)]
