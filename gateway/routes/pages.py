"""The web dashboard's files, and its sessions.

Files are few and small: each is read once, kept with its hash and its compressed form, and read again when it changes.
"""

import gzip
import hashlib
import mimetypes
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from gateway.web import json_body
from gateway.web.auth import Guard, expired_session_cookie, session_cookie
from gateway.web.problems import ProblemError, error_responses

STATIC = Path(__file__).parent.parent / "static"
WORTH_COMPRESSING = 1_000
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_COMPRESSIBLE = ("text/", "application/json", "image/svg+xml")


class Asset(NamedTuple):
    """A file as it is sent."""

    stamp: tuple[int, int]
    body: bytes
    compressed: bytes | None
    media_type: str
    etag: str


class Assets:
    """The files below one folder, by relative path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: dict[Path, Asset] = {}

    def find(self, name: str) -> Asset | None:
        """The file, or None: also for whatever is not below the folder, or begins with a dot."""
        path = (self._folder / name.lstrip("/")).resolve() if "\0" not in name else self._folder
        if not path.is_relative_to(self._folder) or any(
            part.startswith(".") for part in Path(name).parts
        ):
            return None
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            asset = self._known.get(path)
            if asset is None or asset.stamp != stamp:
                asset = self._known[path] = _read(path, stamp)
        except OSError:
            return None
        return asset


def _read(path: Path, stamp: tuple[int, int]) -> Asset:
    body = path.read_bytes()
    media_type = (
        _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    )
    is_text = media_type.startswith(_COMPRESSIBLE)
    compressed = gzip.compress(body, 6) if is_text and len(body) >= WORTH_COMPRESSING else None
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return Asset(stamp, body, compressed, media_type, etag)


@get("/", include_in_schema=False)
async def index(
    request: Request[Any, Any, Any], assets: NamedDependency[Assets]
) -> Response[bytes]:
    """The dashboard. The page holds no data; what it asks for needs a token where tokens are set."""
    return _send(request, assets.find("index.html"))


@get("/favicon.ico", include_in_schema=False)
async def favicon(
    request: Request[Any, Any, Any], assets: NamedDependency[Assets]
) -> Response[bytes]:
    """Browsers ask for it at this address whatever the page says."""
    return _send(request, assets.find("favicon.svg"))


@get("/static/{path:path}", include_in_schema=False)
async def static(
    request: Request[Any, Any, Any], path: FromPath[Path], assets: NamedDependency[Assets]
) -> Response[bytes]:
    """A file of the dashboard."""
    return _send(request, assets.find(str(path)))


def _send(request: Request[Any, Any, Any], asset: Asset | None) -> Response[bytes]:
    """Always asked for again (`no-cache`) and answered with 304 while unchanged: an update shows at once."""
    if asset is None:
        raise ProblemError(404, "nothing is at this address")
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=asset.media_type)
    body = asset.body
    if asset.compressed and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = asset.compressed, "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)


class Login(Struct, frozen=True):
    """What somebody typed into the page."""

    token: str


@post(
    "/login",
    status_code=204,
    tags=["operation"],
    summary="Begin a browser session",
    responses=error_responses(401, 429),
)
async def login(request: Request[Any, Any, Any], guard: NamedDependency[Guard]) -> Response[None]:
    """Sets the session cookie. Browsers need it, because an event stream cannot carry an Authorization header."""
    body = await json_body.read_json(request, Login)
    if guard.is_open:
        return Response(None, status_code=204)
    secret = body.token.strip()
    guard.log_in(secret, request.client.host if request.client else "?")
    cookie = session_cookie(secret, secure=request.scope["scheme"] == "https")
    return Response(None, status_code=204, headers={"Set-Cookie": cookie})


@post("/logout", status_code=204, tags=["operation"], summary="End a browser session")
async def logout() -> Response[None]:
    """Takes the session cookie back."""
    return Response(None, status_code=204, headers={"Set-Cookie": expired_session_cookie()})
