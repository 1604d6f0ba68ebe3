"""The Allow header of OPTIONS responses."""

from litestar.enums import ScopeType
from litestar.routes import HTTPRoute
from litestar.types import Message, Scope


async def complete_allow_header(message: Message, scope: Scope) -> None:
    """Litestar's `before_send` hook: names every method of the path in an OPTIONS response.

    Litestar's own handler names only the methods of the handler that was registered first for the
    path: for an agent's path it left out DELETE (seen with Litestar 2.25).
    """
    if message["type"] != "http.response.start" or scope["type"] != ScopeType.HTTP:
        return
    if scope["method"] != "OPTIONS":
        return
    template = scope.get("path_template")
    for route in scope["litestar_app"].routes:
        if isinstance(route, HTTPRoute) and route.path_format == template:
            allow = ", ".join(sorted(route.methods)).encode()
            others = [header for header in message["headers"] if header[0].lower() != b"allow"]
            message["headers"] = [*others, (b"allow", allow)]
            return
