"""Pages that need no login: status pages, and a host's own view by the link of an operator.

Whatever is wrong with an address, the answer is the same 404: nobody learns which pages, hosts or
links there are.
"""

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from bus.client.fleet_client import FleetClient
from bus.contract.exports import ExportRequest
from bus.contract.questions import CURSOR_PATTERN, HistoryReply, HistoryRequest
from bus.contract.statements import Statement, StatementFormat, StatementRequest
from bus.identity.sealed_links import LinkContent
from gateway.public import host_html
from gateway.public.host_views import HostViews
from gateway.public.links import Links
from gateway.public.status_pages import Body, StatusPages
from gateway.web import params
from gateway.web.file_response import LongAnswers
from gateway.web.openapi import BUNDLE, CSV, HTML, PARQUET, response_formats
from gateway.web.problems import ProblemError, error_responses

STATUS_SECONDS = 30  # so long browsers and proxies may keep a status page
JSON = "application/json"
_JSON_SUFFIX = ".json"

StatementFormatParam = Annotated[
    StatementFormat,
    QueryParameter(name="format", description="html is made to print, bundle to verify"),
]


@get(
    "/status/{name:str}",
    tags=["public"],
    security=[{}],
    summary="A status page, or with `.json` its content",
    operation_class=response_formats(HTML),
    responses=error_responses(404, 429),
)
async def status(
    request: Request[Any, Any, Any],
    name: FromPath[str],
    status_pages: NamedDependency[StatusPages],
) -> Response[bytes]:
    """How the hosts of a page do. It needs no token, and is computed at most once a minute."""
    wants_json = name.endswith(_JSON_SUFFIX)
    page = await status_pages.page(name.removesuffix(_JSON_SUFFIX))
    if page is None:
        raise nothing_here()
    if not wants_json and _has_slash(request):
        return _without_slash(name)
    if wants_json:
        return _send(request, page.json, JSON)
    return _send(request, page.html, f"{HTML}; charset=utf-8")


@get(
    "/host/{secret:str}",
    tags=["public"],
    security=[{}],
    summary="A host's own view, or with `.json` its content",
    operation_class=response_formats(HTML),
    responses=error_responses(404, 429),
)
async def host(
    request: Request[Any, Any, Any],
    secret: FromPath[str],
    links: NamedDependency[Links],
    host_views: NamedDependency[HostViews],
    month: params.MonthParam = None,
) -> Response[Any]:
    """A host's month, pings and conditions, for whoever has the link that an operator made."""
    wants_json = secret.endswith(_JSON_SUFFIX)
    secret = secret.removesuffix(_JSON_SUFFIX)
    link = await _opened(links, secret)
    view = await host_views.view(link, month or params.this_month())
    if view is None:
        raise nothing_here()
    if wants_json:
        return Response(view)
    if _has_slash(request):
        return _without_slash(secret)
    page = host_html.render(view, secret)
    return Response(page.encode(), media_type=f"{HTML}; charset=utf-8")


@get(
    "/host/{secret:str}/statement",
    tags=["public"],
    security=[{}],
    summary="The statement of a host's own view",
    operation_class=response_formats(CSV, PARQUET, HTML, BUNDLE),
    responses=error_responses(404, 429, 507),
)
async def host_statement(
    request: Request[Any, Any, Any],
    secret: FromPath[str],
    links: NamedDependency[Links],
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    month: params.MonthParam = None,
    file_format: StatementFormatParam = "json",
) -> Response[Statement]:
    """The month's statement of this host, as at `/ping-system/agents/{id}/report`."""
    link = await _opened(links, secret)
    question = StatementRequest(month=month or params.this_month(), format=file_format)
    slot = long_answers.begin(request)
    if file_format == "json":
        with slot:
            return Response(await fleet_client.statement(link.agent_id, question))
    offered = fleet_client.statement_file(link.agent_id, question)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]


@get(
    "/host/{secret:str}/history",
    tags=["public"],
    security=[{}],
    summary="The pings of a host's own view",
    operation_class=response_formats(CSV, PARQUET),
    responses=error_responses(404, 429, 507),
)
async def host_history(  # noqa: PLR0913, PLR0917  # each is a part of the question
    request: Request[Any, Any, Any],
    secret: FromPath[str],
    links: NamedDependency[Links],
    fleet_client: NamedDependency[FleetClient],
    long_answers: NamedDependency[LongAnswers],
    hours: params.HoursParam = 24.0,
    cursor: Annotated[
        str | None,
        QueryParameter(pattern=CURSOR_PATTERN, description="`next_cursor` of the page before"),
    ] = None,
    evidence: Annotated[
        bool,
        QueryParameter(description="as JSON, with the reports that were signed or refused"),
    ] = False,
    file_format: params.FormatParam = None,
) -> Response[HistoryReply]:
    """The outcomes of this host, as at `/ping-system/agents/{id}/history`."""
    link = await _opened(links, secret)
    if file_format is None or file_format == "json":
        question = HistoryRequest(hours=hours, cursor=cursor, evidence=evidence)
        return Response(await fleet_client.history(link.agent_id, question))
    export = ExportRequest(hours=hours, format=file_format)
    slot = long_answers.begin(request)
    offered = fleet_client.export(link.agent_id, export)
    return await long_answers.file(slot, offered)  # type: ignore[return-value]


def nothing_here() -> ProblemError:
    """The answer to every address that is not, or no longer, good."""
    return ProblemError(404, "nothing is at this address")


async def _opened(links: Links, secret: str) -> LinkContent:
    link = await links.open(secret, "host")
    if link is None:
        raise nothing_here()
    return link


def _send(request: Request[Any, Any, Any], body: Body, media_type: str) -> Response[bytes]:
    headers = {
        "ETag": body.etag,
        "Cache-Control": f"public, max-age={STATUS_SECONDS}",
        "Vary": "Accept-Encoding",
    }
    if body.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=media_type)
    data = body.data
    if "gzip" in request.headers.get("accept-encoding", ""):
        data = body.compressed
        headers["Content-Encoding"] = "gzip"
    return Response(data, headers=headers, media_type=media_type)


def _has_slash(request: Request[Any, Any, Any]) -> bool:
    """Whether the path ends with a slash; the page's relative addresses would lead elsewhere."""
    return request.scope["raw_path"].partition(b"?")[0].endswith(b"/")


def _without_slash(name: str) -> Response[bytes]:
    return Response(b"", status_code=308, headers={"Location": f"../{name}"}, media_type=HTML)
