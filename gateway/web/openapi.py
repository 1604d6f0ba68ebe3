"""The OpenAPI 3.1 description and its page.

Nothing in either points outside: the page works on a machine without a network, and nobody learns that it
was opened.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Response, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
    Tag,
)
from msgspec import Struct

from bus.transport.micro_services import VERSION
from gateway.web.problems import ProblemError

PATH = "/schema"
VENDOR = "/static/vendor"
CSV, PARQUET, HTML = "text/csv", "application/vnd.apache.parquet", "text/html"
_SHAPES = {PARQUET: OpenAPIFormat.BINARY}

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gpuping: REST interface</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{VENDOR}/swagger-ui.css">
</head>
<body>
<div id="page"><p>The description itself is at <a href="{PATH}/openapi.json">{PATH}/openapi.json</a>.</p></div>
<script src="{VENDOR}/swagger-ui-bundle.js"></script>
<script src="{PATH}/page.js"></script>
</body>
</html>
"""

_SCRIPT = f"""if (window.SwaggerUIBundle) {{
  SwaggerUIBundle({{
    url: "{PATH}/openapi.json", dom_id: "#page", validatorUrl: null, deepLinking: true, displayRequestDuration: true,
  }});
}}
"""


class _Page(OpenAPIRenderPlugin):
    """Swagger UI from our own vendor folder; without that folder, a link to the description."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return _PAGE.encode()


class _Script(OpenAPIRenderPlugin):
    """A file of its own, because the content security policy forbids scripts inside a page."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return _SCRIPT.encode()


def config() -> OpenAPIConfig:
    """What Litestar needs to describe the routes."""
    page = _Page(path="/")
    return OpenAPIConfig(
        title="gpuping",
        version=VERSION,
        summary="GPU uptime that can be paid on",
        description="Every error is an `application/problem+json` document. Times are RFC 3339 UTC, durations are "
        "seconds, percents are 0..100 or null where nothing was observed.",
        openapi_router=Router(
            PATH, route_handlers=[], include_in_schema=False, after_request=_refuse_unknown
        ),
        render_plugins=[
            page,
            _Script(path="/page.js", media_type="text/javascript"),  # type: ignore[arg-type]  # any string serves
            JsonRenderPlugin(),
        ],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http", scheme="bearer", description="where a tokens file is set"
                )
            }
        ),
        security=[{}, {"bearer": []}],
        tags=[
            Tag("agents", "Who is monitored"),
            Tag("pings", "Outcomes, now and in history"),
            Tag("live", "Asked of the agent itself, over the bus"),
            Tag("fleet", "All agents together"),
            Tag("operation", "For probes and monitoring of gpuping itself"),
        ],
    )


def address(path: str, accept: str) -> str:
    """The description itself for a program that asks the page's address for JSON; every other path as it is."""
    is_page = path.rstrip("/") == PATH
    return (
        f"{PATH}/openapi.json"
        if is_page and "json" in accept and "text/html" not in accept
        else path
    )


async def _refuse_unknown(response: Response[Any]) -> Response[Any]:
    """Litestar answers an unknown page below its own with HTML; ours is a problem like any other."""
    if response.status_code == 404:
        raise ProblemError(404, "nothing is at this address")
    return response


def request_body(body: type[Struct]) -> type[Operation]:
    """An operation whose body is `body`: routes read it themselves, so that every fault is told the same way."""
    (described,), components = msgspec.json.schema_components([body], ref_template="#/{name}")
    schema = components.get(body.__name__, described)
    media = {"application/json": OpenAPIMediaType(schema=_schema(schema))}

    @dataclass
    class Taking(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=media, required=True)

    return Taking


def response_formats(*media_types: str, json: bool = True) -> type[Operation]:
    """An operation that answers with files too, or without `json` with nothing else."""
    files = {
        name: OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING, format=_SHAPES.get(name)))
        for name in media_types
    }

    @dataclass
    class Giving(Operation):
        def __post_init__(self) -> None:
            if self.responses and isinstance(answer := self.responses.get("200"), OpenAPIResponse):
                answer.content = {**((answer.content or {}) if json else {}), **files}

    return Giving


def _schema(plain: dict[str, Any]) -> Schema:
    """A JSON schema of msgspec as Litestar's object, as far as our bodies go."""
    return Schema(
        type=plain.get("type"),
        title=plain.get("title"),
        description=plain.get("description"),
        required=plain.get("required"),
        pattern=plain.get("pattern"),
        min_length=plain.get("minLength"),
        max_length=plain.get("maxLength"),
        max_items=plain.get("maxItems"),
        items=_schema(plain["items"]) if plain.get("items") else None,
        any_of=[_schema(choice) for choice in plain["anyOf"]] if "anyOf" in plain else None,
        properties={name: _schema(value) for name, value in plain.get("properties", {}).items()}
        or None,
    )
