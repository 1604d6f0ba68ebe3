"""The dashboard's static files. They are few and small, and are kept in memory as they are sent.

A file is read again when it changes, so that an edit shows without a restart.
"""

import gzip
import hashlib
import mimetypes
from pathlib import Path
from typing import NamedTuple

STATIC_FOLDER = Path(__file__).parent.parent / "static"
MIN_COMPRESSED_BYTES = 1_000  # gzip gains nothing below
_GZIP_LEVEL = 6
_COMPRESSIBLE = ("text/", "application/json", "image/svg+xml")
# the operating system's table may lack these or name them otherwise
_MEDIA_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class FileStamp(NamedTuple):
    """What differs after a file was written."""

    modified_ns: int
    size: int


class Asset(NamedTuple):
    """A file as it is sent. `compressed` is None for one that gzip would not help."""

    stamp: FileStamp
    body: bytes
    compressed: bytes | None
    media_type: str
    etag: str


class Assets:
    """The files below one folder, found by their relative path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._cache: dict[Path, Asset] = {}

    def find(self, name: str) -> Asset | None:
        """The file, or None: also for a path out of the folder, or with a part such as `.git`."""
        path = self._resolve(name)
        if path is None:
            return None
        try:
            stat = path.stat()
            stamp = FileStamp(stat.st_mtime_ns, stat.st_size)
            asset = self._cache.get(path)
            if asset is None or asset.stamp != stamp:
                asset = _read(path, stamp)
                self._cache[path] = asset
        except OSError:
            return None
        return asset

    def _resolve(self, name: str) -> Path | None:
        if "\0" in name:
            return None
        for part in Path(name).parts:
            if part.startswith("."):
                return None
        path = (self._folder / name.lstrip("/")).resolve()
        if not path.is_relative_to(self._folder):
            return None
        return path


def _read(path: Path, stamp: FileStamp) -> Asset:
    body = path.read_bytes()
    media_type = _media_type(path)
    compressed = None
    if media_type.startswith(_COMPRESSIBLE) and len(body) >= MIN_COMPRESSED_BYTES:
        compressed = gzip.compress(body, _GZIP_LEVEL)
    digest = hashlib.sha256(body).hexdigest()
    return Asset(stamp, body, compressed, media_type, etag=f'"{digest[:20]}"')


def _media_type(path: Path) -> str:
    known = _MEDIA_TYPES.get(path.suffix)
    if known:
        return known
    guessed, _encoding = mimetypes.guess_type(path.name)
    return guessed or "application/octet-stream"
