"""What operators show to people who do not sign in: status pages, and links to badges and views."""

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter
from msgspec import Struct
from msgspec.structs import replace

from bus.client.fleet_client import FleetClient
from bus.contract.labels import Label
from bus.contract.messages import AgentId
from bus.contract.publishing import (
    AddStatusPage,
    Link,
    LinkKind,
    MakeLink,
    PageAgents,
    PageName,
    PageTitle,
    RemoveStatusPage,
    RevokedLinks,
    RevokeLinks,
    ShownName,
    StatusPage,
    StatusPages,
    ValidSeconds,
)
from bus.contract.subjects import STATUS_PAGE_NAME_PATTERN
from gateway.audit_log import actor_of, address_of
from gateway.web import json_body, params
from gateway.web.access.auth import LINKS_PATH, STATUS_PAGES_PATH, Guard
from gateway.web.openapi import request_body
from gateway.web.problems import ProblemError, bad_body, error_responses

_NAME_SCHEMA = {"pattern": STATUS_PAGE_NAME_PATTERN}


class NewStatusPage(Struct, kw_only=True, frozen=True):
    """The body of a page: of `agents`, or of all that have a label (`site=FRA`) at the moment."""

    name: PageName
    title: PageTitle
    agents: PageAgents = ()
    label: Label | None = None
    show_ids: bool = False
    replace: bool = False


class NewLink(Struct, kw_only=True, frozen=True):
    """The body of a link. One to a host's own view expires: `valid_seconds`, or 30 days."""

    kind: LinkKind
    agent_id: AgentId
    valid_seconds: ValidSeconds | None = None
    shown_name: ShownName | None = None


HOST_LINK_SECONDS = 30 * 86_400


@get(
    STATUS_PAGES_PATH,
    tags=["public"],
    summary="List the status pages",
    responses=error_responses(401, 403),
)
async def list_status_pages(fleet_client: NamedDependency[FleetClient]) -> StatusPages:
    """The definitions of all pages."""
    return await fleet_client.publishing.pages()


@post(
    STATUS_PAGES_PATH,
    status_code=201,
    tags=["public"],
    summary="Add a status page",
    operation_class=request_body(NewStatusPage),
    responses=error_responses(401, 403, 404, 409, 413),
)
async def add_status_page(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
) -> StatusPage:
    """The page is public at `/status/{name}` from now on. 409 for a name that is taken."""
    body = await json_body.read_json(request, NewStatusPage)
    try:
        page = StatusPage(
            name=body.name,
            title=body.title,
            agents=body.agents,
            label=body.label,
            show_ids=body.show_ids,
        )
    except ValueError as error:
        raise bad_body(str(error)) from None
    question = AddStatusPage(
        page=page,
        replace=body.replace,
        author=actor_of(request.scope),
        address=address_of(request),
    )
    return await fleet_client.publishing.add_page(question)


@get(
    f"{STATUS_PAGES_PATH}/{{name:str}}",
    tags=["public"],
    summary="Show the definition of a status page",
    responses=error_responses(401, 403, 404),
)
async def show_status_page(
    name: Annotated[str, PathParameter(schema_extra=_NAME_SCHEMA)],
    fleet_client: NamedDependency[FleetClient],
) -> StatusPage:
    """One definition."""
    pages = (await fleet_client.publishing.pages()).pages
    for page in pages:
        if page.name == name:
            return page
    raise ProblemError(404, f"there is no status page {name[:80]!r}")


@delete(
    f"{STATUS_PAGES_PATH}/{{name:str}}",
    status_code=200,
    tags=["public"],
    summary="Remove a status page",
    responses=error_responses(401, 403, 404),
)
async def remove_status_page(
    request: Request[Any, Any, Any],
    name: Annotated[str, PathParameter(schema_extra=_NAME_SCHEMA)],
    fleet_client: NamedDependency[FleetClient],
) -> StatusPage:
    """The page is gone from every gateway within two seconds."""
    question = RemoveStatusPage(
        name=name,
        author=actor_of(request.scope),
        address=address_of(request),
    )
    return await fleet_client.publishing.remove_page(question)


@post(
    LINKS_PATH,
    status_code=201,
    tags=["public"],
    summary="Make a link that needs no login",
    operation_class=request_body(NewLink),
    responses=error_responses(401, 403, 404, 413),
)
async def make_link(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    guard: NamedDependency[Guard],
) -> Link:
    """To an agent's badge, or to its host's own view. It is a secret, and not shown again."""
    body = await json_body.read_json(request, NewLink)
    valid_seconds = body.valid_seconds
    if body.kind == "host" and valid_seconds is None:
        valid_seconds = HOST_LINK_SECONDS
    question = MakeLink(
        kind=body.kind,
        agent_id=body.agent_id,
        valid_seconds=valid_seconds,
        shown_name=body.shown_name,
        author=actor_of(request.scope),
        address=address_of(request),
    )
    link = await fleet_client.publishing.make_link(question)
    if guard.public_root is None:
        return link
    return replace(link, url=f"{guard.public_root}{link.path}")


@delete(
    LINKS_PATH,
    status_code=200,
    tags=["public"],
    summary="Revoke links",
    responses=error_responses(401, 403, 404),
)
async def revoke_links(
    request: Request[Any, Any, Any],
    fleet_client: NamedDependency[FleetClient],
    agent_id: params.AgentIdParam = None,
) -> RevokedLinks:
    """Refuses every link that was made so far, of one agent or of all, within two seconds."""
    question = RevokeLinks(
        agent_id=agent_id,
        author=actor_of(request.scope),
        address=address_of(request),
    )
    return await fleet_client.publishing.revoke_links(question)
