"""REST routes of browser sessions: signing in with a token, and signing out."""

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from msgspec import Struct

from gateway.sign_outs import SignOuts
from gateway.web import json_body
from gateway.web.access.auth import Guard
from gateway.web.openapi import OperationWithoutContent, request_body
from gateway.web.problems import error_responses


class Login(Struct, frozen=True):
    """The token that somebody typed into the page."""

    token: str


@post(
    "/login",
    status_code=204,
    tags=["operation"],
    summary="Begin a browser session",
    operation_class=request_body(Login, answers_content=False),
    responses=error_responses(401, 403, 429),
)
async def login(request: Request[Any, Any, Any], guard: NamedDependency[Guard]) -> Response[None]:
    """Sets the session cookie. Without a tokens file there is no session, and no cookie is set.

    Browsers need the cookie because an event stream cannot carry an Authorization header.
    """
    body = await json_body.read_json(request, Login)
    if guard.is_open:
        return Response(None, status_code=204)
    client = request.client.host if request.client else "?"
    is_https = request.scope["scheme"] == "https"
    cookie = guard.begin_session(body.token.strip(), client, is_https=is_https)
    return Response(None, status_code=204, headers={"Set-Cookie": cookie})


@post(
    "/logout",
    status_code=204,
    tags=["operation"],
    summary="End a browser session",
    operation_class=OperationWithoutContent,
    responses=error_responses(403),
)
async def logout(
    request: Request[Any, Any, Any],
    guard: NamedDependency[Guard],
    sign_outs: NamedDependency[SignOuts],
) -> Response[None]:
    """Ends the session, at every gateway, and removes its cookie."""
    ended = guard.end_session(request.headers.get("cookie", ""))
    await sign_outs.tell(ended.notice)
    return Response(None, status_code=204, headers={"Set-Cookie": ended.set_cookie})
