"""The dashboard page and its files."""

from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.web.assets import Asset, Assets
from gateway.web.problems import ProblemError

# A shared worker follows the policy of its own file: it loads modules, and opens the event stream.
_SCRIPT_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"

_YEAR_SECONDS = 31_536_000


@get("/", include_in_schema=False)
async def index(
    request: Request[Any, Any, Any], assets: NamedDependency[Assets]
) -> Response[bytes]:
    """The dashboard. The page holds no data, so it needs no token; what it asks for does."""
    return _send(request, assets.page("index.html"))


@get("/map", include_in_schema=False)
async def fleet_map_page(
    request: Request[Any, Any, Any], assets: NamedDependency[Assets]
) -> Response[bytes]:
    """The map of the fleet."""
    return _send(request, assets.page("map.html"))


@get("/favicon.ico", include_in_schema=False)
async def favicon(
    request: Request[Any, Any, Any], assets: NamedDependency[Assets]
) -> Response[bytes]:
    """Browsers ask for this address on their own, whatever the page says."""
    return _send(request, assets.find("favicon.svg"))


@get("/static/{path:path}", include_in_schema=False)
async def static(
    request: Request[Any, Any, Any],
    path: FromPath[Path],
    assets: NamedDependency[Assets],
) -> Response[bytes]:
    """A file of the dashboard."""
    return _send(request, assets.find(str(path)))


def _send(request: Request[Any, Any, Any], asset: Asset | None) -> Response[bytes]:
    """The file, or 304 where the browser has it. Raises a 404 problem for None.

    `no-cache` makes browsers ask each time, so that an update shows at once. The files that a page
    names by the hash of their content are asked for once.
    """
    if asset is None:
        raise ProblemError(404, "nothing is at this address")
    caching = "no-cache"
    if asset.is_immutable:
        caching = f"public, max-age={_YEAR_SECONDS}, immutable"
    headers = {"ETag": asset.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(
            b"",
            status_code=304,
            headers=headers,
            media_type=asset.media_type,
        )
    if asset.media_type == "text/javascript":
        headers["Content-Security-Policy"] = _SCRIPT_POLICY
    body = asset.body
    if asset.compressed and "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.compressed
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)
