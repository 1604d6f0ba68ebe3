"""The OpenAPI 3.1 document of the REST interface, and the Swagger UI page that shows it.

Neither refers to another host: the page works on a machine without a network, and no third party
learns that somebody opened it.
"""

import re
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
    Server,
    Tag,
)
from msgspec import Struct

from bus.transport.micro_services import VERSION
from gateway.web.assets import Assets
from gateway.web.problems import ProblemError

PATH = "/schema"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
HTML = "text/html"
BUNDLE = "application/vnd.gpuping.bundle+json"  # a statement that `gpuping verify` reads
_STRING_FORMATS = {PARQUET: OpenAPIFormat.BINARY}

_ROOT_ADDRESSES = re.compile(rb'(?<=")(static/|schema/|\./)')


class _SwaggerPage(OpenAPIRenderPlugin):
    """Serves the page of the interface. Without the page's libraries it is a plain link."""

    def __init__(self, assets: Assets) -> None:
        super().__init__(path="/")
        self._assets = assets

    def render(
        self,
        request: Request[Any, Any, Any],
        openapi_schema: dict[str, Any],  # noqa: ARG002
    ) -> bytes:
        """The page's addresses are relative, and it has two: `schema` and `schema/`."""
        page = self._assets.page("api.html")
        if page is None:
            raise ProblemError(404, "nothing is at this address")
        path = request.scope["raw_path"].partition(b"?")[0]
        if path.endswith(b"/"):
            return _ROOT_ADDRESSES.sub(rb"../\1", page.body)
        return page.body


def config(public_prefix: str, assets: Assets) -> OpenAPIConfig:
    """Litestar's settings for the document and its page, all of which lie below `PATH`.

    `public_prefix` is what browsers have before the gateway's own paths; may be empty.
    """
    page = _SwaggerPage(assets)
    bearer = SecurityScheme(
        type="http",
        scheme="bearer",
        description="where a tokens file is set",
    )
    router = Router(
        PATH,
        route_handlers=[],
        include_in_schema=False,
        after_request=_replace_html_404,
    )
    return OpenAPIConfig(
        title="gpuping",
        version=VERSION,
        servers=[Server(url=public_prefix or "/")],
        summary="GPU uptime that can be paid on",
        description="Every error is an `application/problem+json` document. "
        "Times are RFC 3339 UTC, durations are seconds, "
        "percents are 0..100 or null where nothing was observed.",
        openapi_router=router,
        render_plugins=[page, JsonRenderPlugin()],
        components=Components(security_schemes={"bearer": bearer}),
        # a gateway without a tokens file asks for no token, hence the empty alternative
        security=[{}, {"bearer": []}],
        tags=[
            Tag("agents", "Who is monitored"),
            Tag("pings", "Outcomes, now and in history"),
            Tag("live", "Asked of the agent itself, over the bus"),
            Tag("fleet", "All agents together"),
            Tag("public", "What needs no login, and how operators make it"),
            Tag("operation", "For probes and monitoring of gpuping itself"),
        ],
    )


def resolve_path(path: str, accept: str) -> str:
    """The path to route: `/schema` becomes `/schema/openapi.json` for a client that accepts JSON.

    A browser accepts HTML and gets the page. `accept` is the Accept header in lower case.
    """
    is_page = path.rstrip("/") == PATH
    wants_json = "json" in accept and "text/html" not in accept
    if is_page and wants_json:
        return f"{PATH}/openapi.json"
    return path


async def _replace_html_404(response: Response[Any]) -> Response[Any]:
    """Raises a 404 problem where Litestar would answer an unknown path below `PATH` with HTML."""
    if response.status_code == 404:
        raise ProblemError(404, "nothing is at this address")
    return response


def request_body(body: type[Struct], *, answers_content: bool = True) -> type[Operation]:
    """An operation class that documents `body` as the JSON request body.

    Without `answers_content` it is one of OperationWithoutContent, too.

    The routes read the body themselves (`json_body.read_json`), so that every fault becomes a
    problem document; Litestar therefore cannot document it.
    """
    schemas, components = msgspec.json.schema_components([body], ref_template="#/{name}")
    schema = _to_schema(components.get(body.__name__, schemas[0]))
    content = {"application/json": OpenAPIMediaType(schema=schema)}

    base = Operation if answers_content else OperationWithoutContent

    @dataclass
    class OperationWithBody(base):  # type: ignore[valid-type, misc]
        def __post_init__(self) -> None:
            if not answers_content:
                super().__post_init__()
            self.request_body = RequestBody(content=content, required=True)

    return OperationWithBody


def response_formats(*media_types: str, json: bool = True) -> type[Operation]:
    """An operation class that documents files of `media_types` as further 200 responses.

    Without `json` the files replace the JSON response.
    """
    files: dict[str, OpenAPIMediaType] = {}
    for media_type in media_types:
        schema = Schema(type=OpenAPIType.STRING, format=_STRING_FORMATS.get(media_type))
        files[media_type] = OpenAPIMediaType(schema=schema)

    @dataclass
    class OperationWithFiles(Operation):
        def __post_init__(self) -> None:
            success = (self.responses or {}).get("200")
            if not isinstance(success, OpenAPIResponse):
                return
            kept = success.content if json else None
            success.content = {**(kept or {}), **files}

    return OperationWithFiles


@dataclass
class OperationWithoutContent(Operation):
    """An operation class that documents the 204 response without a body, as HTTP requires."""

    def __post_init__(self) -> None:
        success = (self.responses or {}).get("204")
        if isinstance(success, OpenAPIResponse):
            success.content = None


def _to_schema(plain: dict[str, Any]) -> Schema:
    """A JSON schema from msgspec as Litestar's object. Covers the keywords that our bodies use."""
    schema = Schema(
        type=plain.get("type"),
        format=plain.get("format"),
        title=plain.get("title"),
        description=plain.get("description"),
        required=plain.get("required"),
        pattern=plain.get("pattern"),
        min_length=plain.get("minLength"),
        max_length=plain.get("maxLength"),
        min_items=plain.get("minItems"),
        max_items=plain.get("maxItems"),
        minimum=plain.get("minimum"),
        maximum=plain.get("maximum"),
        enum=plain.get("enum"),
    )
    if "items" in plain:
        schema.items = _to_schema(plain["items"])
    if "anyOf" in plain:
        schema.any_of = [_to_schema(choice) for choice in plain["anyOf"]]
    if "properties" in plain:
        schema.properties = {}
        for name, value in plain["properties"].items():
            schema.properties[name] = _to_schema(value)
    return schema
