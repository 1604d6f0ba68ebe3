"""The dashboard's static files. They are few and small, and are kept in memory as they are sent.

A file is read again when it changes, so that an edit shows without a restart. The pages are those
that `make web` built; where their sources have changed since, or nothing is built, they are the
sources themselves.
"""

import gzip
import hashlib
import mimetypes
import re
from pathlib import Path
from typing import NamedTuple

STATIC_FOLDER = Path(__file__).parent.parent / "static"
BUILT = "built"
_DIGEST_FILE = f"{BUILT}/sources.sha256"
_BUILT_FOLDERS = (f"{BUILT}/", "vendor/")
_SOURCE_SUFFIXES = (".js", ".css", ".html", ".svg")
_HASHED = re.compile(rf"{BUILT}/(?P<stem>[\w-]+)-[0-9A-Z]{{8}}(?P<suffix>\.\w+)")
_BUILD_ID_LENGTH = 16  # as in gateway/web-build.mjs
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
    """A file as it is sent. `compressed` is None for one that gzip would not help.

    One that `is_immutable` has a hash of its content in its name: what has this name never changes.
    """

    stamp: FileStamp
    body: bytes
    compressed: bytes | None
    media_type: str
    etag: str
    is_immutable: bool


class Assets:
    """The files below one folder, found by their relative path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._cache: dict[Path, Asset] = {}
        self._stamps: dict[str, FileStamp] = {}  # of the sources, when `_digest` was made of them
        self._digest = ""

    def page(self, name: str) -> Asset | None:
        """A page such as `index.html`, as it was built, or its source where that is newer."""
        if self._is_build_current():
            return self.find(f"{BUILT}/{name}")
        return self.find(name)

    def build_id(self) -> str | None:
        """Which build the pages are of, as they name it themselves; None while they are sources."""
        made_of = self.find(_DIGEST_FILE)
        if made_of is None or not self._is_build_current():
            return None
        return made_of.body.decode()[:_BUILD_ID_LENGTH]

    def find(self, name: str) -> Asset | None:
        """The file, or None: also for a path out of the folder, or with a part such as `.git`.

        For a file of another build it is the one that is in its place now. While gateways of two
        builds stand behind one address, a page of the one asks the other for its files.
        """
        path = self._resolve(name)
        if path is None:
            return None
        relative = path.relative_to(self._folder).as_posix()
        hashed = _HASHED.fullmatch(relative)
        try:
            stat = path.stat()
            stamp = FileStamp(stat.st_mtime_ns, stat.st_size)
            asset = self._cache.get(path)
            if asset is None or asset.stamp != stamp:
                asset = _read(path, stamp, is_immutable=hashed is not None)
                self._cache[path] = asset
        except OSError:
            if hashed is None:
                return None
            return self._of_present_build(hashed["stem"], hashed["suffix"])
        return asset

    def _of_present_build(self, stem: str, suffix: str) -> Asset | None:
        """What is built under this name with another hash, to be asked for again each time."""
        for path in (self._folder / BUILT).glob(f"{stem}-*{suffix}"):
            relative = path.relative_to(self._folder).as_posix()
            hashed = _HASHED.fullmatch(relative)
            if hashed is not None and hashed["stem"] == stem:
                found = self.find(relative)
                return found and found._replace(is_immutable=False)
        return None

    def _is_build_current(self) -> bool:
        """Whether what is built was made of the sources as they are now."""
        made_of = self.find(_DIGEST_FILE)
        if made_of is None:
            return False
        stamps = self._source_stamps()
        if stamps != self._stamps:
            self._digest = self._sources_digest(sorted(stamps))
            self._stamps = stamps
        return made_of.body.decode().strip() == self._digest

    def _source_stamps(self) -> dict[str, FileStamp]:
        stamps: dict[str, FileStamp] = {}
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder).as_posix()
            is_built = name.startswith(_BUILT_FOLDERS) or path.name.startswith(".")
            if path.suffix in _SOURCE_SUFFIXES and not is_built:
                stat = path.stat()
                stamps[name] = FileStamp(stat.st_mtime_ns, stat.st_size)
        return stamps

    def _sources_digest(self, names: list[str]) -> str:
        """One hash of all sources, as gateway/web-build.mjs computes it."""
        digest = hashlib.sha256()
        for name in names:
            of_file = hashlib.sha256((self._folder / name).read_bytes()).hexdigest()
            digest.update(f"{name} {of_file}\n".encode())
        return digest.hexdigest()

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


def _read(path: Path, stamp: FileStamp, *, is_immutable: bool) -> Asset:
    body = path.read_bytes()
    media_type = _media_type(path)
    compressed = None
    if media_type.startswith(_COMPRESSIBLE) and len(body) >= MIN_COMPRESSED_BYTES:
        compressed = gzip.compress(body, _GZIP_LEVEL)
    digest = hashlib.sha256(body).hexdigest()
    etag = f'"{digest[:20]}"'
    return Asset(stamp, body, compressed, media_type, etag, is_immutable)


def _media_type(path: Path) -> str:
    known = _MEDIA_TYPES.get(path.suffix)
    if known:
        return known
    guessed, _encoding = mimetypes.guess_type(path.name)
    return guessed or "application/octet-stream"
